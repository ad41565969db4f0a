"""``datacomp get`` killed with SIGKILL at any moment: the next call ends whole and exact."""

import asyncio
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from datacomp.distribution.getting import Options, get
from datacomp.errors import StorageError

POINTS = 20
WITH_PEERS = 6
"""Peers need a while to begin."""
GET = """
import sys
from datacomp.distribution.getting import Options, get
get(sys.argv[1], sys.argv[2], Options(bittorrent=False, update=True))
"""

# One process that forks, so that every child is at work at once when it is killed.
MANY = """
import json, os, random, shutil, signal, sys, time
from pathlib import Path
from datacomp.distribution.getting import Options, get
from datacomp.distribution.torrents import channel
from datacomp.durable import sha256_file

url, out, points, seed, peers, least, most = sys.argv[1:]
options = Options(
    bittorrent=bool(peers), lan=True, listen="127.0.0.1:0", peers=tuple(peers.split()),
)
chance = random.Random(int(seed))
kills = 0
while kills < int(points):  # a busy machine may be done before it is killed
    folder = Path(out, str(kills // 5))
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            get(url, folder, options)
            os._exit(0)
        except BaseException:
            os._exit(1)
    time.sleep(chance.uniform(float(least), float(most)))
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if status != signal.SIGKILL:
        assert status == 0, status
        shutil.rmtree(folder)
        continue
    kills += 1
    found = {path.name: sha256_file(path) for path in folder.glob("*.tar")}
    marked = (folder / ".datacomp/manifest.json").exists()
    print(json.dumps([str(folder), marked, found]), flush=True)
"""


def slow(seconds):
    """Return a fault: bytes come slowly, so that a kill falls into the middle."""

    def fault(path, headers):
        async def bend(body, seen):
            await asyncio.sleep(seconds)
            return body

        return bend if path.endswith(".tar") else None

    return fault


def killed(server, tmp_path, files, peers, points, least, most):
    """Kill downloads at a number of moments; return the folders they leave behind."""
    seed = random.randrange(1 << 30)
    command = [server.url, tmp_path / "got", points, seed, peers, least, most]
    done = subprocess.run(
        [sys.executable, "-c", MANY, *map(str, command)], capture_output=True, text=True
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    expected = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == points
    for _, marked, found in lines:
        # What is visible is right, and only a whole folder says that it is whole.
        assert found.items() <= expected.items(), f"seed {seed}"
        assert found == expected or not marked, f"seed {seed}"
    return sorted((tmp_path / "got").iterdir())


def test_killed_anywhere_it_goes_on(publish, serving, shard, tmp_path):
    files = {f"{n:05d}.tar": shard(n, 4) for n in range(6)}
    server = serving(publish(files), slow(0.02))
    folders = killed(server, tmp_path, files, "", POINTS, 0, 0.3)
    server.fault = lambda path, headers: None
    for got in folders:
        report = get(server.url, got, Options(bittorrent=False))
        assert report.whole
        assert {path.name: path.read_bytes() for path in got.glob("*.tar")} == files
        assert not list((got / ".datacomp/partial").iterdir())


def test_killed_between_mirror_and_peers(publish, serving, shard, tmp_path):
    pytest.importorskip("libtorrent")
    from datacomp.distribution.torrents import Net, Seeder

    files = {f"{n:05d}.tar": shard(n, 4) for n in range(6)}
    folder = publish(files)
    server = serving(folder, slow(0.2))
    with Seeder(folder, Net("127.0.0.1:0", lan=True, upload_limit=8 << 20)) as seeder:
        peer = f"127.0.0.1:{seeder.port}"
        folders, most = [], 1.4
        while not seeder.status()["uploaded"]:  # peers begin later where much else goes on
            folders = killed(server, tmp_path, files, peer, WITH_PEERS, 0.4, most)
            most *= 2
        server.fault = lambda path, headers: None
        more = Options(lan=True, listen="127.0.0.1:0", peers=(peer,))
        for got in folders:
            assert get(server.url, got, more).whole
            assert {path.name: path.read_bytes() for path in got.glob("*.tar")} == files
            assert not (got / ".datacomp/torrent").exists()


def test_killed_in_an_update(publish, serving, shard, tmp_path):
    files = {f"{n:05d}.tar": shard(n, 4) for n in range(3)}
    server = serving(publish(files))
    got = tmp_path / "got"
    get(server.url, got, Options(bittorrent=False))
    newer = files | {"00001.tar": shard(101, 4), "00003.tar": shard(3, 4)}
    publish(newer, "2")
    server.fault = slow(0.02)
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


def test_a_disk_that_others_fill_meanwhile_loses_nothing(
    publish, serving, shard, small_disk, tmp_path
):
    files = {f"{n:05d}.tar": shard(n) for n in range(3)}
    disk = small_disk(12 << 20)

    def fault(path, headers):
        if path.endswith("00002.tar"):
            with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
                while filler.write(bytes(4096)) == 4096:
                    pass

    server = serving(publish(files), fault)
    options = Options(bittorrent=False, connections=1)
    with pytest.raises(StorageError, match=r"^cannot write .*: the disk is full; free some space"):
        get(server.url, disk / "got", options)
    assert "00002.tar" not in os.listdir(disk / "got")
    (disk / "filler").unlink()
    server.fault = lambda path, headers: None
    report = get(server.url, disk / "got", options)
    assert (report.whole, report.reused_files) == (True, 2)
    assert {path.name: path.read_bytes() for path in (disk / "got").glob("*.tar")} == files
