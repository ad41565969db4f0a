"""A Ray cluster of this machine against processes of it: the same partitions, the same workers."""

import io
import os
import time

import numpy as np
import pytest
from datacomp.curate.engine import EngineChoice, open_engine
from datacomp.curate.shards.check import _check_tar
from datacomp.pools.engine import Local
from datacomp.pools.tar import tar_bytes
from PIL import Image

IMAGES, SIDE = 200, 400
SECONDS = 60
"""How long the work takes two workers, about."""


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


def test_ray_against_local_processes(partitions, capsys):
    def run(engine, paths):
        started = time.perf_counter()
        assert sum(shard.samples for shard in engine.map(_check_tar, paths)) == IMAGES * len(paths)
        return time.perf_counter() - started

    with open_engine(EngineChoice("ray", "local", 2)) as cluster:
        run(cluster, partitions[:4]), run(Local(2), partitions[:4])  # workers that are warm
        ray, local = run(cluster, partitions), run(Local(2), partitions)
        half = partitions[: len(partitions) // 2]
        one, two = run(Local(1), half), run(Local(2), half)
    with capsys.disabled():
        print(
            f"\n{len(partitions)} partitions, 2 workers: Ray {ray:.1f} s, local processes "
            f"{local:.1f} s, ratio {ray / local:.3f}; local processes, 1 to 2 workers: "
            f"{one:.1f} s to {two:.1f} s, ratio {one / two:.2f}"
        )
