"""Filters on features: nearest centroids against the bare product; a million vectors in memory.

DATACOMP_BENCH_FEATURES is a folder of metadata with l14_img features, of a million rows or so: each
of these filters runs on it as a process of its own, and its time and memory are told.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from datacomp.filters.nearest import Nearest

FOLDER = os.environ.get("DATACOMP_BENCH_FEATURES")
VECTORS, CENTROIDS, DIMENSION, BLOCK = 16_384, 20_000, 768, 4096


def test_the_nearest_centroid(paired):
    """image_based looks for it; the bare product does not even look for the largest."""
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((VECTORS, DIMENSION), np.float32)
    centroids = draw.standard_normal((CENTROIDS, DIMENSION), np.float32)
    nearest = Nearest(centroids, "cpu")

    def bare():
        for start in range(0, VECTORS, BLOCK):
            for first in range(0, CENTROIDS, BLOCK):
                vectors[start : start + BLOCK] @ centroids[first : first + BLOCK].T

    found = nearest.of(vectors[:64])
    assert (found == (vectors[:64].astype(float) @ centroids.astype(float).T).argmax(1)).all()
    paired(
        f"nearest of {CENTROIDS:,} centroids for {VECTORS:,} vectors",
        lambda: nearest.of(vectors), bare, against="bare product", rounds=3,
    )  # fmt: skip


@pytest.mark.timeout(3600)
@pytest.mark.skipif(FOLDER is None, reason="DATACOMP_BENCH_FEATURES names no metadata")
@pytest.mark.parametrize(
    "text", ["semdedup:epsilon=0.05", "ssl_prototypes:fraction=0.5", "density:fraction=0.3"]
)
def test_a_filter_of_features_in_bounded_memory(text, timed, tmp_path, capsys):
    command = [sys.executable, "-m", "datacomp.curate.cli", "filter", "run", str(FOLDER), text]
    out = tmp_path / "kept.npy"
    wall, cpu, memory = timed([*command, "-o", str(out)], tmp_path / "log")
    size = sum(file.stat().st_size for file in Path(str(FOLDER)).glob("*.npz"))
    with capsys.disabled():
        print(
            f"\n{text}: kept {(out.stat().st_size - 128) // 16:,}; {wall:.0f} s, CPU {cpu:.0f} s, "
            f"{memory:,.0f} MB of memory; the files of features have {size >> 20:,} MB"
        )
