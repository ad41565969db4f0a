"""What a check found: the same is told of it however little is in memory."""

import functools
import subprocess
import sys
import tempfile
from collections import Counter

import numpy as np
import pytest
from datacomp.curate.shards import check
from datacomp.curate.shards import found as found_module
from datacomp.curate.shards.found import FoundSamples, UidRuns, rows_of, same_rows
from datacomp.errors import StorageError
from datacomp.pools import tar, uids
from datacomp.pools.merging import summed, walk
from hypothesis import given, settings
from hypothesis import strategies as st

NUMBERS = st.integers(0, 9)
TARS = st.lists(st.lists(NUMBERS, max_size=6), min_size=1, max_size=4)


def uid(number):
    return f"{number * 0x123456789ABCDEF:016x}{number:016x}"


def records(numbers):
    return uids.from_hex([uid(number) for number in numbers])


def fill_the_disk(monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)


@settings(deadline=None)
@given(st.lists(st.lists(NUMBERS, max_size=8)), st.integers(1, 9), st.integers(1, 9))
def test_runs_have_all_that_was_taken_in(tmp_path_factory, parts, kept, held):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(found_module, "OPEN", 2)
        with UidRuns(tmp_path_factory.getbasetemp(), kept) as runs:
            for part in parts:
                runs.add(records(part))
            sorted_runs = runs.all()
            assert len(sorted_runs) <= 2
            counted = [summed(pieces) for pieces in walk(sorted_runs, held)]
    found = Counter()
    for own, counts in counted:
        assert len(set(own.tolist())) == len(own)
        found.update(dict(zip(uids.to_hex(own), counts.tolist(), strict=True)))
    assert found == Counter(uid(number) for part in parts for number in part)
    assert list(found) == sorted(found)


@settings(deadline=None)
@given(
    TARS,
    st.none() | st.lists(NUMBERS, max_size=12),
    st.lists(NUMBERS, max_size=3),
    st.booleans(),
    st.integers(1, 9),
)
def test_uids_are_compared_as_counters_are(
    tmp_path_factory, tars, expected, left_out, weighed, held
):
    folder = tmp_path_factory.mktemp("tars")
    names, starts = [f"{number}.tar" for number in range(len(tars))], []
    for name, numbers in zip(names, tars, strict=True):
        keys = [f"{place}.txt" for place in range(len(numbers))]
        (folder / name).write_bytes(tar.tar_bytes([(key, b"") for key in keys]))
        starts.append([sample.start for sample in tar.samples(folder / name)])
    (folder / "missing.txt").write_text("".join(f"{uid(n)} gone\n" for n in left_out) + "junk\n")
    if expected is not None:
        uids.save_subset(folder / "sample_ids.npy", records(expected))
    if weighed:
        (folder / "build.json").write_text('{"weights": "w"}')

    every = Counter(number for numbers in tars for number in numbers)
    want = Counter(every.keys() if expected is None else expected)
    should, seen = [], Counter()
    for number, times in want.items():
        if every[number] < times and number not in left_out and not weighed:
            detail = f"{every[number]} times instead of {times}"
            should.append(check.Problem("sample_ids.npy", uid(number), "missing_uid", detail))
    for name, numbers in zip(names, tars, strict=True):
        for place, number in enumerate(numbers):
            seen[number] += 1
            if seen[number] > want[number] and not (weighed and want[number]):
                kind = "duplicate_uid" if want[number] else "unexpected_uid"
                should.append(check.Problem(name, str(place), kind, f"uid {uid(number)}"))

    with pytest.MonkeyPatch.context() as patch, FoundSamples(folder, held) as found:
        patch.setattr(check, "walk", functools.partial(check.walk, held=held))
        for numbers, offsets in zip(tars, starts, strict=True):
            found.add(records(numbers), np.array(offsets, np.int64))
        assert sorted(check._uids(folder, names, found)) == sorted(should)


@given(st.lists(NUMBERS, max_size=9), st.lists(NUMBERS, max_size=9), st.data())
def test_streams_are_the_same_however_they_are_cut(a, b, data):
    def cut(numbers):
        rows = rows_of(records(numbers), np.array(numbers, np.int64), 4)
        places = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
        return iter(np.split(rows, places))

    assert same_rows(cut(a), cut(a))
    assert same_rows(cut(a), cut(b)) == (a == b)


def test_nothing_lies_in_the_folder(tmp_path):
    with FoundSamples(tmp_path, 1) as found:
        found.add(records([1, 2, 1]), np.arange(3))
        assert [rows["offset"].tolist() for _, rows in found.tars()] == [[0, 1, 2]]
        assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_only_read(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    with FoundSamples(tmp_path / "gone", 1) as found:
        found.add(records([1, 2]), np.arange(2))
        assert [own.tolist() for own, _ in found.tars()] == [records([1, 2]).tolist()]
        fill_the_disk(monkeypatch)
        with pytest.raises(StorageError) as caught, UidRuns(tmp_path, 1) as runs:
            runs.add(records([1, 2]))
    assert str(caught.value) == (
        f"cannot write {tempfile.gettempdir()}: the disk is full; free some space and run the same "
        "command again, or name another folder in TMPDIR"
    )


def test_rows_that_cannot_be_read_back_are_told(tmp_path):
    with FoundSamples(tmp_path, 1) as found:
        found.add(records([1, 2]), np.arange(2))
        (run,) = found.uids.all()
        run.file.truncate(20)
        with pytest.raises(StorageError, match=r"of 32 bytes written there only 20 can be read;"):
            run.read(0, 2)
        found._rows.truncate(33)
        with pytest.raises(StorageError, match=r"of 64 bytes written there only 33 can be read;"):
            list(found.tars())


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    fill_the_disk(monkeypatch)
    with (
        pytest.raises(StorageError, match=r"cannot write .*: the disk is full"),
        FoundSamples(tmp_path, 1) as found,
    ):
        found.add(records([1, 2]), np.arange(2))


def test_memory_is_bounded_however_many_samples_there_are(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys\n"
            "import numpy as np\n"
            "from pathlib import Path\n"
            "from datacomp.curate.shards import check\n"
            "from datacomp.curate.shards.found import FoundSamples\n"
            "from datacomp.pools.subset_files import subset_writer\n"
            "from datacomp.pools.uids import from_halves\n"
            "folder = Path(sys.argv[1])\n"
            "def peak():\n"
            "    status = dict(line.split(':') for line in open('/proc/self/status'))\n"
            "    return int(status['VmHWM'].split()[0]) / 1024\n"
            "def work(tars, each):\n"
            "    step = np.uint64((1 << 64) // (tars * each))\n"
            "    with subset_writer(folder / 'sample_ids.npy') as writer:\n"
            "        for first in range(0, tars * each, each):\n"
            "            own = np.arange(first, first + each, dtype=np.uint64)\n"
            "            writer.write(from_halves(own * step, own))\n"
            "    with FoundSamples(folder) as found:\n"
            "        for first in range(tars):\n"
            "            own = np.arange(first, tars * each, tars, dtype=np.uint64)\n"
            "            own = own[own != 7]\n"
            "            found.add(from_halves(own * step, own), np.arange(len(own)))\n"
            "        names = [f'{number}.tar' for number in range(tars)]\n"
            "        (problem,) = check._uids(folder, names, found)\n"
            "        assert problem.kind == 'missing_uid' and problem.key.endswith('7')\n"
            "        assert not sum((places >= 0).sum() for _, _, places in found.beyond(\n"
            "            from_halves(*np.ones((2, 1), np.uint64)), np.ones(1, np.int64)))\n"
            "    return peak()\n"
            "few = work(2, 100)\n"
            "print(work(400, 10_000) - few)\n",
            tmp_path,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 150, done.stdout  # MB; 680 at 170 bytes a sample
