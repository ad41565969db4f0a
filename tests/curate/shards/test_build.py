"""Building shards: the same bytes always, nothing lost silently, every interruption survived."""

import hashlib
import io
import json
import os
import subprocess
import sys
import textwrap
import time
from collections import Counter

import numpy as np
import pytest
from datacomp.curate.shards import build as module
from datacomp.curate.shards import folder, index_shards, origin
from datacomp.curate.shards.build import build_shards
from datacomp.curate.shards.order import order_samples
from datacomp.distribution import manifest
from datacomp.errors import (
    DataError,
    IntegrityError,
    MissingError,
    StorageError,
    UsageError,
)
from datacomp.pools import Pool, uids
from datacomp.pools.sources import open_source
from datacomp.pools.tar import tar_bytes
from hypothesis import given
from hypothesis import strategies as st

ALL = tuple(range(21))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def keys(folder, make):
    """Return the keys of all samples in the order of the shards."""
    return [
        name.removesuffix(".jpg")
        for path in sorted(folder.glob("*.tar"))
        for name, _ in make.contents(path)
        if name.endswith(".jpg")
    ]


# -- from tars -------------------------------------------------------------------------------


def test_a_build_holds_the_subset_and_nothing_else(shards, select, out, make):
    report = build_shards(shards, select(3, 17, 8, 8, 20, 0), out, shard_size=4, workers=1)
    names = [make.uid_of(n) for n in (0, 3, 8, 17, 20)]  # as they stand in the tars
    expected = [f"{uid}-{j}" for uid in names for j in range(2 if uid == make.uid_of(8) else 1)]
    assert keys(out, make) == expected
    numbers = {make.uid_of(n): n for n in ALL}
    for path in out.glob("*.tar"):
        for name, data in make.contents(path):
            key, _, extension = name.partition(".")
            source = dict(make.members(numbers[key[:32]]))
            assert data == source[f"{numbers[key[:32]]:09d}.{extension}"]
    assert (report.selected, report.samples, report.shards, report.reused) == (6, 6, 2, 0)
    assert report.complete


def test_the_layout_is_the_one_trainers_know(shards, select, out, make):
    subset = select(*ALL)
    report = build_shards(shards, subset, out, shard_size=8, workers=1)
    found = make.files_of(out)
    tars = [f"{n:08d}.tar" for n in range(3)]
    stats = [f"{n:08d}_stats.json" for n in range(3)]
    rest = ["build.json", "manifest.json", "meta.json", "sample_ids.npy"]
    assert sorted(found) == sorted([*tars, *stats, *rest])
    assert [found[name] for name in stats] == [
        b'{"successes": 8}', b'{"successes": 8}', b'{"successes": 5}',
    ]  # fmt: skip
    assert found["sample_ids.npy"] == subset.read_bytes()
    assert json.loads(found["meta.json"]) == {
        "shard_size": "8",
        "shuffle": "None",
        "subset_file": "sample_ids.npy",
        "output_shard_format": "{:08d}.tar",
        "output_shard_stats_format": "{:08d}_stats.json",
        "apply_blur": "False",
        "blur_count": 0,
        "output_count": 21,
        "output_shard_count": 3,
    }
    listed = manifest.load(out / "manifest.json")
    assert listed == manifest.build_manifest(out, [*tars, *stats, "meta.json", "sample_ids.npy"])
    assert report.digest == listed["digest"]
    assert report.bytes == sum(len(found[name]) for name in tars)


def test_members_are_plain_ustar_in_alphabetical_order(shards, select, out, make):
    build_shards(shards, select(1), out, workers=1)
    uid = make.uid_of(1)
    expected = [(f"{uid}-0.{name.partition('.')[2]}", data) for name, data in make.members(1)]
    assert [name for name, _ in expected] == sorted(name for name, _ in expected)
    assert (out / "00000000.tar").read_bytes() == tar_bytes(expected)


@pytest.mark.parametrize("shuffle", [None, 7])
def test_workers_change_nothing(shards, select, tmp_path, make, shuffle):
    subset = select(*ALL, 5, 5)
    for workers in (1, 3):
        build_shards(
            shards, subset, tmp_path / f"w{workers}", shard_size=4, workers=workers, shuffle=shuffle
        )
    one, three = make.files_of(tmp_path / "w1"), make.files_of(tmp_path / "w3")
    assert one == three


def test_a_seed_shuffles_and_another_seed_otherwise(shards, select, tmp_path, make):
    orders = {}
    for seed in (None, 0, 1):
        folder = tmp_path / f"{seed}"
        build_shards(shards, select(*ALL, 2), folder, shard_size=10, workers=1, shuffle=seed)
        orders[seed] = keys(folder, make)
    numbers = [shard * 7 + (3 * i) % 7 for shard in range(3) for i in range(7)]
    assert list(dict.fromkeys(key[:32] for key in orders[None])) == list(map(make.uid_of, numbers))
    assert len({tuple(order) for order in orders.values()}) == 3
    assert {frozenset(Counter(order).items()) for order in orders.values()} == {
        frozenset(Counter(orders[None]).items())
    }
    assert [json.loads((tmp_path / s / "meta.json").read_text())["shuffle"] for s in "01"] == [
        "0", "1",
    ]  # fmt: skip


@given(st.lists(st.integers(1, 3), min_size=1, max_size=30), st.integers(0, 2**63 - 1))
def test_a_shuffled_order_is_a_permutation_that_ignores_what_else_is_there(counts, seed):
    array = uids.from_hex([hashlib.sha256(b"%d" % n).hexdigest()[:32] for n in range(len(counts))])
    order, copy = order_samples(array, np.array(counts), seed)
    expected = [(n, j) for n, count in enumerate(counts) for j in range(count)]
    found = list(zip(order.tolist(), copy.tolist(), strict=True))
    assert sorted(found) == expected
    fewer, copies = order_samples(array, np.array([*counts[:-1], 0]), seed)
    assert list(zip(fewer.tolist(), copies.tolist(), strict=True)) == [
        pair for pair in found if pair[0] != len(counts) - 1
    ]


def test_the_shuffled_order_is_the_same_for_ever():
    array = uids.from_hex([f"{n:032x}" for n in range(8)])
    order, _ = order_samples(array, np.ones(8, np.int64), 0)
    assert order.tolist() == [0, 6, 2, 1, 3, 4, 7, 5]


def test_a_source_with_pax_headers_and_other_members_is_copied_whole(tmp_path, select, out, make):
    import tarfile

    folder = tmp_path / "pax"
    folder.mkdir()
    files = make.members(1, key="d/" * 70 + "k") + make.members(2, **{"seg.png": b"mask"})
    with tarfile.open(folder / "x.tar", "w", format=tarfile.PAX_FORMAT) as file:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5
            file.addfile(info, io.BytesIO(data))
    build_shards(folder, select(1, 2), out, workers=1)
    found = dict(make.contents(out / "00000000.tar"))
    assert found[f"{make.uid_of(2)}-0.seg.png"] == b"mask"
    assert found[f"{make.uid_of(1)}-0.jpg"] == make.picture(1)
    assert len(found) == 7


def test_an_index_is_made_where_there_is_none_and_taken_where_there_is(shards, select, out):
    build_shards(shards, select(1), out, workers=1)
    stamp = (shards / "index.parquet").stat().st_mtime_ns
    build_shards(shards, select(2), out.with_name("out2"), workers=1)
    assert (shards / "index.parquet").stat().st_mtime_ns == stamp


# -- from a pool -----------------------------------------------------------------------------


@pytest.fixture
def pool(tmp_path, make):
    """A pool of loose images in three formats and one tar; a planted truth among the columns."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, (kind, extension) in enumerate([("JPEG", "jpeg"), ("PNG", "png"), ("WEBP", "jpg")]):
        (folder / f"{number}.{extension}").write_bytes(make.picture(number, kind))
        values = {"uid": make.uid_of(number), "caption": f"bild {number} ü", "truth": "good"}
        (folder / f"{number}.json").write_text(json.dumps(values | {"url": f"http://x/{number}"}))
    make.write_shard(tmp_path / "tars", 0, make.members(3) + make.members(4))
    path = tmp_path / "pool.duckdb"
    with Pool.create(path) as made:
        made.add(open_source("folder", folder))
        made.add(open_source("webdataset", tmp_path / "tars"))
        assert "truth" in made.columns()
    return path


def test_a_pool_with_images_is_a_source(pool, select, out, make):
    report = build_shards(pool, select(0, 1, 2, 3, 4, 4), out, shard_size=2, workers=1)
    assert (report.samples, report.shards) == (6, 3)
    found = {}
    for path in sorted(out.glob("*.tar")):
        names = [name for name, _ in make.contents(path)]
        assert names == sorted(names)
        found |= dict(make.contents(path))
    for number, kind, extension in [(0, "JPEG", "jpg"), (1, "PNG", "png"), (2, "WEBP", "webp")]:
        key = f"{make.uid_of(number)}-0"
        image = make.picture(number, kind)
        assert found[f"{key}.{extension}"] == image
        assert found[f"{key}.txt"].decode() == f"bild {number} ü"
        assert json.loads(found[f"{key}.json"]) == {
            "uid": make.uid_of(number),
            "url": f"http://x/{number}",
            "caption": f"bild {number} ü",
            "width": 24,
            "height": 24,
            "sha256": hashlib.sha256(image).hexdigest(),
        }
    assert found[f"{make.uid_of(4)}-1.jpg"] == make.picture(4)
    assert not any(b"truth" in data or b"good" in data for data in found.values())


def test_class_labels_of_a_pool_go_with_its_images(tmp_path, select, out, make):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, label in [(0, 7), (1, 12), (2, None)]:
        (folder / f"{number}.jpg").write_bytes(make.picture(number))
        values = {"uid": make.uid_of(number), "caption": "x"}
        values |= {} if label is None else {"class": label}
        (folder / f"{number}.json").write_text(json.dumps(values))
    with Pool.create(tmp_path / "pool.duckdb") as made:
        made.add(open_source("folder", folder))
    build_shards(tmp_path / "pool.duckdb", select(0, 1, 2), out, workers=1)
    found = dict(make.contents(out / "00000000.tar"))
    labels = {name: data for name, data in found.items() if name.endswith(".cls")}
    assert labels == {f"{make.uid_of(0)}-0.cls": b"7", f"{make.uid_of(1)}-0.cls": b"12"}


def test_workers_change_nothing_from_a_pool(pool, select, tmp_path, make):
    subset = select(0, 1, 2, 3, 4, 4)
    for workers in (1, 2):
        folder = tmp_path / f"w{workers}"
        build_shards(pool, subset, folder, shard_size=2, workers=workers, shuffle=3)
    assert make.files_of(tmp_path / "w1") == make.files_of(tmp_path / "w2")


def test_rows_are_cut_into_shards_wherever_batches_end(pool, select, tmp_path, make, monkeypatch):
    build_shards(pool, select(0, 1, 2, 3, 4), tmp_path / "a", shard_size=2, workers=1)
    monkeypatch.setattr(origin, "PLAN_BATCH", 1)
    build_shards(pool, select(0, 1, 2, 3, 4), tmp_path / "b", shard_size=2, workers=1)
    assert make.files_of(tmp_path / "a") == make.files_of(tmp_path / "b")


def test_built_shards_have_the_uids_of_the_pool(pool, select, out):
    subset = select(0, 1, 2, 3, 4)
    build_shards(pool, subset, out, workers=1)
    index_shards(out, 1)
    build_shards(out, subset, out.with_name("again"), workers=1)
    assert (out.with_name("again") / "00000000.tar").read_bytes() == (
        out / "00000000.tar"
    ).read_bytes()


def test_an_image_that_changed_since_it_was_added_is_an_error(pool, select, out, make, tmp_path):
    path = tmp_path / "photos" / "1.png"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError) as caught:
        build_shards(pool, select(1), out, workers=1)
    assert str(caught.value) == (
        f"{path}: the image of sample {make.uid_of(1)} is not the one that was added to the pool "
        "(SHA-256 differs); restore it or make the pool again"
    )
    assert not list(out.glob("*.tar*"))


def test_images_that_are_gone_and_samples_without_one_count_as_missing(
    pool, select, out, make, tmp_path
):
    (tmp_path / "photos" / "0.jpeg").unlink()
    with Pool.open(pool) as opened:
        opened.sql(f"UPDATE samples SET shard = NULL WHERE uid = '0x{make.uid_of(1)}'::UHUGEINT")
    subset = select(0, 1, 2, 9)
    with pytest.raises(DataError) as caught:
        build_shards(pool, subset, out, workers=1)
    assert str(caught.value) == (
        f"{subset}: of 4 uids 1 not in {pool} ({make.uid_of(9)}); "
        f"1 without an image at hand ({make.uid_of(1)}); "
        f"1 with an image that cannot be read ({make.uid_of(0)}); --keep-going leaves them out"
    )
    report = build_shards(pool, subset, out, workers=1, keep_going=True)
    assert report.samples == 1
    assert report.missing == {"not_in_source": 1, "no_image": 1, "unreadable": 1}
    assert dict(line.split() for line in (out / "missing.txt").read_text().splitlines()) == {
        make.uid_of(0): "unreadable", make.uid_of(1): "no_image", make.uid_of(9): "not_in_source",
    }  # fmt: skip


# -- missing uids ----------------------------------------------------------------------------


def test_missing_uids_are_an_error_that_names_some(shards, select, out, make):
    subset = select(1, 90, 91, 92, 93)
    with pytest.raises(DataError) as caught:
        build_shards(shards, subset, out, workers=1)
    first = sorted(make.uid_of(n) for n in range(90, 94))[:3]
    assert str(caught.value) == (
        f"{subset}: of 5 uids 4 not in {shards} ({', '.join(first)}, ...); "
        "--keep-going leaves them out"
    )
    assert not out.exists()


def test_keep_going_lists_them_and_exits_3(shards, select, out, make, run):
    subset = select(1, 1, 90, 90)
    code, stdout, err = run(
        "shards", "build", shards, subset, "-o", out, "--workers", 1, "--keep-going"
    )
    assert (code, err) == (3, "")
    assert stdout.splitlines()[:2] == [
        f"{out}: 2 samples in 1 shard, 0.0 MB",
        f"left out: 1 uid not_in_source (listed in {out / 'missing.txt'})",
    ]
    assert (out / "missing.txt").read_text() == f"{make.uid_of(90)} not_in_source\n"
    assert (out / "sample_ids.npy").read_bytes() == subset.read_bytes()
    assert "missing.txt" in [item["path"] for item in manifest.load(out / "manifest.json")["files"]]


def test_what_the_index_leaves_out_is_told(shards, select, out, make, run):
    make.write_shard(shards, 3, make.members(4, key="again") + make.members(50))
    command = ["shards", "build", shards, select(4, 50), "-o", out, "--workers", 1]
    code, stdout, _ = run(*command, "--keep-going")
    assert code == 3
    assert stdout.splitlines()[1] == "not in the index of the source: 1 duplicate_uid"
    assert run(*command)[0] == 0  # whoever does not ask to go on trusts the index that is there
    view = ["shards", "select", shards, select(4, 50), "-o", out.with_name("v"), "--keep-going"]
    code, stdout, _ = run(*view)
    assert (code, stdout.splitlines()[1]) == (3, "not in the index of the source: 1 duplicate_uid")


@pytest.mark.parametrize("workers", [1, 3, 5])
def test_threads_and_processes_give_the_same_bytes(shards, select, tmp_path, make, workers):
    for number in (1, workers):
        build_shards(shards, select(*ALL), tmp_path / f"{number}", shard_size=2, workers=number)
    assert make.files_of(tmp_path / "1") == make.files_of(tmp_path / f"{workers}")


def test_none_found_is_an_error_even_so(shards, select, out):
    with pytest.raises(DataError, match=r"none of the 1 uids of .* can be had from it$"):
        build_shards(shards, select(90), out, workers=1, keep_going=True)


# -- bad input -------------------------------------------------------------------------------


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_empty_subset_is_refused(shards, select, out):
    subset = select()
    with pytest.raises(DataError) as caught:
        build_shards(shards, subset, out)
    assert one_line(caught) == f"{subset}: the subset is empty; there is nothing to build"
    assert not out.exists()


def test_an_unsorted_subset_is_refused(shards, tmp_path, out, make):
    path = tmp_path / "s.npy"
    np.save(path, uids.from_hex(sorted((make.uid_of(n) for n in range(5)), reverse=True)))
    with pytest.raises(DataError, match="the uids are not sorted"):
        build_shards(shards, path, out)


def test_a_foreign_array_is_refused(shards, tmp_path, out):
    np.save(tmp_path / "s.npy", np.arange(3))
    with pytest.raises(DataError, match="but a subset has dtype 'u8,u8'"):
        build_shards(shards, tmp_path / "s.npy", out)


def test_sources_that_are_none(shards, select, out, tmp_path):
    with pytest.raises(MissingError) as caught:
        build_shards(tmp_path / "none", select(1), out)
    assert one_line(caught) == f"{tmp_path / 'none'}: no such folder of tars and no such pool"
    with pytest.raises(DataError) as caught:
        build_shards(select(1), select(1), out)
    one_line(caught)


def test_wrong_options(shards, select, out):
    with pytest.raises(UsageError, match=r"^shard size is 0, expected at least 1$"):
        build_shards(shards, select(1), out, shard_size=0)
    with pytest.raises(UsageError, match=r"^shuffle seed is -1, expected 0 to "):
        build_shards(shards, select(1), out, shuffle=-1)


def test_a_truncated_source_is_an_error(shards, select, out):
    path = shards / "00000002.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=f"^{path}: truncated at byte 3000"):
        build_shards(shards, select(1), out, workers=1)


def test_two_samples_with_one_uid_are_an_error_unless_indexed_so(shards, select, out, make):
    make.write_shard(shards, 3, make.members(4, key="again"))
    with pytest.raises(DataError, match="has a uid that another one has already"):
        build_shards(shards, select(4), out, workers=1)
    index_shards(shards, 1, keep_going=True)
    assert build_shards(shards, select(4), out, workers=1).samples == 1


def test_a_source_that_changes_under_way_is_an_error(shards, select, out, monkeypatch):
    index_shards(shards, 1)
    path = shards / "00000000.tar"
    plan = module.claim

    def change(*arguments):
        plan(*arguments)
        path.write_bytes(path.read_bytes())  # same bytes, but who can tell

    monkeypatch.setattr(module, "claim", change)
    with pytest.raises(DataError) as caught:
        build_shards(shards, select(*ALL), out, workers=1)
    assert one_line(caught) == (
        f"{path}: has changed since it was indexed; run 'datacomp shards index' and then this again"
    )
    assert not list(out.glob("*.tar"))
    monkeypatch.undo()
    assert build_shards(shards, select(*ALL), out, workers=1).samples == 21


def test_an_index_that_lies_is_found_out(shards, select, out):
    import pyarrow as pa
    import pyarrow.parquet as pq

    index_shards(shards, 1)
    path = shards / "index.parquet"
    table = pq.read_table(path)
    found = table["uid"].to_pylist()
    found[0], found[1] = found[1], found[0]
    pq.write_table(table.set_column(0, "uid", pa.array(found)), path)
    metadata = json.loads((shards / "index.json").read_text())
    metadata["index_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (shards / "index.json").write_text(json.dumps(metadata))
    with pytest.raises(DataError) as caught:
        build_shards(shards, select(*ALL), out, workers=1)
    assert one_line(caught) == (
        f"{shards / '00000000.tar'} at byte 0: holds {found[1]} where the index says {found[0]}; "
        "index the tars again"
    )


# -- the folder built ------------------------------------------------------------------------


def test_a_folder_that_holds_another_build_is_refused(shards, select, out):
    build_shards(shards, select(1, 2, 3), out, shard_size=2, workers=1)
    with pytest.raises(UsageError) as caught:
        build_shards(shards, select(1, 2, 3), out, shard_size=3, workers=1)
    assert one_line(caught) == (
        f"{out}: holds another build (shard_size: 2 instead of 3); "
        "choose another folder or remove this one"
    )
    with pytest.raises(UsageError, match=r"holds another build \(subset: count 3, digest "):
        build_shards(shards, select(1, 2), out, shard_size=2, workers=1)
    with pytest.raises(UsageError, match=r"holds another build \(shuffle: None instead of 5\)"):
        build_shards(shards, select(1, 2, 3), out, shard_size=2, workers=1, shuffle=5)


def test_a_folder_that_holds_something_else_is_refused(shards, select, out):
    out.mkdir()
    (out / "00000077.tar").write_bytes(b"stale")
    with pytest.raises(UsageError) as caught:
        build_shards(shards, select(1), out)
    assert one_line(caught) == (
        f"{out}: is not empty (00000077.tar) and was not made by 'datacomp shards build'; "
        "choose another folder"
    )
    with pytest.raises(UsageError, match="is not empty"):
        build_shards(shards, select(1), shards)


def test_a_damaged_build_json_is_refused(shards, select, out):
    out.mkdir()
    (out / "build.json").write_text("{")
    with pytest.raises(DataError) as caught:
        build_shards(shards, select(1), out, workers=1)
    assert one_line(caught) == (
        f"{out / 'build.json'}: damaged; remove the folder {out} and build again"
    )


def test_an_out_that_is_a_file_is_refused(shards, select, out):
    out.write_text("")
    with pytest.raises(UsageError) as caught:
        build_shards(shards, select(1), out)
    assert one_line(caught) == f"{out}: a file, but shards need a folder"


def test_an_out_that_cannot_be_written_is_refused(shards, select):
    with pytest.raises(StorageError) as caught:
        build_shards(shards, select(1), "/proc/nowhere", workers=1)
    assert one_line(caught) == "cannot write /proc/nowhere: No such file or directory"


def test_one_build_at_a_time(shards, select, out):
    with folder.locked(out), pytest.raises(StorageError) as caught:
        build_shards(shards, select(1), out, workers=1)
    assert one_line(caught) == f"{out}: another build is writing there; wait for it"


# -- interruptions ---------------------------------------------------------------------------


def test_a_finished_build_is_left_alone(shards, select, out, make):
    first = build_shards(shards, select(*ALL), out, shard_size=5, workers=1)
    stamps = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    again = build_shards(shards, select(*ALL), out, shard_size=5, workers=2)
    assert (again.reused, again.shards) == (5, 5)
    assert again.digest == first.digest
    assert stamps == {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}


@pytest.mark.parametrize(
    "damage",
    [
        lambda out: (out / "00000001.tar").unlink(),
        lambda out: os.truncate(out / "00000001.tar", 512),
        lambda out: (out / "00000001_stats.json").write_text("{}"),
        lambda out: (out / "manifest.json").unlink(),
        lambda out: (out / "sample_ids.npy").unlink(),
        lambda out: [path.unlink() for path in out.iterdir() if path.name != "build.json"],
        lambda out: [path.unlink() for path in out.iterdir()],
    ],
)
def test_what_is_lost_is_built_again(shards, select, out, make, damage):
    build_shards(shards, select(*ALL), out, shard_size=5, workers=1)
    whole = make.files_of(out)
    damage(out)
    build_shards(shards, select(*ALL), out, shard_size=5, workers=1)
    assert make.files_of(out) == whole


def python(script, *arguments, **options):
    """Start a Python that runs a script."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


# A process that has everything imported forks one builder per kill point and kills it as soon
# as so many files are there, a moment later each time.
KILLER = """
    import os, random, signal, sys, time
    from pathlib import Path
    from datacomp.curate.shards import build_shards
    import pyarrow.parquet
    source, subset, out = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    workers, kills = map(int, sys.argv[4:])
    chance = random.Random(0)
    most = 28 if workers < 5 else 16  # many processes are fast
    for wanted in sorted(chance.randrange(1, most) for _ in range(kills)):
        delay = chance.random() * 0.005
        child = os.fork()
        if not child:
            build_shards(source, subset, out, shard_size=2, workers=workers)
            os._exit(0)
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if out.exists() and len(list(out.iterdir())) >= wanted:
                time.sleep(delay)
                os.kill(child, signal.SIGKILL)
                print("killed with", len(list(out.iterdir())), "files")
                os.waitpid(child, 0)
                break
        else:
            sys.exit("it was finished before it could be killed")
"""


@pytest.mark.parametrize(("workers", "kills"), [(1, 20), (2, 20), (5, 5)])
def test_killed_anywhere_and_run_again_gives_the_same_bytes(
    shards, select, tmp_path, make, workers, kills
):
    subset = select(*ALL, *ALL)
    index_shards(shards, 1)
    build_shards(shards, subset, tmp_path / "whole", shard_size=2, workers=1)
    whole = make.files_of(tmp_path / "whole")
    out = tmp_path / "out"
    process = python(KILLER, shards, subset, out, workers, kills)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.count("killed with") == kills
    time.sleep(0.2)  # workers whose parent was killed are gone by then
    settled = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert settled
    assert not (out / "manifest.json").exists()
    for name in settled:
        assert (out / name).read_bytes() == whole[name]
    report = build_shards(shards, subset, out, shard_size=2, workers=1)
    assert report.reused > 0
    assert make.files_of(out) == whole


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_one_clear_line_and_nothing_half_written(shards, select, out, make, workers):
    index_shards(shards, 1)
    script = """
        import resource, sys
        import datacomp.curate.shards
        from datacomp.curate.cli import main
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        main()
    """  # Python ignores SIGXFSZ, so a write beyond the limit fails with EFBIG
    subset = select(*ALL)
    command = ["shards", "build", shards, subset, "-o", out, "--workers", workers]
    process = python(script, *command)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    assert errors == (
        f"error: cannot write {out / '00000000.tar'}: "
        "the file would exceed the largest size allowed here\n"
    )
    assert sorted(make.files_of(out)) == ["build.json"]
    assert build_shards(shards, subset, out, workers=1).samples == 21


# -- padding and blur ------------------------------------------------------------------------


def test_tars_are_padded_to_whole_pieces(shards, select, out, make):
    plain = out.with_name("plain")
    build_shards(shards, select(*ALL), plain, shard_size=8, workers=1)
    report = build_shards(shards, select(*ALL), out, shard_size=8, workers=1, pad=1 << 14)
    for path in out.glob("*.tar"):
        data, before = path.read_bytes(), (plain / path.name).read_bytes()
        assert len(data) % (1 << 14) == 0
        assert data.rstrip(b"\0") == before.rstrip(b"\0")
        assert make.contents(path) == make.contents(plain / path.name)
    assert manifest.verify(out, manifest.load(out / "manifest.json")) == []
    assert report.bytes == sum(path.stat().st_size for path in out.glob("*.tar"))
    with pytest.raises(UsageError, match=r"^tars can be padded to a multiple of 512 bytes, not of"):
        build_shards(shards, select(1), out, pad=1000)


FACE = [[0.25, 0.25, 0.75, 0.75]]


def boxes(path, rows):
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind = pa.list_(pa.list_(pa.float64()))
    table = pa.table({"uid": [uid for uid, _ in rows],
                      "face_bboxes": pa.array([found for _, found in rows], kind)})  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path)
    return path


def test_faces_are_blurred_and_counted(shards, select, out, make, tmp_path, run):
    path = boxes(tmp_path / "b" / "0.parquet", [(make.uid_of(1), FACE), (make.uid_of(2), [])])
    arguments = ["shards", "build", shards, select(1, 1, 2), "-o", out, "--workers", 1]
    code, stdout, _ = run(*arguments, "--blur", path.parent)
    assert (code, stdout.splitlines()[1]) == (0, "blurred: 2 samples with faces; 1 without")
    found = dict(make.contents(out / "00000000.tar"))
    assert sorted(name.partition("-")[2] for name in found if make.uid_of(1) in name) == [
        "0.json", "0.txt", "0.webp", "1.json", "1.txt", "1.webp",
    ]  # fmt: skip
    assert found[f"{make.uid_of(2)}-0.jpg"] == make.picture(2)
    assert json.loads((out / "meta.json").read_text())["blur_count"] == 2
    again = build_shards(shards, select(1, 1, 2), out, workers=1, blur=path.parent)
    assert (again.reused, again.blurred) == (1, 2)
    with pytest.raises(UsageError, match=r"holds another build \(blur: "):
        build_shards(shards, select(1, 1, 2), out, workers=1)


def test_the_map_of_datacomp_names_files_of_boxes(shards, select, out, make, tmp_path):
    path = boxes(tmp_path / "b.parquet", [(make.uid_of(1), FACE)])
    named = tmp_path / "map.json"
    named.write_text(json.dumps({"0": {"parquet": str(path), "shards": ["/else/00000000.tar"]}}))
    report = build_shards(shards, select(1), out, workers=1, blur=named)
    assert report.blurred == 1
    path.unlink()
    with pytest.raises(MissingError) as caught:
        build_shards(shards, select(1), out, workers=1, blur=named)
    assert one_line(caught) == f"{path}: no such file of face boxes, but {named} names it"
    named.write_text("[]")
    with pytest.raises(DataError, match="not a map of face boxes"):
        build_shards(shards, select(1), out, workers=1, blur=named)


def test_no_image_passes_whose_faces_are_not_known(shards, select, out, make, tmp_path):
    rows = [(make.uid_of(1), FACE), (make.uid_of(3), None)]
    path = boxes(tmp_path / "b.parquet", rows)
    with pytest.raises(DataError) as caught:
        build_shards(shards, select(1, 2, 3), out, workers=1, blur=path)
    lacking = ", ".join(sorted([make.uid_of(2), make.uid_of(3)]))
    assert one_line(caught) == (
        f"{path}: says nothing about the faces of 2 samples ({lacking}); "
        "--keep-going leaves them out"
    )
    report = build_shards(shards, select(1, 2, 3), out, workers=1, blur=path, keep_going=True)
    assert report.missing == {"no_face_boxes": 2}
    assert [name for name, _ in make.contents(out / "00000000.tar")] == [
        f"{make.uid_of(1)}-0.{extension}" for extension in ("json", "txt", "webp")
    ]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(1, [[0.1, 0.2, 0.3]])], "a face box that is not four numbers"),
        ([(1, [[0.1, 0.2, 0.3, float("nan")]])], "a face box that is not four numbers"),
        ([(1, FACE), (1, [])], "a uid whose boxes stand there twice"),
    ],
)
def test_boxes_that_are_none(shards, select, out, make, tmp_path, rows, said):
    path = boxes(tmp_path / "b.parquet", [(make.uid_of(n), found) for n, found in rows])
    with pytest.raises(DataError, match=f"^{path}: {said}$"):
        build_shards(shards, select(1), out, workers=1, blur=path)
    path.write_bytes(b"PAR1")
    with pytest.raises(DataError, match="no readable face boxes"):
        build_shards(shards, select(1), out, workers=1, blur=path)
    with pytest.raises(MissingError, match="no such file of face boxes"):
        build_shards(shards, select(1), out, workers=1, blur=tmp_path / "none")


def test_the_blur_is_local_and_strong():
    from datacomp.curate.shards.blur import blur_pixels

    pixels = np.random.default_rng(0).random((200, 300, 3), np.float32)
    result = blur_pixels(pixels, [(0.4, 0.4, 0.6, 0.6)])
    # A box of 60 by 40 px grows by 6 px; its sigma is 6 px, so 24 px further nothing changes.
    changed = np.abs(result - pixels).max(axis=2) > 1e-6
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert (rows[0], columns[0]) >= (74 - 25, 114 - 25)
    assert (rows[-1], columns[-1]) <= (126 + 25, 186 + 25)
    middle = result[90:110, 140:160]
    assert middle.std() < pixels[90:110, 140:160].std() / 8
    assert blur_pixels(pixels, [(0.5, 0.5, 0.5, 0.5)]) is pixels


# -- several sources -------------------------------------------------------------------------


def test_several_folders_are_one_source(tmp_path, select, out, make):
    make.write_shard(tmp_path / "a", 0, make.members(1))
    make.write_shard(tmp_path / "b", 0, make.members(2))
    sources = [tmp_path / "a", tmp_path / "b"]
    build_shards(sources, select(1, 2), out, workers=1, mix=[2, 1])
    assert keys(out, make) == [
        f"{make.uid_of(1)}-0", f"{make.uid_of(1)}-1", f"{make.uid_of(2)}-0",
    ]  # fmt: skip


def test_a_pool_is_the_only_source_and_has_no_weights(shards, pool, select, out):
    with pytest.raises(UsageError, match=r"^several sources must all be folders of tars$"):
        build_shards([shards, pool], select(1), out, workers=1)
    with pytest.raises(UsageError, match="weights are for folders of tars, not for a pool"):
        build_shards(pool, select(1), out, workers=1, mix=[2])
    with pytest.raises(UsageError, match=r"^no source given"):
        build_shards([], select(1), out, workers=1)


# -- the command -----------------------------------------------------------------------------


def test_the_command_says_what_it_built(shards, select, out, run):
    arguments = ["shards", "build", shards, select(1, 2, 3), "-o", out, "--shard-size", 2]
    code, stdout, err = run(*arguments, "--workers", 1)
    digest = manifest.load(out / "manifest.json")["digest"]
    assert (code, err) == (0, "")
    assert stdout == f"{out}: 3 samples in 2 shards, 0.0 MB\ndigest {digest}\n"
    code, stdout, _ = run(*arguments, "--workers", 1, "--json")
    assert code == 0
    assert json.loads(stdout) == {
        "path": str(out), "selected": 3, "samples": 3, "shards": 2, "reused": 2,
        "bytes": sum(path.stat().st_size for path in out.glob("*.tar")),
        "missing": {}, "set_aside": {}, "digest": digest, "blurred": None,
    }  # fmt: skip
