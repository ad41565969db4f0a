"""Views: virtual shards that are, byte for byte, the shards a build would make."""

import io
import json
import os
import subprocess
import sys
import tarfile

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.curate.shards import build_shards, check_shards, index_shards, select_shards
from datacomp.curate.shards.order import round_weights
from datacomp.errors import DataError, IntegrityError, MissingError, UsageError
from datacomp.pools import uids, views
from datacomp.pools.ranges import coalesce
from datacomp.pools.tar import tar_bytes
from datacomp.pools.views import View
from hypothesis import given
from hypothesis import strategies as st

ALL = tuple(range(21))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "view"


def keys(view):
    return [sample["__key__"] for sample in view.samples()]


def weights_of(path, pairs):
    table = pa.table({"uid": [uid for uid, _ in pairs], "weight": [w for _, w in pairs]})
    pq.write_table(table, path)
    return path


# -- what is in a view -----------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [None, 3])
def test_a_virtual_shard_is_the_shard_a_build_would_make(shards, select, tmp_path, shuffle):
    subset = select(*ALL, 5, 5, 9)
    options = {"shard_size": 5, "shuffle": shuffle, "workers": 1}
    report = select_shards([shards], subset, tmp_path / "view", **options)
    built = build_shards(shards, subset, tmp_path / "built", **options)
    view = View.open(tmp_path / "view")
    assert len(view) == report.shards == built.shards == 5
    assert [view.size_of(number) for number in range(5)] == [5, 5, 5, 5, 4]
    for number in range(5):
        whole = (tmp_path / "built" / f"{number:08d}.tar").read_bytes()
        file = io.BytesIO()
        assert view.write_shard(number, file) == view.size_of(number)
        assert file.getvalue() == whole
        assert view.stream(number).read() == whole


def test_repetitions_have_keys_of_their_own(shards, select, out, make):
    select_shards([shards], select(4, 8, 8, 8), out, workers=1)
    assert keys(View.open(out)) == [
        f"{make.uid_of(4)}-0", *(f"{make.uid_of(8)}-{j}" for j in range(3)),
    ]  # fmt: skip


def test_samples_are_those_of_webdataset(shards, select, out):
    import webdataset
    from webdataset.gopen import gopen_schemes

    select_shards([shards], select(*ALL, 3), out, shard_size=8, workers=1)
    view = View.open(out)
    gopen_schemes["view"] = views.open_shard
    urls = [f"view:{out}#{number}" for number in range(3)]
    theirs = list(webdataset.WebDataset(urls, shardshuffle=False))
    ours = list(view.samples())
    names = ("__key__", "jpg", "json", "txt")
    assert [[s[n] for n in names] for s in ours] == [[s[n] for n in names] for s in theirs]
    assert ours[0]["__url__"] == f"{out}/00000000.tar"
    assert [s["__key__"] for s in view.samples(2)] == keys(view)[16:]


READER = """
import sys, webdataset
for sample in webdataset.WebDataset(sys.argv[1], shardshuffle=False):
    print(sample["__key__"], sample["txt"].decode())
"""


def test_the_pattern_is_read_by_any_user_of_webdataset(shards, select, out):
    report = select_shards([shards], select(*ALL), out, shard_size=8, workers=1)
    assert report.urls == f"pipe:datacomp shards cat {out} {{000000..000002}}"
    path = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", READER, report.urls],
        capture_output=True, check=True, text=True, env=os.environ | {"PATH": path},
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        f"{sample['__key__']} {sample['txt'].decode()}" for sample in View.open(out).samples()
    ]


def test_a_view_is_two_small_files_without_absolute_surprises(shards, select, out, make):
    report = select_shards([shards], select(1, 2), out, workers=1)
    assert sorted(make.files_of(out)) == ["samples.npy", "view.json"]
    records = np.load(out / "samples.npy", allow_pickle=False)
    assert records.dtype.names == ("high", "low", "file", "block", "blocks", "copy")
    assert uids.to_hex(uids.from_halves(records["high"], records["low"])) == [
        make.uid_of(2), make.uid_of(1),
    ]  # fmt: skip
    value = json.loads((out / "view.json").read_text())
    assert [source["root"] for source in value["sources"]] == [str(shards)]
    assert value["digest"] == report.digest
    assert (report.samples, report.selected, report.missing) == (2, 2, {})


def test_the_same_view_again_changes_nothing_and_another_is_refused(shards, select, out, make):
    select_shards([shards], select(1, 2), out, workers=1)
    first = make.files_of(out)
    select_shards([shards], select(1, 2), out, workers=2)
    assert make.files_of(out) == first
    with pytest.raises(UsageError) as caught:
        select_shards([shards], select(1, 2), out, workers=1, shuffle=1)
    assert str(caught.value) == (
        f"{out}: holds another view (shuffle: None instead of 1); "
        "choose another folder or remove this one"
    )
    with pytest.raises(
        UsageError, match=r"holds another view \(subset: count 2, digest [0-9a-f]{12}"
    ):
        select_shards([shards], select(1), out, workers=1)
    make.write_shard(shards, 3, make.members(90))
    with pytest.raises(UsageError, match=r"holds another view \(of other sources\); choose"):
        select_shards([shards], select(1, 2), out, workers=1)
    with pytest.raises(UsageError, match=r"is there and is no view; choose another folder$"):
        select_shards([shards], select(1), shards, workers=1)


@pytest.mark.parametrize("name", ["samples.npy", "view.json"])
def test_a_damaged_view_is_made_again(shards, select, out, make, name):
    select_shards([shards], select(1, 2), out, workers=1)
    first = make.files_of(out)
    for damage in (first[name][:-1], first[name][:-4] + b"junk", b""):
        (out / name).write_bytes(damage)
        select_shards([shards], select(1, 2), out, workers=1)
        assert make.files_of(out) == first


def test_a_view_follows_its_tars_when_an_empty_one_comes_before_them(shards, select, out):
    select_shards([shards], select(*ALL), out, workers=1)
    before = [bytes(sample["jpg"]) for sample in View.open(out).samples()]
    (shards / "00000000-.tar").write_bytes(tar_bytes([]))  # the rows of the index stay the same
    (shards / "00000000-_stats.json").write_text('{"successes": 0}')
    select_shards([shards], select(*ALL), out, workers=1)
    assert [bytes(sample["jpg"]) for sample in View.open(out).samples()] == before


# -- weights and sources ---------------------------------------------------------------------


def test_weights_repeat_samples(shards, select, tmp_path, out, make):
    pairs = [(make.uid_of(1), 2.0), (make.uid_of(2), 0.0), (make.uid_of(3), 1.0)]
    path = weights_of(tmp_path / "w.parquet", [*pairs, (make.uid_of(99), 7.0)])
    report = select_shards([shards], select(1, 2, 3, 3), out, weights=path, workers=1)
    assert (report.missing, report.weighed_out, report.complete) == ({}, 1, True)
    assert not (out / "missing.txt").exists()
    assert sorted(keys(View.open(out))) == sorted(
        f"{make.uid_of(n)}-{j}" for n in (1, 3) for j in range(2)
    )


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([(1, 1.0)], "has no weight for 1 uids ("),
        ([(1, 1.0), (2, -1.0)], "a weight is negative or no number"),
        ([(1, 1.0), (2, float("nan"))], "a weight is negative or no number"),
        ([(1, 1.0), (2, 1.0), (2, 1.0)], "a uid stands there twice"),
        ([(1, 1.0), (2, 1e9)], "a sample would be repeated over 1,048,576 times"),
        ([(1, 0.0), (2, 0.0)], "every sample has the weight 0; there is nothing left"),
    ],
)
def test_weights_that_cannot_be(shards, select, tmp_path, out, make, pairs, said):
    path = weights_of(tmp_path / "w.parquet", [(make.uid_of(n), w) for n, w in pairs])
    with pytest.raises(DataError) as caught:
        select_shards([shards], select(1, 2), out, weights=path, workers=1)
    assert said in str(caught.value)
    assert not out.exists()


def test_weights_that_are_none(shards, select, tmp_path, out):
    with pytest.raises(MissingError, match="no such file of weights"):
        select_shards([shards], select(1), out, weights=tmp_path / "none", workers=1)
    (tmp_path / "w").write_text("uid,weight")
    with pytest.raises(DataError, match="not readable weights"):
        select_shards([shards], select(1), out, weights=tmp_path / "w", workers=1)
    pq.write_table(pa.table({"uid": ["a"]}), tmp_path / "p")
    with pytest.raises(DataError, match=r"has the columns uid, but weights need uid and weight"):
        select_shards([shards], select(1), out, weights=tmp_path / "p", workers=1)


@given(st.floats(0, 3), st.integers(0, 1 << 32))
def test_rounded_weights_are_right_on_average(weight, seed):
    rng = np.random.default_rng(seed)
    array = uids.from_halves(rng.integers(0, 2**64, 4000, np.uint64), np.zeros(4000, np.uint64))
    counts = round_weights(array, np.full(4000, weight))
    assert set(counts.tolist()) <= {int(weight), int(weight) + 1}
    assert abs(counts.mean() - weight) < 0.06


def test_sources_are_mixed_by_their_weights(tmp_path, select, make, out):
    for name, first in (("a", 0), ("b", 40)):
        numbers = range(first, first + 40)
        make.write_shard(tmp_path / name, 0, [m for n in numbers for m in make.members(n)])
    sources = [tmp_path / "a", tmp_path / "b"]
    report = select_shards(
        sources, select(*range(80)), out, mix=[2, 0.5], shuffle=0, shard_size=30, workers=1
    )
    from_a = {make.uid_of(n) for n in range(40)}
    found = [key[:32] in from_a for key in keys(View.open(out))]
    assert sum(found) == 80
    assert 10 <= report.samples - 80 <= 30
    assert 0 < sum(found[:30]) < 30  # each virtual shard has samples of both
    assert report.complete
    pairs = [key[:32] for key in keys(View.open(out))]
    assert report.weighed_out == 80 - len(set(pairs)) > 0


@pytest.mark.parametrize("option", ["weights", "mix"])
def test_what_weights_leave_out_is_no_loss_and_sound(shards, select, tmp_path, make, run, option):
    value = 0.5
    if option == "weights":
        pairs = [(make.uid_of(n), 3.0 if n == 1 else 0.1) for n in ALL]
        value = weights_of(tmp_path / "w.parquet", pairs)
    built = tmp_path / "built"
    command = ["shards", "build", shards, select(*ALL), "-o", built, f"--{option}", value]
    code, stdout, _ = run(*command, "--keep-going", "--json")
    report = json.loads(stdout)
    assert (code, report["missing"]) == (0, {})
    assert report["weighed_out"] == 21 - len({key[:32] for key in make.keys(built)}) > 0
    assert "not there by its weight: " in run(*command, "--keep-going")[1]
    assert check_shards(built, 1).sound


def test_a_uid_in_two_sources(tmp_path, select, make, out, run):
    for name in "ab":
        make.write_shard(tmp_path / name, 0, make.members(1) + make.members(ord(name)))
    sources = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(DataError) as caught:
        select_shards(sources, select(1, ord("b")), out, workers=1)
    assert str(caught.value) == (
        f"{tmp_path / 'b'}: has samples that an earlier source has as well ({make.uid_of(1)}); "
        "--keep-going takes the first"
    )
    report = select_shards(sources, select(1, ord("b")), out, workers=1, keep_going=True)
    assert (report.samples, report.set_aside) == (2, {"uid_in_earlier_source": 1})
    built = tmp_path / "built"
    command = ["shards", "build", *sources, select(1, ord("b")), "-o", built, "--keep-going"]
    code, stdout, _ = run(*command)
    assert code == 3
    assert "left out of the sources: 1 uid_in_earlier_source" in stdout
    with pytest.raises(UsageError, match=r"^1 mixing weights for 2 sources$"):
        select_shards(sources, select(1), tmp_path / "v2", mix=[1], workers=1)
    with pytest.raises(UsageError, match=r"^a mixing weight is a number from 0 to "):
        select_shards(sources, select(1), tmp_path / "v2", mix=[1, -1], workers=1)


# -- trouble ---------------------------------------------------------------------------------


def test_missing_uids(shards, select, out, make, run):
    code, stdout, err = run("shards", "select", shards, select(1, 90), "-o", out)
    assert (code, stdout) == (1, "")
    assert f"of 2 uids 1 not in {shards} ({make.uid_of(90)}); --keep-going leaves them out" in err
    code, stdout, _ = run("shards", "select", shards, select(1, 90), "-o", out, "--keep-going")
    assert code == 3
    assert stdout.splitlines() == [
        f"{out}: 1 sample in 1 virtual shard, 0.0 MB not copied",
        f"left out: 1 uid not_in_source (listed in {out / 'missing.txt'})",
        f"pipe:datacomp shards cat {out} 000000",
    ]


def test_a_tar_that_changed_is_told(shards, select, out):
    select_shards([shards], select(*ALL), out, workers=1)
    view = View.open(out)
    view.verify()
    path = shards / "00000001.tar"
    os.utime(path, ns=(0, 0))
    said = f"{path}: has changed since it was indexed; run 'datacomp shards index' and then this"
    for use in (view.verify, lambda: list(view.samples())):
        with pytest.raises(DataError) as caught:
            use()
        assert str(caught.value) == f"{said} again"
    select_shards([shards], select(*ALL), out, workers=1)  # the same samples: the view is renewed
    assert len(list(View.open(out).samples())) == 21
    path.unlink()
    with pytest.raises(DataError, match="cannot be read: No such file or directory"):
        list(View.open(out).samples())


def test_a_record_that_points_elsewhere_is_found_out(shards, select, out, make):
    select_shards([shards], select(0, 3), out, workers=1)
    data = bytearray((out / "samples.npy").read_bytes())
    data[-64:-48], data[-32:-16] = data[-32:-16], data[-64:-48]  # swap the uids
    (out / "samples.npy").write_bytes(data)
    with pytest.raises(IntegrityError) as caught:
        list(View.open(out).samples())
    assert str(caught.value) == (
        f"{shards / '00000000.tar'} at byte 0: holds {make.uid_of(0)} where the index says "
        f"{make.uid_of(3)}; index the tars again"
    )
    data[-64:-48], data[-32:-16] = data[-32:-16], data[-64:-48]
    data[-16:-12] = b"\x09\0\0\0"
    (out / "samples.npy").write_bytes(data)
    with pytest.raises(DataError, match=r"names a tar that it does not list; make it again"):
        list(View.open(out).samples())


def test_samples_without_a_uid_of_their_own_are_checked_too(tmp_path, select, make, out):
    make.write_shard(tmp_path / "s", 0, make.members(1, json=None) + make.members(2, json=None))
    index_shards(tmp_path / "s", 1)
    ids = pq.read_table(tmp_path / "s" / "index.parquet")["uid"].to_pylist()
    uids.save_subset(tmp_path / "ids.npy", uids.from_hex(ids))
    select_shards([tmp_path / "s"], tmp_path / "ids.npy", out, workers=1)
    assert [sample["jpg"] for sample in View.open(out).samples()] == [
        make.picture(1), make.picture(2),
    ]  # fmt: skip


def test_views_that_are_none(tmp_path, shards, select, out):
    with pytest.raises(MissingError) as caught:
        View.open(tmp_path / "none")
    assert str(caught.value) == (
        f"{tmp_path / 'none'}: no such view; make one with 'datacomp shards select'"
    )
    select_shards([shards], select(1), out, workers=1)
    whole = (out / "view.json").read_text()
    for damage in (whole[:50], "[]", whole.replace("00000000.tar", "../x.tar"),
                   whole.replace('"samples": 1', '"samples": -1')):  # fmt: skip
        (out / "view.json").write_text(damage)
        with pytest.raises(DataError) as caught:
            View.open(out)
        assert str(caught.value) == f"{out / 'view.json'}: damaged; make the view again"
    (out / "view.json").write_text(whole.replace('"version": 1', '"version": 9'))
    with pytest.raises(DataError, match="view of version 9, but this datacomp knows 1"):
        View.open(out)
    (out / "view.json").write_text(whole)
    (out / "samples.npy").write_bytes((out / "samples.npy").read_bytes()[:-1])
    with pytest.raises(DataError, match="does not hold 1 samples; make the view again"):
        View.open(out)


def test_shards_that_are_not_there(shards, select, out, run):
    select_shards([shards], select(*ALL), out, shard_size=10, workers=1)
    code, _, err = run("shards", "cat", out, 3)
    assert (code, err) == (2, f"error: {out}: has virtual shards 0 to 2, not 3\n")
    for url in ("view:x", f"view:{out}#x"):
        with pytest.raises(UsageError, match="expected view:PATH#NUMBER"):
            views.open_shard(url)


def test_a_path_that_would_break_the_pattern(shards, select, tmp_path):
    with pytest.raises(UsageError, match="cannot stand in a URL pattern"):
        select_shards([shards], select(1), tmp_path / "a{b}", workers=1)
    assert not (tmp_path / "a{b}").exists()
    report = select_shards([shards], select(1), tmp_path / "a b", workers=1)
    assert report.urls == f"pipe:datacomp shards cat '{tmp_path / 'a b'}' 000000"


# -- the command -----------------------------------------------------------------------------

CAT = """
import sys
sys.argv = ["datacomp", "shards", "cat", sys.argv[1], "1"]
from datacomp.curate.cli import main
try:
    main()
finally:
    print(*sorted(set(sys.modules) & {"numpy", "duckdb", "polars", "pyarrow", "pydantic"}),
          file=sys.stderr)
"""


def test_cat_writes_a_tar_and_imports_nothing_heavy(shards, select, out):
    select_shards([shards], select(*ALL), out, shard_size=8, workers=1)
    done = subprocess.run([sys.executable, "-c", CAT, out], capture_output=True, check=True)
    assert done.stderr == b"\n"
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as file:
        names = file.getnames()
    assert len(names) == 24
    assert [name.partition(".")[0] for name in names[::3]] == keys(View.open(out))[8:16]


def test_the_command_prints_json(shards, select, out, run):
    code, stdout, _ = run(
        "shards", "select", shards, select(1, 2), "-o", out, "--json", "--shard-size", 1
    )
    view = View.open(out)
    assert (code, json.loads(stdout)) == (
        0,
        {
            "path": str(out), "selected": 2, "samples": 2, "shards": 2,
            "bytes": view.metadata["bytes"], "urls": view.pattern(), "missing": {}, "set_aside": {},
            "weighed_out": 0,
            "digest": view.digest,
        },
    )  # fmt: skip


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 50), st.integers(1, 20)), max_size=30),
    st.integers(0, 30),
    st.integers(1, 60),
)
def test_coalesced_ranges_are_the_ranges(places, gap, limit):
    found = [
        (file, start + offset, length)
        for file, start, size, inside in coalesce(places, lambda _: (gap, limit))
        for offset, length in inside
        if offset >= 0 and offset + length <= size
    ]
    assert found == places


def test_uids_of_weights_as_a_pool_holds_them(shards, select, out, tmp_path, make):
    weights = tmp_path / "w.parquet"
    pool = "(SELECT range::UHUGEINT << 100 AS uid, 2.0 AS weight FROM range(3))"
    duckdb.sql(f"COPY {pool} TO '{weights}' (FORMAT parquet)")
    with pytest.raises(DataError) as caught:
        select_shards([shards], select(1, 2), out, weights=weights, workers=1)
    assert str(caught.value) == (
        f"{weights}: its uids are not 32 hex digits each; write them so: printf('%032x', uid) AS "
        "uid, in the SQL of a pool"
    )


def test_a_folder_in_the_place_of_the_subset(shards, select, out):
    with pytest.raises(UsageError) as caught:
        select_shards([select(1)], shards, out, workers=1)
    assert str(caught.value) == (
        f"{shards}: a folder, but a subset file comes last: SOURCE... SUBSET"
    )


@pytest.mark.parametrize(
    ("uids", "weights", "said"),
    [
        (None, ["a", "b"], "not readable weights: Failed to parse string: '"),
        (None, [[1.0], [2.0]], "not readable weights: Unsupported cast from list"),
        ([b"\xff" * 16] * 2, [1.0, 2.0], "its uids are not 32 hex digits each; write them so"),
        ([[1], [2]], [1.0, 2.0], "its uids are not 32 hex digits each; write them so"),
    ],
)
def test_weights_of_other_types(shards, select, out, tmp_path, make, uids, weights, said):
    uids = [make.uid_of(1), make.uid_of(2)] if uids is None else uids
    kind = pa.binary(16) if isinstance(uids[0], bytes) else None
    path = tmp_path / "w.parquet"
    pq.write_table(pa.table({"uid": pa.array(uids, kind), "weight": weights}), path)
    with pytest.raises(DataError) as caught:
        select_shards([shards], select(1, 2), out, weights=path, workers=1)
    assert str(caught.value).startswith(f"{path}: {said}")
