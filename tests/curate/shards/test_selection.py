"""Choosing samples in parts: the same bytes as at once, in memory that does not grow."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.curate.shards import buckets, missing, ordered, select_shards, sieve, wanted
from datacomp.curate.shards.columns import split_column, text_column
from datacomp.curate.shards.missing import Missing
from datacomp.curate.shards.order import round_weights, shuffle_keys
from datacomp.curate.shards.storage import ShardRecord, TableWriter, save_metadata, schema
from datacomp.durable import digest
from datacomp.errors import DataError
from datacomp.pools import uids
from datacomp.pools.tar import BLOCK

ROWS = 300
LARGE = 2_000_000
BOTH = 40
"""So many samples of the first source are in the second one too."""


@pytest.fixture
def in_parts(monkeypatch):
    """Let so little fit into memory that all lies on the disk, in many parts."""
    for module, name, value in (
        (wanted, "WHOLE", 3), (wanted, "PART", 7), (wanted, "PARTS", 1000), (wanted, "BLOCK", 5),
        (buckets, "HELD", 200), (missing, "HELD", 40), (missing, "BLOCK", 2), (ordered, "GROUP", 9),
        (sieve, "BITS", 7),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)


def index_of(folder, ids, sizes):
    """Write the index of tars of so many samples; a sample has 1 to 9 blocks."""
    folder.mkdir(parents=True)
    records, first = [], 0
    rng = np.random.default_rng(len(ids))
    with TableWriter(folder / "index.parquet") as writer:
        for number, size in enumerate(sizes):
            length = rng.integers(1, 10, size) * BLOCK
            path = folder / f"{number:08d}.tar"
            with path.open("wb") as file:
                file.truncate(int(length.sum()))
            stat = path.stat()
            records.append(ShardRecord(path.name, stat.st_size, str(stat.st_mtime_ns), size))
            digits = "".join(uids.to_hex(ids[first : first + size])).encode()
            columns = [
                split_column(digits, [32] * size), text_column([path.name] * size),
                pa.array(np.cumsum(length) - length), pa.array(length), text_column([""] * size),
                pa.array([[]] * size, schema().field("members").type),
            ]  # fmt: skip
            writer.write(pa.Table.from_arrays(columns, schema=schema()))
            first += size
    assert first == len(ids)
    save_metadata(folder, None, records, {})


@pytest.fixture
def world(tmp_path):
    """Two sources, a subset with repetitions and uids that are nowhere, and weights of all."""
    rng = np.random.default_rng(0)
    ids = np.frombuffer(rng.bytes(16 * 3 * ROWS), uids.UID_DTYPE).copy()
    ids["f0"][::11] = ids["f0"][0]  # uids that agree in all of their first half
    ids = ids[rng.permutation(len(ids))]
    index_of(tmp_path / "a", ids[:ROWS], [40, 0, 1, 200, 59])
    index_of(tmp_path / "b", ids[ROWS - BOTH : 2 * ROWS], [170, 170])
    chosen = ids[rng.random(len(ids)) < 0.5]
    subset = np.repeat(chosen, rng.choice([1, 1, 1, 2, 30], len(chosen)))
    uids.save_subset(tmp_path / "s.npy", subset)
    weights = pa.table({"uid": uids.to_hex(ids), "weight": rng.choice([0, 0.4, 1, 2.5], len(ids))})
    pq.write_table(weights, tmp_path / "w.parquet")
    return tmp_path


def expected(world, sources, shuffle, weights, mix):
    """Return (uid, file, block, blocks, copy) of the view, and missing uids, in plain Python."""
    counts = Counter(uids.to_hex(uids.load_subset(world / "s.npy")))
    weight = {}
    if weights:
        for row in pq.read_table(world / "w.parquet").to_pylist():
            weight[row["uid"]] = row["weight"]
    seen, samples, first_file = set(), [], 0
    for number, source in enumerate(sources):
        rows = pq.read_table(world / source / "index.parquet").to_pylist()
        for row in rows:
            uid = row["uid"]
            if uid not in counts or uid in seen:
                continue
            seen.add(uid)
            often = counts[uid] * weight.get(uid, 1.0) * (mix[number] if mix else 1.0)
            times = int(round_weights(uids.from_hex([uid]), np.array([often]))[0])
            place = (first_file + int(row["shard"][:8]), row["offset"] // BLOCK,
                     row["length"] // BLOCK)  # fmt: skip
            samples += [(uid, *place, copy) for copy in range(times)]
        first_file += len(list((world / source).glob("*.tar")))
    if shuffle is not None:
        samples.sort(key=lambda sample: int(_key(sample[0], sample[4], shuffle)))
    return samples, sorted(set(counts) - seen)


def _key(uid, copy, seed):
    record = uids.from_hex([uid])
    return shuffle_keys(record["f0"], record["f1"], np.array([copy], np.uint32), seed)[0]


@pytest.mark.parametrize("shuffle", [None, 5])
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize(
    ("sources", "mix"), [(["a"], []), (["b", "a"], []), (["a", "b"], [0.7, 2.0])]
)
def test_in_parts_and_at_once_the_samples_are_those_expected(
    world, sources, mix, weights, shuffle, request
):
    options = {
        "weights": world / "w.parquet" if weights else None, "mix": mix, "shuffle": shuffle,
        "keep_going": True, "workers": 1,
    }  # fmt: skip
    folders = [world / source for source in sources]
    report = select_shards(folders, world / "s.npy", world / "at_once", **options)
    request.getfixturevalue("in_parts")
    again = select_shards(folders, world / "s.npy", world / "in_parts", **options)
    for name in ("samples.npy", "view.json", "missing.txt"):
        whole = (world / "at_once" / name).read_bytes()
        assert (world / "in_parts" / name).read_bytes() == whole
    samples, lacking = expected(world, sources, shuffle, weights, mix)
    records = np.load(world / "in_parts" / "samples.npy")
    found = zip(
        uids.to_hex(uids.from_halves(records["high"], records["low"])),
        *(records[name].tolist() for name in ("file", "block", "blocks", "copy")), strict=True,
    )  # fmt: skip
    assert list(found) == samples
    lines = (world / "in_parts" / "missing.txt").read_text().splitlines()
    assert lines == [f"{uid} not_in_source" for uid in lacking]
    metadata = json.loads((world / "in_parts" / "view.json").read_text())
    pairs = [[uid, "not_in_source"] for uid in lacking]
    assert metadata["missing"] == {"count": len(lacking), "digest": digest(pairs)}
    assert (report.bytes, report.weighed_out, report.set_aside, report.missing) == (
        again.bytes, again.weighed_out, again.set_aside, again.missing,
    )  # fmt: skip
    assert report.bytes == sum(sample[3] for sample in samples) * BLOCK
    assert sorted(path.name for path in world.iterdir()) == [
        "a", "at_once", "b", "in_parts", "s.npy", "w.parquet",
    ]  # fmt: skip


def said(world, sources, **options):
    folders = [world / source for source in sources]
    with pytest.raises(DataError) as caught:
        select_shards(folders, world / "s.npy", world / "view", workers=1, **options)
    return str(caught.value)


def test_what_is_missing_is_told_alike_in_parts_and_at_once(world, request):
    whole = said(world, ["a"])
    assert "--keep-going leaves them out" in whole
    request.getfixturevalue("in_parts")
    assert said(world, ["a"]) == whole


def test_bad_input_is_told_in_parts_too(world, in_parts):
    assert "has samples that an earlier source has as well (" in said(world, ["a", "b"])
    rows = pq.read_table(world / "w.parquet").to_pylist()
    bad = world / "bad.parquet"

    def told(rows):
        pq.write_table(pa.Table.from_pylist(rows), bad)
        return said(world, ["a"], weights=bad, keep_going=True)

    assert "a uid stands there twice" in told(rows + rows)
    assert "has no weight for " in told(rows[:-100])
    assert "repeated over 1,048,576 times" in told([row | {"weight": 1e9} for row in rows])
    assert "every sample has the weight 0" in told([row | {"weight": 0.0} for row in rows])
    uids.save_subset(world / "s.npy", uids.from_hex([f"{n:032x}" for n in range(50)]))
    assert "none of the 50 uids of " in said(world, ["a"], keep_going=True)


def test_parts_cover_the_subset_and_keep_high_halves_together(world, in_parts):
    found = wanted.Wanted.read(world / "s.npy")
    spans = found.parts()
    assert len(spans) > 10
    assert [first for first, _ in spans[1:]] == [last for _, last in spans[:-1]]
    assert (spans[0][0], spans[-1][1]) == (0, found.selected)
    ids = uids.load_subset(world / "s.npy")
    assert all(ids["f0"][first - 1] < ids["f0"][first] for first, _ in spans[1:])
    assert sum(len(found.part(*span)[0]) for span in spans) == len(found) == len(np.unique(ids))
    fewer = found.without(ids[:3])
    assert len(fewer) == len(found) - len(np.unique(ids[:3]))
    assert not np.isin(fewer.everything()[0], ids[:3]).any()


def test_a_part_takes_no_memory_for_repetitions(tmp_path, in_parts, monkeypatch):
    ids = uids.from_hex([f"{number:032x}" for number in range(9)])
    uids.save_subset(tmp_path / "s.npy", np.repeat(ids, [1, 1, 500, 1, 1, 30, 1, 1, 1]))
    found = wanted.Wanted.read(tmp_path / "s.npy")
    real, lengths = wanted.SubsetFile.read, []

    def read(file, first, count):
        lengths.append(count)
        return real(file, first, count)

    monkeypatch.setattr(wanted.SubsetFile, "read", read)
    own, counts = found.everything()
    assert own.tolist() == ids.tolist()
    assert counts.tolist() == [1, 1, 500, 1, 1, 30, 1, 1, 1]
    assert max(lengths) <= wanted.BLOCK


def test_a_uid_that_is_repeated_too_often_is_refused_before_the_work(world, monkeypatch):
    monkeypatch.setattr(wanted, "MAX_REPEATED", 29)
    with pytest.raises(DataError, match=r"s\.npy: repeats [0-9a-f]{32} over 29 times; repeat it"):
        wanted.Wanted.read(world / "s.npy")


def test_the_sieve_lets_all_wanted_pass_and_few_others(world):
    ids = np.unique(uids.load_subset(world / "s.npy"))
    starts = [int(ids["f0"][place]) for place in (100, 200)]
    passed = sieve.Sieve([ids[:100], ids[100:]], len(ids), starts)
    rows, parts = passed.find(ids)
    assert rows.tolist() == list(range(len(ids)))
    assert parts.tolist() == [sum(high >= start for start in starts) for high in ids["f0"].tolist()]
    others = np.frombuffer(np.random.default_rng(1).bytes(16 * 1000), uids.UID_DTYPE)
    assert len(passed.find(others)[0]) < 1000 / 8


def test_missing_uids_are_told_in_order(tmp_path, in_parts):
    ids = uids.sort_uids(np.frombuffer(np.random.default_rng(1).bytes(16 * 50), uids.UID_DTYPE))
    lacking = Missing(tmp_path)
    lacking.add(ids[::2], "b")
    lacking.add(ids[1::4], "a")
    both = lacking.plus([(uid, "c") for uid in reversed(uids.to_hex(ids[3::4]))])
    pairs = sorted(both)
    assert list(both) == pairs
    assert [uid for uid, _ in both] == uids.to_hex(ids)
    assert (len(lacking), len(both), both.reasons()) == (38, 50, {"a": 13, "b": 25, "c": 12})
    assert both.identity() == {"count": 50, "digest": digest(pairs)}
    assert Missing(tmp_path).identity() == {"count": 0, "digest": digest([])}
    both.write(tmp_path / "missing.txt")
    assert (tmp_path / "missing.txt").read_text() == "".join(f"{u} {why}\n" for u, why in pairs)


CHILD = """
import sys
from datacomp.curate.shards import buckets, ordered, select_shards, wanted

def peak():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["VmHWM"].split()[0]) / 1024

wanted.WHOLE = wanted.PART = ordered.GROUP = 1 << 15
wanted.BLOCK = 1 << 14
buckets.HELD = 1 << 20
options = {"workers": 1, "shuffle": int(sys.argv[4]) if sys.argv[4] else None}
select_shards([sys.argv[1]], sys.argv[2], sys.argv[3] + ".few", **options)
before = peak()
print(select_shards([sys.argv[1]], sys.argv[5], sys.argv[3], **options).samples)
print(peak() - before)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """An index of two million samples, a subset of them all and one of few."""
    folder = tmp_path_factory.mktemp("large")
    ids = np.frombuffer(np.random.default_rng(0).bytes(16 * LARGE), uids.UID_DTYPE)
    index_of(folder / "index", ids, [50_000] * (LARGE // 50_000))
    uids.save_subset(folder / "few.npy", ids[:100_000])
    uids.save_subset(folder / "all.npy", ids)
    return folder


@pytest.mark.parametrize("shuffle", ["", "7"])
def test_memory_does_not_grow_with_the_subset(large, tmp_path, shuffle):
    arguments = [large / "index", large / "few.npy", tmp_path / "view", shuffle, large / "all.npy"]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, arguments)], check=True, capture_output=True,
        text=True,
    )  # fmt: skip
    samples, grown = map(float, done.stdout.split())
    assert samples == LARGE
    assert grown < 28  # MB; the records alone are 64, the uids 32
