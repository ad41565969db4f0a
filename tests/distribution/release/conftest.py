"""Folders of made-up files, published with a fixed key on a fixed day."""

import random
from datetime import UTC, datetime

import pytest
from datacomp.distribution.release import Plan, SigningKey, Source, create_version

PIECE = 32 << 10
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
KEY = SigningKey.from_seed(bytes(range(32)))


def write_files(folder, sizes, seed=0):
    """Write files of given sizes with bytes of their own."""
    for name, size in sizes.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(f"{seed}{name}").randbytes(size))
    return folder


SIZES = {
    "00000000.tar": 3 * PIECE, "00000001.tar": 4 * PIECE, "00000002.tar": PIECE,
    "00000000_stats.json": 16, "00000001_stats.json": 16, "00000002_stats.json": 17,
    "ids.npy": 2 * PIECE + 100, "empty": 0, "sub/notes.txt": 700,
}  # fmt: skip


@pytest.fixture
def data(tmp_path):
    """A folder of three padded shards and side files."""
    return write_files(tmp_path / "data", SIZES)


@pytest.fixture
def publish(tmp_path, data):
    """Publish the files of ``data`` in ``releases``; options are those of Plan."""

    def publish(version="1", *, folder=None, source=None, key=KEY, now=NOW, **options):
        source = source or data
        files = [Source(p.relative_to(source).as_posix(), p) for p in source.rglob("*")]
        plan = Plan("ds", version, **{"date": "2026-11-20", "piece_length": PIECE, **options})
        return create_version(
            folder or tmp_path / "releases", [f for f in files if f.file.is_file()], plan, key, now
        )

    return publish
