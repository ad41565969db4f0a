"""Embedding a folder of metadata: what comes out is metadata with features, file by file."""

import itertools
import json
import os
import random
import shutil
import signal
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp import durable
from datacomp.curate.embedding import embed_metadata
from datacomp.curate.fetching import outcome_files
from datacomp.curate.selection import select
from datacomp.errors import DataError, StorageError, UsageError
from datacomp.filters.expression import parse_all
from datacomp.pools import Pool, fetches
from datacomp.pools.checking import check_pool
from datacomp.pools.embedding import footers, partwise
from datacomp.pools.embedding.embed import embed_pool
from datacomp.pools.embedding.embedder import Embedder
from datacomp.pools.embedding.partwise import embed_file
from datacomp.pools.embedding.recipe import Recipe
from datacomp.pools.engine import Local
from datacomp.pools.features import Features
from datacomp.pools.file_stamps import FileStamp
from datacomp.pools.sources import open_source


@pytest.fixture
def metadata(tmp_path, commonpool):
    """Metadata of 30 samples in 3 files, which have no features."""
    return commonpool(tmp_path / "m", files=3, rows=10, features=(), clip_b32_similarity_score=())


@pytest.fixture
def shards(tmp_path, write_tar):
    """Tars whose samples are of several files: image 9 is broken, 27 to 29 are not there."""
    write_tar(tmp_path / "shards/00000.tar", [4, 3, 50, 9, 25, 12], broken={9})
    write_tar(tmp_path / "shards/00001.tar", [n for n in range(27) if n not in (4, 3, 9, 25, 12)])
    return tmp_path / "shards"


@pytest.fixture
def embed(recipe):
    def embed(folder, out, shards, recipe=recipe, name="b", **how):
        how = {"device": "cpu", "batch_size": 4} | how
        return embed_metadata(folder, out, shards, recipe, name, **how)

    return embed


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def counts(report):
    return report.embedded, report.known, report.set_aside, report.without_image


def features_of(path, name):
    """Return uid to vector and caption's score of all that have finite ones."""
    with Pool.open(path, read_only=path.is_file()) as pool:
        found = {}
        for uids, vectors in Features(pool, name).batches():
            found |= dict(zip(uids["f1"].tolist(), vectors, strict=True))
    return {uid: vector for uid, vector in found.items() if np.isfinite(vector).all()}


def test_the_features_are_those_of_a_pool(metadata, shards, embed, recipe, tmp_path):
    out = tmp_path / "out"
    report = embed(metadata, out, shards)
    assert counts(report) == (26, 0, {"image_broken": 1}, 3)
    assert report.examples == ["00ab.parquet: row 10: image_broken"]
    assert sorted(files_of(out)) == [
        f"0{n}ab.{end}" for n in range(3) for end in ("npz", "parquet")
    ]
    with Pool.create(tmp_path / "pool.duckdb") as pool:
        pool.add(open_source("commonpool", metadata, link=True))
        single = embed_pool(pool, recipe, "b", shards=shards, device="cpu", batch_size=4)
        table = pool.scalar("SELECT values_table FROM scores")
        scores = dict(pool.sql(f"SELECT uid, value FROM {table}").fetchall())
    for what in ("model", "weights", "precision", "embedded", "set_aside", "without_image"):
        assert getattr(report, what) == getattr(single, what)
    for name in ("b_img", "b_txt"):
        ours, theirs = (features_of(p, name) for p in (out, tmp_path / "pool.duckdb"))
        assert ours.keys() == theirs.keys() == set(range(27)) - {9}
        # Not the same batches, so not the same last bits.
        assert all(np.allclose(ours[uid], theirs[uid], atol=1e-3) for uid in ours)
    first, own = (pq.read_table(folder / "00ab.parquet") for folder in (out, metadata))
    assert first.select(own.column_names).equals(own)
    assert first["b_set_aside"].to_pylist() == [None] * 9 + ["image_broken"]
    told = first["clip_b_similarity_score"].to_pylist()
    assert told == [pytest.approx(scores[n], abs=1e-6) for n in range(9)] + [None]
    last = np.load(out / "02ab.npz")
    assert last["b_img"].dtype == np.float16
    assert np.isnan(last["b_img"]).all(axis=1).tolist() == [False] * 7 + [True] * 3
    assert pq.read_table(out / "02ab.parquet")["b_set_aside"].to_pylist()[7:] == ["no_image"] * 3
    with Pool.open(out) as pool:
        assert check_pool(pool).problems == {}


def test_filters_take_them_as_they_take_a_download(metadata, shards, embed, tmp_path):
    out = tmp_path / "out"
    embed(metadata, out, shards, name="b32")
    kept = {}
    for words in (["clip_score:arch=b32,threshold=-2"],
                  ["ssl_prototypes:features=b32_img,clusters=2,fraction=1.0"]):  # fmt: skip
        for name, engine in (("whole", None), ("parts", Local(1))):
            with Pool.open(out) as pool:
                found = select(
                    pool, parse_all(words).filters, tmp_path / f"{name}.npy", engine=engine
                )
            kept[words[0], name] = (tmp_path / f"{name}.npy").read_bytes()
            assert found.selection.kept == 26
    assert len(set(kept.values())) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_bytes_for_any_number_of_threads(metadata, shards, embed, tmp_path, workers):
    embed(metadata, tmp_path / "one", shards, workers=3)
    embed(metadata, tmp_path / "other", shards, workers=workers)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "other")


def told_from_footers(embed, *words):
    """Tell whether all is known without a look at a file of metadata or the index."""
    looked = []

    def noted(work):
        looked.append(work)
        return embed_file(work)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partwise, "embed_file", noted)
        assert embed(*words).embedded == 0
    return not looked


def test_again_does_only_what_is_new(metadata, shards, embed, write_tar, tmp_path, monkeypatch):
    out, batches = tmp_path / "out", []
    original = Embedder._embed

    def counting(self, batch, prepared):
        batches.append(batch.uids["f1"].tolist())
        return original(self, batch, prepared)

    monkeypatch.setattr(Embedder, "_embed", counting)
    embed(metadata, out, shards)
    before = files_of(out)
    batches.clear()
    os.utime(metadata / "01ab.parquet")  # it is the same
    assert counts(embed(metadata, out, shards)) == (0, 26, {"image_broken": 1}, 3)
    assert told_from_footers(embed, metadata, out, shards)
    # New images are of the last file alone.
    write_tar(shards / "00002.tar", [28, 27])
    assert counts(embed(metadata, out, shards)) == (9, 19, {"image_broken": 1}, 1)
    assert sorted(itertools.chain(*batches)) == list(range(20, 29))
    after = files_of(out)
    assert {name for name in after if after[name] != before.get(name)} == {
        "02ab.npz", "02ab.parquet", ".00ab.parquet.json", ".01ab.parquet.json"
    }  # fmt: skip
    assert told_from_footers(embed, metadata, out, shards)
    (out / ".00ab.parquet.json").write_text("[")  # it is looked up again
    assert not told_from_footers(embed, metadata, out, shards)
    assert told_from_footers(embed, metadata, out, shards)
    # A caption has changed, and so has a broken image.
    batches.clear()
    table = pq.read_table(metadata / "01ab.parquet")
    texts = pa.array(["another", *table["text"].to_pylist()[1:]])
    pq.write_table(table.set_column(2, "text", texts), metadata / "01ab.parquet")
    write_tar(shards / "00000.tar", [4, 3, 50, 9, 25, 12])
    assert counts(embed(metadata, out, shards)) == (29, 0, {}, 1)
    (out / "02ab.npz").unlink()
    assert counts(embed(metadata, out, shards)) == (9, 20, {}, 1)
    embed(metadata, tmp_path / "anew", shards)

    def content(folder):
        found = {}
        for path in sorted(folder.rglob("[!.]*.*")):
            table = path.suffix == ".parquet"
            found[path.name] = pq.read_table(path) if table else path.read_bytes()
        return found

    assert content(out) == content(tmp_path / "anew")


def test_killed_at_any_moment_and_run_again_it_is_the_same(metadata, shards, embed, tmp_path):
    embed(metadata, tmp_path / "first", shards)  # imports what it needs
    started = time.monotonic()
    embed(metadata, tmp_path / "whole", shards)
    took = time.monotonic() - started
    whole, drawn, killed = files_of(tmp_path / "whole"), random.Random(0), 0
    numbers = itertools.count()
    while killed < 5:
        out = tmp_path / f"out{next(numbers)}"
        child = os.fork()
        if not child:
            try:
                embed(metadata, out, shards)
            finally:
                os._exit(0)
        time.sleep(drawn.random() * took)
        os.kill(child, signal.SIGKILL)
        died = os.waitpid(child, 0)[1] == signal.SIGKILL
        killed += died
        took *= 1 if died else 0.7  # where much else goes on, the first one takes longer
        embed(metadata, out, shards)
        assert files_of(out) == whole


def test_stopped_at_any_rename_while_it_is_made_of_something_else(
    metadata, shards, embed, write_tar, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    embed(metadata, out, shards)
    before = files_of(out)
    write_tar(shards / "00000.tar", [3, 50, 4, 12, 9, 25])  # their places are others
    write_tar(shards / "00002.tar", [27, 28])
    moments, original = [], Path.replace

    def replace(self, target):
        if not Path(target).is_relative_to(out):  # the index
            return original(self, target)
        for rename in (lambda: None, lambda: original(self, target)):
            rename()
            moments.append(tmp_path / f"moment{len(moments)}")
            shutil.copytree(out, moments[-1])  # what a kill would leave
        return target

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        embed(metadata, out, shards)
    after = files_of(out)
    assert len(moments) == 2 * 6
    for moment in moments:
        there = files_of(moment)
        for footer in (name for name in there if name.endswith("b.parquet")):
            pair = (footer, footer.replace(".parquet", ".npz"))
            # A footer speaks of the vectors beside it.
            assert any(all(there[n] == tree[n] for n in pair) for tree in (before, after))
        embed(metadata, moment, shards)
        assert files_of(moment) == after


def test_layout_of_the_largest_pool_and_token_merging(commonpool, shards, embed, tiny, tmp_path):
    folder = tmp_path / "big"
    for part in range(2):
        commonpool(folder / f"part_0{part}", files=1, rows=5, features=(), first=part * 5)
    out = tmp_path / "out"
    report = embed(folder, out, shards, recipe=Recipe(tiny(0), tome=1))
    assert counts(report) == (9, 0, {"image_broken": 1}, 0)
    assert report.drift.samples == 5
    assert sorted(files_of(out)) == [
        f"part_0{part}/00ab.{end}" for part in range(2) for end in ("npz", "parquet")
    ]
    assert features_of(out, "b_img").keys() == set(range(9))


def test_refusals(metadata, shards, embed, tiny, commonpool, tmp_path):
    out = tmp_path / "out"
    embed(metadata, out, shards)

    def refused(kind, message, *words, **how):
        with pytest.raises(kind, match=message) as caught:
            embed(*words, **how)
        assert "\n" not in str(caught.value)

    refused(UsageError, "its features 'b' were made with weights_sha256", metadata, out, shards,
            recipe=Recipe(tiny(1)))  # fmt: skip
    refused(UsageError, "is not what 'datacomp pool embed' wrote with features 'c'", metadata, out,
            shards, name="c")  # fmt: skip
    refused(UsageError, "have a column clip_l14_similarity_score already", metadata,
            tmp_path / "x", shards, name="l14")  # fmt: skip
    refused(UsageError, r"say where its images are \(--shards DIR\) and where", metadata, out, None)
    refused(UsageError, "m: is where the metadata are; choose", metadata, metadata, shards)
    refused(UsageError, "shards: is where the shards are; choose", metadata, shards, shards)
    refused(UsageError, "x: is where the shards are", metadata, shards / "x", shards)
    with durable.alone(out, "free"):
        refused(StorageError, "out: another 'datacomp pool embed' is writing there; wait for it",
                metadata, out, shards)  # fmt: skip
    refused(UsageError, "s3://b/m: metadata, shards and features are read", "s3://b/m", out, shards)
    other = commonpool(tmp_path / "o", files=1, rows=3, features=())
    refused(UsageError, r"01ab.parquet: belongs to no file of .*; remove it", other, out, shards)
    (tmp_path / "nouid").mkdir()
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "nouid/a.parquet")
    refused(DataError, "no metadata found .*no column uid", tmp_path / "nouid", tmp_path / "n",
            shards)  # fmt: skip
    (tmp_path / "none").mkdir()
    refused(DataError, "no .tar|no tars", metadata, tmp_path / "n", tmp_path / "none")


@pytest.mark.parametrize("damage", [
    lambda footer: "str", lambda footer: 5, lambda footer: None, lambda footer: {"x": 5},
    lambda footer: {"b": 5}, lambda footer: {"b": {}}, lambda footer: {"b": ["of"]},
    lambda footer: {"b": footer["b"] | {"of": "x"}},
    lambda footer: {"b": footer["b"] | {"of": {"size": "1", "changed": 1, "sha256": "x"}}},
    lambda footer: {"b": footer["b"] | {"identity": [1]}},
    lambda footer: {"b": footer["b"] | {"embedded": "9"}},
    lambda footer: {"b": footer["b"] | {"set_aside": {"unreadable": "1"}}},
    lambda footer: {"b": footer["b"] | {"set_aside": []}},
    lambda footer: {"b": footer["b"] | {"examples": [1]}},
    lambda footer: {"b": footer["b"] | {"more": 1}},
])  # fmt: skip
def test_a_footer_of_another_shape_is_not_ours(recipe, tmp_path, damage):
    place, identity = tmp_path / "a.parquet", recipe.identity()
    done = footers.FileDone(FileStamp(1, 2, "x"), "t", "i", identity, {}, 9, {"odd": 1}, 0, ["a"])
    (tmp_path / "a.npz").touch()

    def write(metadata):
        table = pa.table({"uid": ["0"]}).replace_schema_metadata(metadata)
        pq.write_table(table, place)

    write(done.footer("b"))
    assert footers.read(place, "b", identity) == done
    ours = json.loads(done.footer("b")[footers.KEY])
    write({footers.KEY: json.dumps(damage(ours)).encode()})
    with pytest.raises(UsageError, match="is not what 'datacomp pool embed' wrote with feat"):
        footers.read(place, "b", identity)


def test_metadata_that_cannot_be_read_are_told(metadata, shards, embed, command, tiny, tmp_path):
    out = tmp_path / "out"
    embed(metadata, out, shards)
    before = files_of(out)
    (metadata / "01ab.parquet").write_bytes(b"PAR1 no more")
    report = embed(metadata, out, shards)
    assert counts(report) == (0, 16, {"image_broken": 1, "file_broken": 1}, 3)
    assert report.examples[0].startswith("01ab.parquet: file_broken: ")
    assert files_of(out) == before
    model = tiny(0)
    code, printed, err = command(
        "pool", "embed", metadata, "--shards", shards, "--checkpoint", model.checkpoint, "--model",
        model.model_config, "--device", "cpu", "-o", tmp_path / "other",
    )  # fmt: skip
    assert (code, err) == (3, "")
    assert "\n  set aside: 1 file_broken\n" in printed
    assert "\n    01ab.parquet: file_broken: " in printed


@pytest.fixture
def fetched(metadata, write_tar, tmp_path):
    """Tars as 'pool fetch' leaves them, each of a file of metadata; 7 and 27 to 29 failed."""
    folder = tmp_path / "fetched"
    for number in range(3):
        uids = [n for n in range(number * 10, number * 10 + 10) if n not in (7, 27, 28, 29)]
        write_tar(folder / f"{number:08d}.tar", uids)
        _write_outcomes(metadata / f"0{number}ab.parquet", folder, number, uids)
    return folder


def _write_outcomes(file, folder, number, available):
    uids = [int(uid, 16) for uid in pq.read_table(file)["uid"].to_pylist()]
    place = folder / outcome_files.FOLDER / file.name
    place.parent.mkdir(exist_ok=True)
    with outcome_files.no_samples(place) as pool:
        for uid in uids:
            became = [fetches.OK, None] if uid in available else [fetches.FAILED, "http_404"]
            pool.sql("INSERT INTO fetches VALUES (?, ?, ?, 1, '2020-01-01')", [uid, *became])
        of = outcome_files.Metadata(**asdict(FileStamp.of(file)), urls=len(uids))
        outcome_files.save(pool, place, of, [(number, number + 1)])


def add_a_tar(metadata, folder, write_tar):
    write_tar(folder / "extra.tar", [7, 28])


def share_a_uid(metadata, folder, write_tar):
    """Let 28, which failed for its own file, and 3 be of another file as well."""
    table = pq.read_table(metadata / "00ab.parquet")
    pq.write_table(
        table.slice(0, 2).set_column(0, "uid", pa.array([f"{n:032x}" for n in (3, 28)])),
        metadata / "03ab.parquet",
    )
    write_tar(folder / "00000003.tar", [3, 28])
    _write_outcomes(metadata / "03ab.parquet", folder, 3, [3, 28])


def add_a_row(metadata, folder, write_tar):
    """Let a file have a sample of another file, since it was fetched."""
    tables = [pq.read_table(metadata / f"0{number}ab.parquet") for number in (1, 0)]
    pq.write_table(pa.concat_tables([tables[0], tables[1].slice(0, 1)]), metadata / "01ab.parquet")


@pytest.mark.parametrize(
    ("change", "images"),
    [(None, 26), (add_a_tar, 28), (share_a_uid, 29), (add_a_row, 27)],
)  # fmt: skip
def test_outcomes_of_a_fetch_change_nothing(
    metadata, fetched, embed, write_tar, tmp_path, monkeypatch, change, images
):
    looked, original = [], partwise._list

    def noted(pool, work, tars=()):
        looked.append(tars)
        return original(pool, work, tars)

    monkeypatch.setattr(partwise, "_list", noted)
    if change:
        change(metadata, fetched, write_tar)
    assert embed(metadata, tmp_path / "known", fetched).embedded == images
    if not change:
        assert looked == [((f"{n:08d}.tar", f"{n:08d}.tar"),) for n in range(3)]
    shutil.rmtree(fetched / outcome_files.FOLDER)
    assert embed(metadata, tmp_path / "unknown", fetched).embedded == images
    assert files_of(tmp_path / "known") == files_of(tmp_path / "unknown")


def test_metadata_that_change_meanwhile_are_told(metadata, shards, embed, tmp_path, monkeypatch):
    original = Embedder.embedded

    def touching(self, batches):
        os.utime(metadata / "00ab.parquet")
        return original(self, batches)

    monkeypatch.setattr(Embedder, "embedded", touching)
    with pytest.raises(DataError, match=r"00ab\.parquet: has changed while it was embedded; run"):
        embed(metadata, tmp_path / "out", shards)
    assert not (tmp_path / "out/00ab.parquet").exists()


def test_a_tar_that_is_cut_is_used_up_to_there(metadata, shards, embed, write_tar, tmp_path):
    cut = write_tar(shards / "00002.tar", [27, 28])
    cut.write_bytes(cut.read_bytes()[:-1024][:-4000])
    report = embed(metadata, tmp_path / "out", shards)
    assert counts(report) == (27, 0, {"image_broken": 1, "shard_broken": 1}, 2)


def test_the_command(command, metadata, shards, tiny, tmp_path):
    out, model = tmp_path / "out", tiny(0)
    words = ["pool", "embed", metadata, "--shards", shards, "--checkpoint", model.checkpoint,
             "--model", model.model_config, "--device", "cpu"]  # fmt: skip
    code, printed, err = command(*words, "-o", out)
    assert (code, err) == (3, "")
    assert printed == (
        "features tiny: 26 embedded, 0 known before\n  set aside: 1 image_broken\n"
        f"    00ab.parquet: row 10: image_broken\n  3 samples without an image\nin {out}\n"
    )
    code, _, err = command(*words)
    assert (code, err.count("\n")) == (2, 1)
    code, _, err = command("pool", "embed", "s3://b/m", *words[3:], "-o", out)
    assert (code, err.count("\n")) == (2, 1)
    pool = tmp_path / "p.duckdb"
    code, _, err = command("pool", "embed", pool, *words[3:], "-o", out)
    assert (code, f"{pool}: no such pool, and no folder of metadata" in err) == (1, True)
    pool.touch()
    code, _, err = command("pool", "embed", pool, *words[3:], "-o", out)
    assert (code, "-o is for a folder of metadata" in err) == (2, True)
