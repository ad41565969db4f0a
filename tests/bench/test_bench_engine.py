"""A Ray cluster of this machine against processes of it: the same partitions, the same workers."""

import io
import os
import statistics
import subprocess
import sys
import time

import numpy as np
import pytest
from datacomp.curate.engine import EngineChoice, open_engine
from datacomp.curate.shards.check import _check_tar
from datacomp.pools.allocation import keep_freed_memory
from datacomp.pools.engine import Local
from datacomp.pools.tar import tar_bytes
from PIL import Image

pytestmark = pytest.mark.timeout(3600)

IMAGES, SIDE = 200, 400
SECONDS = 60
"""How long the work takes two workers, about."""
ROUNDS = int(os.environ.get("DATACOMP_BENCH_ROUNDS", "3"))
BARE = """
import sys
from pathlib import Path
from datacomp.curate.shards.check import _check_tar
from datacomp.pools.allocation import keep_freed_memory
keep_freed_memory()
sys.stdin.readline()
for path in sys.argv[1:]:
    _check_tar(Path(path))
print(flush=True)
sys.stdin.readline()
"""
"""The same work by processes that nobody leads: what the machine's processors can at the most."""


@pytest.fixture
def partitions(tmp_path):
    """Many names of one tar, whose images are all decoded: a second of work each, or so."""
    files = []
    for number in range(IMAGES):
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG")
        files += [(f"{number:09d}.jpg", buffer.getvalue()), (f"{number:09d}.txt", b"noise")]
    first = tmp_path / "00000000.tar"
    first.write_bytes(tar_bytes(files))
    _check_tar(first)  # what it imports
    started = time.perf_counter()
    _check_tar(first)
    count = int(2 * SECONDS / (time.perf_counter() - started)) // 2 * 2
    for number in range(1, count):
        os.link(first, tmp_path / f"{number:08d}.tar")
    return sorted(tmp_path.glob("*.tar"))


def bare(paths, processes):
    """Return the seconds that so many processes take, each with its share, started before."""
    shares = [paths[number::processes] for number in range(processes)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen([sys.executable, "-c", BARE, *share], **pipes) for share in shares]
    time.sleep(3)  # what they import
    started = time.perf_counter()
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    for child in children:
        assert child.stdout.readline() == "\n"
    seconds = time.perf_counter() - started
    for child in children:
        child.communicate("\n")
    return seconds


def work(engine, paths):
    started = time.perf_counter()
    assert sum(shard.samples for shard in engine.map(_check_tar, paths)) == IMAGES * len(paths)
    return time.perf_counter() - started


def test_ray_against_local_processes(partitions, capsys):
    with open_engine(EngineChoice("ray", "local", 2)) as cluster:
        work(cluster, partitions[:4]), work(Local(2), partitions[:4])  # workers that are warm
        pairs = [(work(cluster, partitions), work(Local(2), partitions)) for _ in range(ROUNDS)]
    ratios = [ray / local for ray, local in pairs]
    with capsys.disabled():
        print(f"\n{len(partitions)} partitions, 2 workers: Ray and local processes")
        for ray, local in pairs:
            print(f"    {ray:.1f} s, {local:.1f} s, ratio {ray / local:.3f}")
        print(f"    median {statistics.median(ratios):.3f}")


def test_one_worker_and_two(partitions, capsys):
    keep_freed_memory()  # as the command line does, and as workers do
    part = partitions[: len(partitions) // 8 * 2]
    rows = []
    for _ in range(ROUNDS):
        alone = bare(part, 1), work(Local(1), part)
        rows.append((*alone, bare(part, 2), work(Local(2), part)))
    with capsys.disabled():
        print(f"\n{len(part)} partitions, 1 worker and 2: bare processes, local processes")
        for bare_one, local_one, bare_two, local_two in rows:
            print(
                f"    bare {bare_one:.1f} s to {bare_two:.1f} s, {bare_one / bare_two:.2f}x; "
                f"local {local_one:.1f} s to {local_two:.1f} s, {local_one / local_two:.2f}x"
            )
        print(
            f"    median: bare {statistics.median(row[0] / row[2] for row in rows):.2f}x, "
            f"local {statistics.median(row[1] / row[3] for row in rows):.2f}x"
        )
