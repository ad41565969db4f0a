"""``datacomp seed`` killed with SIGKILL at any moment: the releases stay, and it seeds again."""

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
