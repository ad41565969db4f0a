"""The comparison with real servers, seeds and downloads."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from datacomp.curate.channels import Case, Conditions, all_cases, compare
from datacomp.distribution.release import Releases
from datacomp.errors import IntegrityError, UsageError

pytest.importorskip("libtorrent")
pytest.importorskip("uvicorn")


def tree(folder):
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


def test_cases_of_two_peers():
    found = [(case.channel, case.peers) for case in all_cases(2, killed=False)]
    assert found == [
        ("http", 0), ("bittorrent", 1), ("bittorrent", 2), ("http+bittorrent", 1),
        ("http+bittorrent", 2), ("ipfs", 0),
    ]  # fmt: skip
    both = all_cases(2)
    assert [(c.channel, c.peers) for c in both] == found * 2
    assert [c.killed for c in both] == [False] * 6 + [True] * 6
    assert [c.name for c in both[:4]] == [
        "HTTP", "BitTorrent, 1 peer", "BitTorrent, 2 peers", "HTTP + 1 peer",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "given", [{"peers": 0}, {"peers": 17}, {"rate": -1}, {"rate": 5}, {"rate": float("nan")},
              {"ping": 11}, {"repeats": 0}, {"timeout": 0}],
)  # fmt: skip
def test_conditions_are_bounded(given):
    with pytest.raises(UsageError, match=f"^{next(iter(given))} "):
        Conditions(**given)


def test_channels_are_measured_as_they_are(releases, tmp_path, monkeypatch):
    monkeypatch.setattr("datacomp.curate.channels.measure.PATIENCE", "0.5")
    before = tree(releases)
    cases = [
        Case("http", 0), Case("http+bittorrent", 1), Case("ipfs", 0), Case("http", 0, True),
        Case("bittorrent", 2, True),
    ]  # fmt: skip
    found = compare(releases, Conditions(rate=8e6, timeout=60), tmp_path, cases)
    assert tree(releases) == before
    assert list(tmp_path.iterdir()) == []
    assert [row.case for row in found.rows] == cases
    size = found.bytes
    http, both, ipfs, lost, outlived = (row.runs[0] for row in found.rows)
    for run in (http, both, ipfs, outlived):
        assert run.whole
        assert run.trouble is None
        assert run.bytes == size
        assert size < run.origin_bytes + run.peer_bytes < 2.5 * size
    for run in (http, ipfs):  # one holder sends all, at its rate
        assert size < run.origin_bytes < 1.1 * size
        assert run.peer_bytes == 0
        assert run.seconds > 0.8 * size / 8e6
    assert both.peer_bytes > 0
    assert not lost.whole
    assert lost.bytes < size
    assert lost.trouble
    assert 0.1 * size < outlived.origin_bytes < 0.8 * size  # it was killed
    assert outlived.peer_bytes > 0.2 * size
    assert http.cpu["get"] > 0.05
    assert http.cpu["peers"] == 0
    assert outlived.cpu["peers"] > 0
    told = found.to_dict()
    assert json.loads(json.dumps(told)) == told
    assert ("joules" in told["rows"][0]) is (found.energy is not None)
    assert told["rows"][3]["whole"] == 0
    assert told["rows"][4]["killed"] is True


def test_a_file_that_is_not_what_the_manifest_says_is_not_measured(releases, tmp_path):
    path = Releases(releases).latest.locate("00001.tar")
    whole = path.read_bytes()
    times = path.stat()
    try:
        path.write_bytes(b"x" + whole[1:])
        with pytest.raises(IntegrityError, match="release verify"):
            compare(releases, Conditions(peers=1), tmp_path)
    finally:
        path.write_bytes(whole)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert list(tmp_path.iterdir()) == []


def children(folder):
    """Return the processes that hold or get something in a folder."""
    found = []
    for number in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{number}/cmdline", "rb") as file:
            line = file.read()
            if b"channels.child" in line and os.fsencode(folder) in line:
                found.append(int(number))
    return found


def wait_until(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_a_comparison(releases, tmp_path, number):
    command = [sys.executable, "-m", "datacomp.curate.cli", "channels", "compare", str(releases),
               "--peers", "1", "--rate", "0.1", "--no-kill", "--work", str(tmp_path)]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: len(children(tmp_path)) == 2)  # serve and get
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    wait_until(lambda: not children(tmp_path), 5)
    if number == signal.SIGTERM:
        assert process.returncode == 130
        assert b"interrupted" in errors
        assert list(tmp_path.iterdir()) == []
