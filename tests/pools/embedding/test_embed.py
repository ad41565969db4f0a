import errno
import io
import json
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from datacomp.errors import MissingError, StorageError, UsageError
from datacomp.filters import FilterSpec, run_filters
from datacomp.filters.clip_score import ClipScorer
from datacomp.pools import Pool
from datacomp.pools.checking import check_pool
from datacomp.pools.clip_runs import model_of
from datacomp.pools.embedding import embed as embedding
from datacomp.pools.embedding.embed import embed_pool
from datacomp.pools.embedding.embedder import Embedder
from datacomp.pools.embedding.recipe import Recipe
from datacomp.pools.embedding.score import score_digest
from datacomp.pools.features import Features
from datacomp.pools.sources import open_source


def counts(report):
    return report.embedded, report.known, report.set_aside, report.without_image


def test_features_are_what_the_model_gives(pictures, recipe, picture, tiny):
    pool = pictures(20)
    report = embed_pool(pool, recipe, "b", device="cpu", batch_size=7)
    assert counts(report) == (20, 0, {}, 0)
    clip = tiny(0).load("cpu")
    images = clip.encode_tensors([clip.prepare(picture(n, width=40, height=34)) for n in range(20)])
    texts = clip.encode_texts([f"a picture of number {n}" for n in range(20)])
    for what, expected in (("img", images), ("txt", texts)):
        ((uids, vectors),) = Features(pool, f"b_{what}").batches()
        assert uids["f1"].tolist() == list(range(20))
        assert vectors.dtype == np.float16
        assert np.allclose(vectors, expected, atol=1e-3)
    table = pool.scalar("SELECT values_table FROM scores")
    scores = [value for (value,) in pool.sql(f"SELECT value FROM {table} ORDER BY uid").fetchall()]
    assert np.allclose(scores, np.einsum("nd,nd->n", images, texts), atol=1e-6)
    found = pool.sql(
        "SELECT name, model, weights, dimension, dtype, file, precision, preprocessing "
        "FROM features ORDER BY name"
    ).fetchall()
    weights = clip.identity["weights_sha256"]
    assert [row[:-1] for row in found] == [
        (name, "tiny", weights, 16, "float16", "pool.duckdb.features/b", "fp32")
        for name in ("b_img", "b_txt")
    ]
    prepared = json.loads(found[0][-1])
    assert prepared["interpolation"] == "bicubic"
    assert (prepared["tokenizer"], prepared["context_length"]) == ("SimpleTokenizer", 16)


def test_the_folder_is_metadata_by_itself(pictures, recipe, tmp_path):
    pool = pictures(9)
    embed_pool(pool, recipe, "b", device="cpu")
    folder = tmp_path / "pool.duckdb.features" / "b"
    table = pq.read_table(folder / "00000000.parquet")
    assert table.column_names == ["uid", "clip_b_similarity_score"]
    with Pool.open(folder) as alone:
        (mine,) = Features(pool, "b_txt").batches()
        (theirs,) = Features(alone, "b_txt").batches()
    assert np.array_equal(mine[0], theirs[0])
    assert mine[1].tobytes() == theirs[1].tobytes()


def test_damaged_features_are_told(pictures, recipe, tmp_path):
    pool = pictures(9)
    embed_pool(pool, recipe, "b", device="cpu")
    assert check_pool(pool).problems == {}
    path = tmp_path / "pool.duckdb.features" / "b" / "00000000.npz"
    path.write_bytes(path.read_bytes()[:200])
    report = check_pool(pool)
    assert report.problems == {"features_broken": 2}
    assert report.examples[0].item == "pool.duckdb.features/b/00000000.parquet"
    assert report.examples[0].detail == f"{path}: b_img cannot be read: File is not a zip file"


def test_filters_read_what_was_embedded(pictures, recipe, tiny, tmp_path):
    pool = pictures(20)
    embed_pool(pool, recipe, "b", device="cpu")

    def kept(use, **parameters):
        found = run_filters(pool, [FilterSpec(use, parameters)])
        return found.uids["f1"].tolist(), found.scoring_now

    assert score_digest(recipe.identity()) == ClipScorer(tiny(0), "cpu").digest()
    best, _ = kept("clip_score", features="b", fraction=0.3, exact=False)
    assert len(best) == 6
    model = {"checkpoint": str(tiny(0).checkpoint), "model": "tiny",
             "model_config_file": str(tiny(0).model_config)}  # fmt: skip
    assert kept("clip_score", **model, fraction=0.3, exact=False) == (best, 0)
    assert len(kept("neg_clip_loss", arch="b", fraction=0.5)[0]) == 10
    assert len(kept("d4", features="b_img", clusters=2)[0]) <= 20
    with pytest.raises(MissingError) as caught:
        kept("clip_score", features="l14")
    assert str(caught.value) == (
        f"{pool.path}: no features 'l14' were computed on it; there are: b; 'datacomp pool embed' "
        "makes some"
    )


def test_computed_features_are_judged_at_once(recipe, commonpool, tmp_path, write_tar, command):
    folder = commonpool(tmp_path / "m", files=2, rows=4)
    write_tar(tmp_path / "t" / "0.tar", range(8))
    with Pool.create(tmp_path / "pool.duckdb") as pool:
        pool.add(open_source("commonpool", folder, link=True))
        embed_pool(pool, recipe, "b", shards=tmp_path / "t", device="cpu")
    words = ["filter", "run", tmp_path / "pool.duckdb", "clip_score:features=b,fraction=0.5"]
    words += ["-o", tmp_path / "kept.npy"]
    assert command(*words)[0] == 0
    whole = (tmp_path / "kept.npy").read_bytes()
    (tmp_path / "kept.npy").unlink()
    code, _, err = command(*words, "--workers", "2")
    assert (code, (tmp_path / "kept.npy").read_bytes()) == (0, whole)
    assert (
        "the scores that 'pool embed' wrote lie with the pool, not with its files: the filters are "
        "run over all 2 files at once\n"
    ) in err


def test_what_clip_score_computed_is_not_doubled(pictures, recipe, tiny):
    pool = pictures(6)
    model = {"checkpoint": str(tiny(0).checkpoint), "model": "tiny",
             "model_config_file": str(tiny(0).model_config)}  # fmt: skip
    run_filters(pool, [FilterSpec("clip_score", {**model, "fraction": 0.5})])
    embed_pool(pool, recipe, device="cpu")
    assert pool.sql("SELECT count(*) FROM scores").fetchall() == [(1,)]
    table = pool.scalar("SELECT values_table FROM scores")
    assert pool.sql(f"SELECT count(*), count(DISTINCT uid) FROM {table}").fetchall() == [(6, 6)]


def test_workers_change_no_byte_and_batches_hardly_a_number(
    pictures, recipe, contents, monkeypatch
):
    monkeypatch.setattr(embedding, "PART", 8)
    found = {}
    for workers, batch_size in ((1, 4), (3, 4), (2, 8)):
        pool = pictures(20, broken={5}, name=f"p{workers}")
        embed_pool(pool, recipe, device="cpu", workers=workers, batch_size=batch_size)
        found[workers] = contents(pool)
    assert found[1] == found[3]
    rows, scores, files = found[2]
    assert rows == found[1][0]
    assert np.allclose([s for _, s in scores], [s for _, s in found[1][1]], atol=1e-6)
    assert list(files) == [f"0000000{n}.{kind}" for n in range(3) for kind in ("npz", "parquet")]
    with np.load(io.BytesIO(files["00000000.npz"])) as arrays:
        assert {name: a.shape for name, a in arrays.items()} == {
            "tiny_img": (7, 16), "tiny_txt": (7, 16)
        }  # fmt: skip


def test_a_second_run_does_what_is_new(pictures, recipe, write_tar, contents, tmp_path):
    pool = pictures(10)
    assert counts(embed_pool(pool, recipe, device="cpu")) == (10, 0, {}, 0)
    before = contents(pool)
    assert counts(embed_pool(pool, recipe, device="cpu")) == (0, 10, {}, 0)
    assert contents(pool) == before
    write_tar(tmp_path / "pool_tars" / "00009.tar", [20, 21])
    pool.add(open_source("webdataset", tmp_path / "pool_tars", verify=False))
    assert counts(embed_pool(pool, recipe, device="cpu")) == (2, 10, {}, 0)
    rows, _, files = contents(pool)
    assert rows[-2:] == [(20, 1, 0, None), (21, 1, 1, None)]
    assert {name: files[name] for name in before[2]} == before[2]


def test_a_changed_caption_is_embedded_again(pictures, recipe, write_tar, contents, tmp_path):
    pool = pictures(5)
    embed_pool(pool, recipe, device="cpu")
    before = dict(contents(pool)[1])
    write_tar(tmp_path / "pool_tars" / "00000.tar", range(5), captions="another of {}")
    assert pool.add(open_source("webdataset", tmp_path / "pool_tars", verify=False)).changed == 5
    assert counts(embed_pool(pool, recipe, device="cpu")) == (5, 0, {}, 0)
    assert all(before[uid] != score for uid, score in contents(pool)[1])
    ((uids, _),) = Features(pool, "tiny_txt").batches()
    assert len(uids) == 5


def test_bad_images_are_set_aside_and_tried_again(pictures, recipe, contents, write_tar, tmp_path):
    pool = pictures(12, broken={3, 7})
    (tmp_path / "pool_tars" / "00001.tar").rename(tmp_path / "away.tar")
    report = embed_pool(pool, recipe, device="cpu", batch_size=4)
    assert counts(report) == (6, 0, {"image_broken": 2, "unreadable": 4}, 0)
    before = contents(pool)
    assert embed_pool(pool, recipe, device="cpu", batch_size=4).embedded == 0
    assert contents(pool) == before
    (tmp_path / "away.tar").rename(tmp_path / "pool_tars" / "00001.tar")
    report = embed_pool(pool, recipe, device="cpu", batch_size=4)
    assert counts(report) == (4, 6, {"image_broken": 2}, 0)
    assert [row for row in contents(pool)[0] if row[3]] == [
        (3, 0, None, "image_broken"), (7, 0, None, "image_broken")
    ]  # fmt: skip


def test_images_that_could_do_harm_are_not_decoded(pictures, recipe, contents, monkeypatch):
    pool = pictures(4)
    monkeypatch.setattr("datacomp.pools.images.MAX_PIXELS", 40 * 34 - 1)
    report = embed_pool(pool, recipe, device="cpu")
    assert counts(report) == (0, 0, {"image_unsafe": 4}, 0)
    monkeypatch.undo()
    assert counts(embed_pool(pool, recipe, device="cpu")) == (4, 0, {}, 0)
    assert list(contents(pool)[2]) == ["00000001.npz", "00000001.parquet"]


def test_a_full_disk_is_one_line_and_loses_nothing(pictures, recipe, contents, monkeypatch):
    pool = pictures(12)
    save, calls = np.savez, []

    def full(file, **arrays):
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(file, **arrays)

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(StorageError) as caught:
        embed_pool(pool, recipe, device="cpu", batch_size=3)
    folder = pool.path.with_name("pool.duckdb.features") / "tiny"
    assert str(caught.value) == (
        f"cannot write {folder}/.unfinished/000002.npz: the disk is full; free some space and run "
        "the same command again"
    )
    monkeypatch.undo()
    assert counts(embed_pool(pool, recipe, device="cpu", batch_size=3)) == (12, 0, {}, 0)
    whole = pictures(12, name="whole")
    embed_pool(whole, recipe, device="cpu", batch_size=3)
    assert contents(pool) == contents(whole)


def test_features_of_two_kinds_are_not_mixed(
    pictures, recipe, tiny, commonpool, tmp_path, empty_pool
):
    pool = pictures(3)
    embed_pool(pool, recipe, "b", device="cpu")
    first, other = recipe.identity(), Recipe(tiny(1))
    with pytest.raises(UsageError) as caught:
        embed_pool(pool, other, "b", device="cpu")
    assert str(caught.value) == (
        f"{pool.path}: its features 'b' were made with weights_sha256 "
        f"{first['weights_sha256'][:16]}, now it is {other.identity()['weights_sha256'][:16]}; "
        "features of two kinds are not mixed, give these another --name"
    )
    for changed, what in ((Recipe(tiny(0), "bf16"), "precision fp32, now it is bf16"),
                          (Recipe(tiny(0), tome=1), "tome none, now it is 1")):  # fmt: skip
        with pytest.raises(UsageError, match=what):
            embed_pool(pool, changed, "b", device="cpu")
    empty_pool.add(open_source("commonpool", commonpool(tmp_path / "m")))
    with pytest.raises(UsageError) as caught:
        embed_pool(empty_pool, recipe, "b32", device="cpu")
    assert str(caught.value) == (
        f"{empty_pool.path}: features 'b32' came with its metadata, and features of two kinds are "
        "not mixed; give these another --name"
    )


@pytest.fixture
def empty_pool(tmp_path):
    with Pool.create(tmp_path / "empty.duckdb") as pool:
        yield pool


def test_wrong_use_is_one_line(recipe, commonpool, tmp_path, empty_pool):
    folder = commonpool(tmp_path / "m")
    with Pool.open(folder) as pool, pytest.raises(UsageError) as caught:
        embed_pool(pool, recipe, device="cpu")
    assert str(caught.value) == (
        f"{folder}: a folder opened as a pool forgets what is computed on it; make a pool: "
        f"'datacomp pool add pool.duckdb {folder} --kind commonpool --link'"
    )
    with pytest.raises(UsageError) as caught:
        embed_pool(empty_pool, recipe, "B 32", device="cpu")
    assert str(caught.value) == (
        "'B 32' is no name for features: up to 48 of a to z, 0 to 9 and _, such as b32"
    )
    empty_pool.add(open_source("commonpool", folder))
    with pytest.raises(MissingError) as caught:
        embed_pool(empty_pool, recipe, device="cpu")
    assert str(caught.value) == (
        f"{empty_pool.path}: knows no sample by an image at hand; bring the images with 'datacomp "
        "pool fetch', or give the shards that have them with --shards DIR"
    )


def test_shards_hold_the_images_of_linked_metadata(
    recipe, commonpool, tmp_path, write_tar, contents, monkeypatch
):
    monkeypatch.setattr(embedding, "PART", 4)
    folder, shards = commonpool(tmp_path / "m", files=2, rows=10), tmp_path / "shards"
    write_tar(shards / "00000.tar", [4, 3, 50, 9, 3], broken={9})
    write_tar(shards / "00001.tar", [15, 3, 1])
    cut = write_tar(shards / "00002.tar", [7, 8])
    cut.write_bytes(cut.read_bytes()[:-1024][:-4000])
    with Pool.create(tmp_path / "pool.duckdb") as pool:
        pool.add(open_source("commonpool", folder, link=True))
        report = embed_pool(pool, recipe, shards=shards, device="cpu", batch_size=2)
        assert counts(report) == (5, 0, {"image_broken": 1, "shard_broken": 1}, 14)
        assert [line.split(":")[0] for line in report.examples] == ["00002.tar"]
        rows = contents(pool)[0]
        assert [(uid, part, row) for uid, part, row, _ in rows] == [
            (1, 1, 0), (3, 0, 1), (4, 0, 0), (7, 1, 1), (9, 0, None), (15, 0, 2)
        ]  # fmt: skip
        assert sum(len(uids) for uids, _ in Features(pool, "tiny_img").batches()) == 5
        write_tar(shards / "00000.tar", [4, 3, 50, 9, 3])
        write_tar(shards / "00002.tar", [7, 8])
        again = embed_pool(pool, recipe, shards=shards, device="cpu", batch_size=2)
        assert counts(again) == (2, 5, {}, 13)
        # Captions are the pool's, wherever the image lies.
        texts = dict(zip([7, 8], [f"a caption of number {n}" for n in (7, 8)], strict=True))
        expected = recipe.load("cpu").encode_texts(list(texts.values()))
        found = {int(u["f1"]): v for us, vs in Features(pool, "tiny_txt").batches()
                 for u, v in zip(us, vs, strict=True)}  # fmt: skip
        assert np.allclose([found[7], found[8]], expected, atol=1e-3)


def test_images_that_were_fetched_are_found(pictures, recipe, commonpool, tmp_path, write_tar):
    pool = pictures(4)
    pool.add(open_source("commonpool", commonpool(tmp_path / "m", files=1, rows=5, first=10)))
    write_tar(tmp_path / "fetched" / "00000000.tar", [12, 10, 2])
    pool.sql("INSERT INTO pool VALUES ('fetch_folder', 'fetched')")
    report = embed_pool(pool, recipe, device="cpu", batch_size=3)
    assert counts(report) == (6, 0, {}, 3)
    ((uids, _),) = Features(pool, "tiny_img").batches()
    assert uids["f1"].tolist() == [0, 1, 2, 3, 12, 10]
    assert counts(embed_pool(pool, recipe, device="cpu")) == (0, 6, {}, 3)


@pytest.fixture
def stopped(monkeypatch):
    """Return a way to embed a pool and be stopped when a part is whole, but not the pool's."""

    def stopped(pool, recipe, **options):
        def fail(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(embedding.FeatureStore, "commit", fail)
            with pytest.raises(KeyboardInterrupt):
                embed_pool(pool, recipe, device="cpu", batch_size=3, **options)

    return stopped


@pytest.fixture
def counted(monkeypatch):
    """Return the sizes of the batches that a model embeds."""
    computed = []
    original = Embedder._embed

    def counting(self, batch, prepared):
        computed.append(len(batch))
        return original(self, batch, prepared)

    monkeypatch.setattr(Embedder, "_embed", counting)
    return computed


@pytest.mark.parametrize("changed", ["captions", "images"])
def test_a_batch_of_other_captions_or_images_is_computed_again(
    pictures, recipe, contents, write_tar, stopped, counted, tmp_path, changed
):
    pool = pictures(12, per_tar=6)
    stopped(pool, recipe)
    other = {"captions": "another of {}"} if changed == "captions" else {"broken": {1, 4}}
    write_tar(tmp_path / "pool_tars" / "00000.tar", range(6), **other)
    pool.add(open_source("webdataset", tmp_path / "pool_tars", verify=False))
    counted.clear()
    embed_pool(pool, recipe, device="cpu", batch_size=3)
    # Whole or cut, an image's digest is the pool's: batches whose images moved are not done again.
    assert counted == [3, 3]
    whole = Pool.create(tmp_path / "whole.duckdb")
    with whole:
        whole.add(open_source("webdataset", tmp_path / "pool_tars", verify=False))
        embed_pool(whole, recipe, device="cpu", batch_size=3)
        assert contents(pool) == contents(whole)


def test_what_a_pool_of_the_same_name_left_is_not_taken_over(
    pictures, recipe, tiny, contents, stopped, counted, tmp_path, monkeypatch
):
    monkeypatch.setattr(embedding, "PART", 6)
    pool = pictures(20)
    embed_pool(pool, recipe, "b", device="cpu", batch_size=3)
    pool.close()
    pool.path.unlink()
    shutil.rmtree(tmp_path / "pool_tars")
    pool = pictures(12)
    stopped(pool, recipe, name="b")
    pool.close()
    pool.path.unlink()
    pool = pictures(12)
    counted.clear()
    embed_pool(pool, Recipe(tiny(1)), "b", device="cpu", batch_size=3)
    assert counted == [3, 3, 3, 3]
    whole = pictures(12, name="whole")
    embed_pool(whole, Recipe(tiny(1)), "b", device="cpu", batch_size=3)
    assert contents(pool, "b") == contents(whole, "b")


def test_what_the_journal_lost_is_computed_again(pictures, recipe, contents, stopped, counted):
    whole = pictures(12, name="whole")
    embed_pool(whole, recipe, device="cpu", batch_size=3)
    pool = pictures(12)
    stopped(pool, recipe)
    kept = sorted(pool.path.with_name("pool.duckdb.features").glob("tiny/.unfinished/*.npz"))
    assert len(kept) == 4
    kept[1].write_bytes(kept[1].read_bytes()[:-40])
    kept[2].write_bytes(kept[3].read_bytes())
    counted.clear()
    embed_pool(pool, recipe, device="cpu", batch_size=3)
    assert counted == [3, 3]
    assert contents(pool) == contents(whole)


SERVER = """
import os, select, signal, sys
from pathlib import Path
import open_clip, torch, torchvision
from datacomp.pools import Pool
from datacomp.pools.clip_runs import model_of
from datacomp.pools.embedding import embed as embedding
from datacomp.pools.embedding.recipe import Recipe

torch.set_num_threads(1)
embedding.PART = 8
recipe = Recipe(model_of(Path({checkpoint!r}), {config!r}))
for line in sys.stdin:
    ended, ending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ended)
        with Pool.open({pool!r}) as pool:
            embedding.embed_pool(pool, recipe, device="cpu", batch_size=2, workers=2)
        os._exit(0)
    os.close(ending)
    if not select.select([ended], [], [], float(line))[0]:
        os.kill(child, signal.SIGKILL)
    os.close(ended)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_killed_at_any_moment_and_run_again_it_is_the_same(pictures, tiny, contents, tmp_path):
    """One process imports torch; each attempt is a fork of it, killed after a while."""
    pool = pictures(40, broken={11, 30})
    pool.close()
    start = tmp_path / "start.duckdb"
    shutil.copy(pool.path, start)
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER.format(
            pool=str(pool.path), checkpoint=str(tiny(0).checkpoint),
            config=str(tiny(0).model_config),
        )],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdin is not None
    assert server.stdout is not None

    def attempt(seconds=250.0):
        print(seconds, file=server.stdin, flush=True)
        return int(server.stdout.readline())

    features = tmp_path / "pool.duckdb.features"

    def again():
        shutil.rmtree(features)
        for left in tmp_path.glob("pool.duckdb.wal"):
            left.unlink()
        shutil.copy(start, pool.path)

    with server:
        assert attempt() == 0
        with Pool.open(pool.path, read_only=True) as opened:
            expected = contents(opened)
        again()
        started = time.monotonic()
        assert attempt() == 0
        usual = time.monotonic() - started
        again()
        drawn, killed = random.Random(0), 0
        while killed < 12:
            code = attempt(drawn.uniform(0.05, 1) * usual)
            assert code in (0, -9)
            killed += code == -9
            if code == 0:
                with Pool.open(pool.path, read_only=True) as opened:
                    assert contents(opened) == expected
                again()
        assert attempt() == 0
        server.stdin.close()
    with Pool.open(pool.path, read_only=True) as opened:
        assert contents(opened) == expected


def test_a_run_is_a_checkpoint(pictures, tiny_run, tmp_path):
    pool = pictures(3)
    report = embed_pool(pool, Recipe(model_of(tiny_run(tmp_path / "run"))), device="cpu")
    assert (report.name, report.embedded) == ("tiny", 3)
