"""A folder of small padded shards, published with a key of its own."""

import hashlib
import io
import json
import sys
from datetime import UTC, datetime

import numpy as np
import pytest
from datacomp.curate.cli import main
from datacomp.curate.release import create_release
from datacomp.distribution.release import Plan, SigningKey
from datacomp.pools.tar import tar_bytes
from PIL import Image

PIECE = 16 << 10
NOW = datetime(2026, 11, 20, tzinfo=UTC)
KEY = SigningKey.from_seed(bytes(32))


def uid_of(number):
    return hashlib.sha256(b"%d" % number).hexdigest()[:32]


def members(number, caption=None):
    """Return the members of one sample."""
    pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    caption = caption or f"caption {number}"
    values = json.dumps({"uid": uid_of(number), "caption": caption}).encode()
    data = {"json": values, "png": buffer.getvalue(), "txt": caption.encode()}
    return [(f"{number:09d}.{name}", content) for name, content in data.items()]


def write_shard(folder, shard, numbers, **captions):
    """Write one padded tar with its stats, as a new file."""
    folder.mkdir(exist_ok=True)
    files = [f for n in numbers for f in members(n, captions.get(f"n{n}"))]
    data = tar_bytes(files)
    path = folder / f"{shard:08d}.tar"
    path.unlink(missing_ok=True)
    path.write_bytes(data + bytes(-len(data) % PIECE))
    stats = folder / f"{shard:08d}_stats.json"
    stats.unlink(missing_ok=True)
    stats.write_text(json.dumps({"successes": len(numbers)}))


@pytest.fixture
def dataset(tmp_path):
    """Three shards of five samples, 0 to 14."""
    for shard in range(3):
        write_shard(tmp_path / "data", shard, range(shard * 5, shard * 5 + 5))
    return tmp_path / "data"


@pytest.fixture
def releases(tmp_path):
    return tmp_path / "releases"


@pytest.fixture
def publish(dataset, releases):
    """Publish the dataset as it is."""

    def publish(version, pool=None, subset=None, **options):
        plan = Plan("cats", version, "2026-11-20", **{"piece_length": PIECE, **options})
        return create_release(dataset, releases, plan, KEY, pool=pool, subset=subset, now=NOW)

    return publish


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command line with a home of its own; return exit code, output and errors."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["datacomp", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    return run
