"""``datacomp get`` killed with SIGKILL at any moment: the next call ends whole and exact."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from datacomp.distribution.getting import Options, get

POINTS = 4
GET = """
import sys
from datacomp.distribution.getting import Options, get
get(sys.argv[1], sys.argv[2], Options(bittorrent=False, update=True))
"""


@pytest.fixture
def slow():
    """Return a fault: bytes come slowly, so that a kill falls into the middle."""
    import asyncio

    def fault(path, headers):
        async def bend(body, seen):
            await asyncio.sleep(0.02)
            return body

        return bend if path.endswith(".tar") else None

    return fault


def test_killed_anywhere_it_goes_on(publish, serving, shard, slow, tmp_path):
    files = {f"{n:05d}.tar": shard(n, 4) for n in range(6)}
    server = serving(publish(files), slow)
    got, chance = tmp_path / "got", random.Random(8)
    for _ in range(POINTS):
        process = subprocess.Popen([sys.executable, "-c", GET, server.url, str(got)])
        until = time.monotonic() + 20
        while not (got / ".datacomp/partial").is_dir() and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.25))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        # What is visible is right, and nothing says that the folder is whole.
        for path in got.glob("*.tar"):
            assert path.read_bytes() == files[path.name]
        if len(list(got.glob("*.tar"))) < len(files):
            assert not (got / ".datacomp/manifest.json").exists()
    before = {path.name for path in got.glob("*.tar")}
    server.fault = lambda path, headers: None
    report = get(server.url, got, Options(bittorrent=False))
    assert {path.name: path.read_bytes() for path in got.glob("*.tar")} == files
    assert report.whole
    assert report.reused_files >= len(before)
    assert not list((got / ".datacomp/partial").iterdir())


def test_killed_in_an_update(publish, serving, shard, slow, tmp_path):
    files = {f"{n:05d}.tar": shard(n, 4) for n in range(3)}
    server = serving(publish(files))
    got = tmp_path / "got"
    get(server.url, got, Options(bittorrent=False))
    newer = files | {"00001.tar": shard(101, 4), "00003.tar": shard(3, 4)}
    publish(newer, "2")
    server.fault = slow
    process = subprocess.Popen([sys.executable, "-c", GET, server.url, str(got)])
    until = time.monotonic() + 20
    while not list((got / ".datacomp/partial").iterdir()) and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for path in got.glob("*.tar"):
        assert path.read_bytes() in (files.get(path.name), newer[path.name])
    server.fault = lambda path, headers: None
    report = get(server.url, got, Options(bittorrent=False, update=True))
    assert report.whole
    assert report.fetched <= 2 * len(files["00001.tar"])
    assert {path.name: path.read_bytes() for path in got.glob("*.tar")} == newer


def test_a_disk_that_fills_up_loses_nothing(publish, serving, shard, tmp_path):
    files = {f"{n:05d}.tar": shard(n, 1 + n) for n in range(3)}
    server = serving(publish(files))
    limited = (
        "import resource, sys\n"
        "from datacomp.distribution.getting import Options, get\n"
        "from datacomp.errors import StorageError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_500_000, 2_500_000))\n"
        "try:\n"
        "    get(sys.argv[1], sys.argv[2], Options(bittorrent=False))\n"
        "except StorageError as error:\n"
        "    sys.exit(str(error))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, server.url, str(tmp_path / "got")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "the file would exceed the largest size allowed here" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "00002.tar" not in [path.name for path in (tmp_path / "got").iterdir()]
    report = get(server.url, tmp_path / "got", Options(bittorrent=False))
    assert report.whole
    assert {path.name: path.read_bytes() for path in (tmp_path / "got").glob("*.tar")} == files
    assert report.fetched < report.bytes
