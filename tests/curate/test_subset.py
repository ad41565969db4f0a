"""Subset algebra against Counters, sidecars, and the commands."""

import json
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from datacomp import __version__
from datacomp.curate import subset
from datacomp.curate.cli import main
from datacomp.errors import DataError, IntegrityError, UsageError
from datacomp.pools import uids
from hypothesis import given, settings
from hypothesis import strategies as st

# Few values, so that subsets overlap, repeat and share high halves.
halves = st.one_of(st.integers(0, 2), st.integers(0, 2**64 - 1))
multisets = st.lists(st.tuples(halves, halves), max_size=25)

POOL = {"digest": "d" * 64, "samples": 9}


def records(values):
    return uids.sort_uids(np.array(values, uids.UID_DTYPE))


def hexes(*numbers):
    return [f"{number:032x}" for number in numbers]


@pytest.fixture
def save(tmp_path):
    def save(name, numbers, **provenance):
        path = tmp_path / name
        subset.write_subset(path, uids.from_hex(hexes(*numbers)), provenance)
        return path

    return save


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line; return exit code, output and errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["datacomp", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    return run


# -- algebra ---------------------------------------------------------------------------------


@given(multisets, multisets)
def test_tally_counts_both(a, b):
    keys, in_a, in_b = subset.tally(*map(uids.multiplicities, (records(a), records(b))))
    assert keys.tolist() == sorted(set(a) | set(b))
    assert in_a.tolist() == [Counter(a)[uid] for uid in keys.tolist()]
    assert in_b.tolist() == [Counter(b)[uid] for uid in keys.tolist()]


@given(multisets)
def test_multiplicities_count_each_uid(a):
    keys, counts = uids.multiplicities(records(a))
    assert dict(zip(keys.tolist(), counts.tolist(), strict=True)) == Counter(a)


@given(st.sets(st.tuples(halves, halves)), multisets)
def test_lookup_finds_what_is_there(haystack, needles):
    ordered = sorted(haystack)
    found = subset.Lookup(records(ordered)).find(np.array(needles, uids.UID_DTYPE))
    assert found.tolist() == [ordered.index(uid) if uid in haystack else -1 for uid in needles]


def test_lookup_of_uids_that_share_their_first_bits():
    array = uids.from_halves(np.zeros(500, np.uint64), np.arange(0, 1000, 2, dtype=np.uint64))
    lookup = subset.Lookup(array)
    assert lookup._deepest > subset.DEEP  # so that binary search takes over
    wanted = uids.from_halves(
        np.array([0, 0, 0, 1], np.uint64), np.array([0, 998, 3, 0], np.uint64)
    )
    assert lookup.find(wanted).tolist() == [0, 499, -1, -1]
    assert subset.Lookup(array[:0]).find(wanted).tolist() == [-1] * 4


# -- sidecars --------------------------------------------------------------------------------


def test_write_subset_sorts_and_leaves_a_sidecar(tmp_path):
    path = tmp_path / "s.npy"
    provenance = {"pool": POOL, "pipeline": [{"use": "clip_score"}], "funnel": [9, 2]}
    written = subset.write_subset(path, uids.from_hex(hexes(7, 3)), provenance)
    assert uids.to_hex(uids.load_subset(path)) == hexes(3, 7)
    assert json.loads((tmp_path / "s.json").read_text()) == written
    assert written == {
        "format": "datacomp-subset",
        "version": 1,
        "count": 2,
        "digest": uids.digest_of_uids(uids.from_hex(hexes(3, 7))),
        "pool": POOL,
        "pipeline": [{"use": "clip_score"}],
        "funnel": [9, 2],
        "inputs": None,
        "datacomp": __version__,
    }
    assert subset.read_sidecar(path) == written


def test_the_same_subset_gives_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        subset.write_subset(tmp_path / folder / "s.npy", uids.from_hex(hexes(2, 1)), {"pool": POOL})
    for name in ("s.npy", "s.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_provenance_has_known_keys_only(tmp_path):
    with pytest.raises(UsageError) as caught:
        subset.write_subset(tmp_path / "s.npy", uids.from_hex([]), {"pol": None})
    assert str(caught.value) == (
        "provenance has unknown keys ['pol']; known: pool, pipeline, funnel, inputs"
    )
    assert not list(tmp_path.iterdir())


def test_the_name_must_end_in_npy(tmp_path):
    path = tmp_path / "s.json"
    with pytest.raises(UsageError) as caught:
        subset.write_subset(path, uids.from_hex([]), {})
    assert str(caught.value) == f"{path}: the name of a subset file must end in .npy"


def test_a_subset_needs_no_sidecar(tmp_path):
    uids.save_subset(tmp_path / "s.npy", uids.from_hex(hexes(1)))
    assert subset.read_sidecar(tmp_path / "s.npy") is None
    assert subset.info(tmp_path / "s.npy").sidecar is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON: Expecting property name"),
        ("[" * 100_000, "not JSON: "),
        ("[]", "not the sidecar of a subset; move it away or rename the subset"),
        ('{"format": "x"}', "not the sidecar of a subset; move it away or rename the subset"),
        (
            '{"format": "datacomp-subset", "version": 2}',
            "sidecar of version 2, but this datacomp knows 1; update datacomp",
        ),
    ],
)
def test_a_broken_sidecar_is_refused(tmp_path, text, message):
    uids.save_subset(tmp_path / "s.npy", uids.from_hex(hexes(1)))
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(DataError) as caught:
        subset.read_sidecar(tmp_path / "s.npy")
    assert str(caught.value).startswith(f"{tmp_path / 's.json'}: {message}")


def test_a_sidecar_of_other_uids_is_refused(save):
    path = save("s.npy", [1, 2])
    uids.save_subset(path, uids.from_hex(hexes(1)))
    with pytest.raises(IntegrityError) as caught:
        subset.info(path)
    assert str(caught.value) == (
        f"{path.with_suffix('.json')}: describes other uids than s.npy holds; "
        "make the subset again or remove the sidecar"
    )
    with pytest.raises(IntegrityError, match="describes other uids"):
        subset.combine("union", [path], path.with_name("out.npy"))


def test_info(save):
    found = subset.info(save("s.npy", [5, 1, 1, 1, 9], pool=POOL))
    assert (found.count, found.unique) == (5, 3)
    assert found.multiplicities == {1: 2, 3: 1}
    assert [found.first, found.last] == hexes(1, 9)
    assert found.sidecar is not None
    assert found.digest == found.sidecar["digest"]


def test_info_of_an_empty_subset(save):
    found = subset.info(save("s.npy", []))
    assert (found.count, found.unique, found.first, found.last) == (0, 0, None, None)
    assert found.multiplicities == {}


# -- algebra on files ------------------------------------------------------------------------


def test_combine_names_its_inputs_and_keeps_their_pool(save, tmp_path):
    a, b = save("a.npy", [1, 2], pool=POOL), save("b.npy", [2, 3], pool=POOL)
    sidecar = subset.combine("union", [a, b], tmp_path / "u.npy")
    assert uids.to_hex(uids.load_subset(tmp_path / "u.npy")) == hexes(1, 2, 3)
    assert sidecar["pool"] == POOL
    assert sidecar["pipeline"] == [{"use": "subset union"}]
    assert sidecar["inputs"] == [
        {"file": p.name, "digest": uids.digest_of_uids(uids.load_subset(p)), "count": 2}
        for p in (a, b)
    ]


def test_combine_of_different_pools_names_none(save, tmp_path):
    a, b = save("a.npy", [1], pool=POOL), save("b.npy", [2])
    assert subset.combine("union", [a, b], tmp_path / "u.npy")["pool"] is None


def test_combine_works_from_left_to_right(save, tmp_path):
    files = [save("a.npy", [1, 2, 3, 4]), save("b.npy", [1]), save("c.npy", [4, 9])]
    subset.combine("minus", files, tmp_path / "m.npy")
    assert uids.to_hex(uids.load_subset(tmp_path / "m.npy")) == hexes(2, 3)


def test_the_result_may_replace_an_input(save):
    path = save("a.npy", [1])
    subset.combine("union", [path, save("b.npy", [2])], path)
    assert subset.info(path).count == 2


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Write multisets as subset files."""
    folder = tmp_path_factory.mktemp("files")

    def files(found):
        paths = [folder / f"{number}.npy" for number in range(len(found))]
        for path, values in zip(paths, found, strict=True):
            subset.write_subset(path, records(values), {})
        return paths, folder / "out.npy"

    return files


def sums(operation, found):
    """Return what set algebra says of multisets, by Counters."""
    result = Counter(found[0])
    for other in map(Counter, found[1:]):
        if operation == "union":
            result |= other
        elif operation == "intersect":
            result &= other
        else:
            result = Counter({uid: n for uid, n in result.items() if uid not in other})
    return sorted(result.elements())


@settings(deadline=None)
@given(
    st.lists(multisets, min_size=1, max_size=4),
    st.sampled_from(["union", "intersect", "minus"]),
    st.integers(1, 12),
)
def test_files_are_combined_whatever_is_held(files, found, operation, held):
    paths, out = files(found)
    expected = records(sums(operation, found))
    sidecar = subset.combine(operation, paths, out, held)
    written = out.read_bytes()
    uids.save_subset(out, expected)
    assert written == out.read_bytes()
    assert (sidecar["count"], sidecar["digest"]) == (len(expected), uids.digest_of_uids(expected))


@settings(deadline=None)
@given(multisets, multisets, st.integers(1, 12))
def test_files_are_compared_whatever_is_held(files, a, b, held):
    (one, other), out = files([a, b])
    parts = {
        "only_a": sums("minus", [a, b]),
        "only_b": sums("minus", [b, a]),
        "both": sums("intersect", [a, b]),
    }
    counts = {name: len(part) for name, part in parts.items()}
    assert subset.compare(one, other, out.with_suffix(""), held) == counts
    for name, part in parts.items():
        path = out.with_suffix("") / f"{name}.npy"
        assert uids.load_subset(path).tolist() == part
        assert subset.info(path, held).multiplicities == Counter(Counter(part).values())
    assert subset.compare(one, other, held=held) == counts


def child(script, *arguments):
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True
    )


def test_memory_is_bounded_whatever_the_files_hold(tmp_path):
    drawn = np.random.default_rng(0).integers(0, 2**64, (2, 2 << 20, 2), np.uint64)
    often = np.full(1 << 20, 1 << 62, np.uint64)  # one uid, a million times
    for name, high, low in zip("ab", drawn[:, :, 0], drawn[:, :, 1], strict=True):
        found = uids.from_halves(np.append(high, often), np.append(low, often))
        uids.save_subset(tmp_path / f"{name}.npy", found)
    uids.save_subset(tmp_path / "few.npy", found[:1])
    done = child(
        "import sys\n"
        "from datacomp.curate.subset import combine, compare, info\n"
        "def peak():\n"
        "    status = dict(line.split(':') for line in open('/proc/self/status'))\n"
        "    return int(status['VmHWM'].split()[0]) / 1024\n"
        "def work(a, b):\n"
        "    for operation in ('union', 'intersect', 'minus'):\n"
        "        combine(operation, [a, b], 'out.npy')\n"
        "    info('out.npy'), compare(a, b, 'parts')\n"
        "    return peak()\n"
        "import os; os.chdir(sys.argv[1])\n"
        "few = work('few.npy', 'few.npy')\n"
        "print(work('a.npy', 'b.npy') - few)\n",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 80, done.stdout  # MB; 500 and more if all were held


def test_a_process_that_is_killed_leaves_the_old_file(save, tmp_path):
    a, b, out = save("a.npy", range(50)), save("b.npy", range(100)), save("out.npy", [7])
    before = out.read_bytes(), out.with_suffix(".json").read_bytes()
    done = child(
        "import os, signal, sys\n"
        "from datacomp.curate import subset\n"
        "from datacomp.pools.subset_files import SubsetWriter\n"
        "write = SubsetWriter.write\n"
        "def killed(self, uids):\n"
        "    if self.count > 20: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    write(self, uids)\n"
        "SubsetWriter.write = killed\n"
        "subset.combine('union', sys.argv[1:3], sys.argv[3], held=10)\n",
        a, b, out,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert (out.read_bytes(), out.with_suffix(".json").read_bytes()) == before
    subset.combine("union", [a, b], out)
    assert subset.info(out).count == 100
    assert not list(tmp_path.glob(".*"))


# -- commands --------------------------------------------------------------------------------


def test_command_info(run, save, tmp_path):
    path = save("s.npy", [1, 1, 2], pool={"digest": "d" * 64, "samples": 1234})
    code, out, err = run("subset", "info", path)
    assert (code, err) == (0, "")
    assert out == (
        "uids          3\n"
        "distinct      2\n"
        "seen 2 times  1\n"
        f"first         {hexes(1)[0]}\n"
        f"last          {hexes(2)[0]}\n"
        f"digest        {subset.info(path).digest}\n"
        f"pool          {'d' * 64} (1,234 samples)\n"
    )
    code, out, _ = run("subset", "info", path, "--json")
    assert code == 0
    assert json.loads(out)["multiplicities"] == {"1": 1, "2": 1}


@pytest.mark.parametrize(
    ("operation", "numbers"), [("union", (1, 2, 3)), ("intersect", (2,)), ("minus", (1,))]
)
def test_command_algebra(run, save, tmp_path, operation, numbers):
    out_path = tmp_path / "out.npy"
    files = save("a.npy", [1, 2]), save("b.npy", [2, 3])
    code, out, err = run("subset", operation, *files, "-o", out_path)
    assert (code, out, err) == (
        0,
        f"{out_path}: {len(numbers)} uid{'s' * (len(numbers) != 1)}\n",
        "",
    )
    assert uids.to_hex(uids.load_subset(out_path)) == hexes(*numbers)
    code, out, _ = run("subset", operation, *files, "-o", out_path, "--json")
    assert json.loads(out)["count"] == len(numbers)


def test_command_diff(run, save, tmp_path):
    a, b = save("a.npy", [1, 2, 3]), save("b.npy", [3, 4])
    code, out, _ = run("subset", "diff", a, b, "--json", "-o", tmp_path / "d")
    assert code == 0
    assert json.loads(out) == {"only_a": 2, "only_b": 1, "both": 1}
    found = {p.stem: subset.info(p).count for p in (tmp_path / "d").glob("*.npy")}
    assert found == {"only_a": 2, "only_b": 1, "both": 1}
    code, out, _ = run("subset", "diff", a, b)
    rows = [line.rsplit(maxsplit=1) for line in out.splitlines()[2:]]
    assert rows == [[f"only in {a}", "2"], [f"only in {b}", "1"], ["in both", "1"]]


def test_command_refuses_an_unsorted_file(run, save, tmp_path):
    path = tmp_path / "bad.npy"
    np.save(path, np.array([(2, 0), (1, 0)], uids.UID_DTYPE))
    code, out, err = run("subset", "union", path, save("b.npy", [1]), "-o", tmp_path / "o.npy")
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {path}: the uids are not sorted; ")
    assert err.count("\n") == 1
    assert not (tmp_path / "o.npy").exists()
