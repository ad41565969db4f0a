"""kill -9 at random points: nothing half-made is visible, and a rerun gives the same bytes."""

import random
import subprocess
import sys

from datacomp.distribution.release import Releases

from .conftest import PIECE, write_files
from .test_create import tree

KILLS = 20

# One process that forks: the work begins at once in every child, so that kills hit the work.
SCRIPT = """
import os, random, signal, sys, time
from datetime import datetime, timezone
from pathlib import Path
from datacomp.distribution.release import Plan, SigningKey, Source, create_version
import datacomp.distribution.ipfs.ipns, datacomp.distribution.ipfs.directory

data, out, piece = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
key = SigningKey.from_seed(bytes(32))
now = datetime(2026, 11, 20, tzinfo=timezone.utc)

def make(folder, workers):
    for version, last in (("1", 15), ("2", 20)):
        if version == "1" and (folder / "versions/2").exists():
            continue
        files = [Source(p.name, p) for p in sorted(data.iterdir()) if int(p.name[:8]) < last]
        plan = Plan("ds", version, "2026-11-20", piece_length=piece, workers=workers)
        create_version(folder, files, plan, key, now)

def in_child(folder, workers, seconds=None):
    child = os.fork()
    if child == 0:
        try:
            make(folder, workers)
            os._exit(0)
        except BaseException as error:
            print("failed:", error, flush=True)
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]

start = time.monotonic()
assert in_child(out / "whole", 2) == 0
took = time.monotonic() - start
dice = random.Random(int(sys.argv[4]))
number = kills = 0
while kills < int(sys.argv[5]):  # a busy machine may be done before it is killed
    number += 1
    folder = out / str(number)
    kills += in_child(folder, 1 + number % 2, dice.uniform(0, took)) == signal.SIGKILL
    visible = folder / "versions"
    for version in visible.iterdir() if visible.exists() else ():
        assert {p.name for p in version.iterdir()} == {
            p.name for p in (out / "whole/versions" / version.name).iterdir()}, version
    assert in_child(folder, 2) == 0
    print(number, flush=True)
"""


def test_killed_at_random_points(tmp_path):
    sizes = {f"{n:08d}.tar": 4 * PIECE + (512 if n % 3 == 0 else 0) for n in range(20)}
    sizes |= {f"{n:08d}_stats.json": 16 + n for n in range(20)}
    data = write_files(tmp_path / "data", sizes)
    seed = random.randrange(1 << 30)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, data, tmp_path, str(PIECE), str(seed), str(KILLS)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"seed {seed}: {done.stdout} {done.stderr}"
    expected = tree(tmp_path / "whole")
    assert [r.manifest.version for r in Releases(tmp_path / "whole").versions] == ["1", "2"]
    for number in done.stdout.split():
        assert tree(tmp_path / number) == expected, f"seed {seed}, folder {number}"
