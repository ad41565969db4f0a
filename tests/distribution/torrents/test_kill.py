"""``datacomp seed`` killed at any moment seeds again; a full disk ends a download from peers."""

import random
import subprocess
import sys

import pytest
from datacomp.distribution.getting import Options, get
from datacomp.distribution.release import verify_releases
from datacomp.distribution.torrents import Net, Seeder

pytest.importorskip("libtorrent")
POINTS = 20

# One process that forks; each child saves its state again and again, so that kills fall into that.
SEEDS = """
import os, random, signal, sys, threading, time
import libtorrent
from datacomp.distribution.torrents import Net, Seeder, seed

seed.SAVE_SECONDS = 0.01
folder, points, dice = sys.argv[1], int(sys.argv[2]), random.Random(int(sys.argv[3]))
for _ in range(points):
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            with Seeder(folder, Net("127.0.0.1:0", lan=True)) as seeder:
                seeder.run(threading.Event(), lambda status: None, 0.05)
        finally:
            os._exit(1)
    time.sleep(dice.uniform(0, 0.5))
    os.kill(child, signal.SIGKILL)
    print(os.waitpid(child, 0)[1] == signal.SIGKILL, flush=True)
"""


def test_killed_anywhere_it_seeds_again(publish, files, serving, tmp_path):
    folder = publish(files)
    seed = random.randrange(1 << 30)
    done = subprocess.run(
        [sys.executable, "-c", SEEDS, str(folder), str(POINTS), str(seed)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["True"] * POINTS, f"seed {seed}: {done.stderr}"
    assert verify_releases(folder).sound
    with Seeder(folder, Net("127.0.0.1:0", lan=True)) as seeder:
        assert {one["state"] for one in seeder.status()["torrents"]} == {"seeding"}
        peer = f"127.0.0.1:{seeder.port}"
        options = Options(http=False, lan=True, listen="127.0.0.1:0", peers=(peer,))
        assert get(serving(folder).url, tmp_path / "got", options).whole
    assert len(list((folder / ".state/seed").iterdir())) == 2, "nothing half-written is left"


FULL = """
import resource, sys
from datacomp.distribution.getting import Options, get
from datacomp.errors import StorageError

resource.setrlimit(resource.RLIMIT_FSIZE, (2_500_000, 2_500_000))
options = Options(http=False, lan=True, listen="127.0.0.1:0", peers=(sys.argv[3],))
try:
    get(sys.argv[1], sys.argv[2], options)
except StorageError as error:
    sys.exit(str(error))
"""


def test_a_full_disk_is_told_as_that(publish, files, serving, tmp_path):
    folder = publish(files)
    url, got = serving(folder).url, tmp_path / "got"
    with Seeder(folder, Net("127.0.0.1:0", lan=True)) as seeder:
        peer = f"127.0.0.1:{seeder.port}"
        done = subprocess.run(
            [sys.executable, "-c", FULL, url, str(got), peer],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 1
        assert "the file would exceed the largest size allowed here" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        options = Options(http=False, lan=True, listen="127.0.0.1:0", peers=(peer,))
        assert get(url, got, options).whole
    assert {path.name: path.read_bytes() for path in got.iterdir() if path.is_file()} == files
