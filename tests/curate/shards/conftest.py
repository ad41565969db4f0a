"""Small folders of tars in img2dataset's layout, and a pool of loose images."""

import hashlib
import io
import json
import sys
import tarfile

import numpy as np
import pytest
from datacomp.curate.cli import main
from datacomp.pools import uids
from datacomp.pools.tar import tar_bytes
from PIL import Image


def picture(number, kind="JPEG", side=24):
    """Return the bytes of an image that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def uid_of(number):
    """Return the uid of the sample of a number: a hash, as uids are."""
    return hashlib.sha256(b"%d" % number).hexdigest()[:32]


def members(number, key=None, **changes):
    """Return the members of one sample, as img2dataset orders them."""
    key = key or f"{number:09d}"
    caption = f"caption {number}"
    values = {"uid": uid_of(number), "caption": caption, "key": key, "width": 24, "height": 24}
    found = {
        "jpg": picture(number),
        "json": json.dumps(values, indent=4).encode(),
        "txt": caption.encode(),
    } | changes
    return [(f"{key}.{name}", data) for name, data in found.items() if data is not None]


def write_shard(folder, number, files):
    """Write one tar with its stats."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number:08d}.tar"
    path.write_bytes(tar_bytes(files))
    count = len({name.partition(".")[0] for name, _ in files})
    path.with_name(f"{number:08d}_stats.json").write_text(json.dumps({"successes": count}))
    return path


def contents(path):
    """Return name and data of every member of a tar, read by Python's tarfile."""
    with tarfile.open(path) as file:
        return [(info.name, file.extractfile(info).read()) for info in file]


def keys_of(folder):
    """Return the keys of all samples in the order of the shards."""
    return [
        name.removesuffix(".jpg")
        for path in sorted(folder.glob("*.tar"))
        for name, _ in contents(path)
        if name.endswith(".jpg")
    ]


def files_of(folder):
    """Return the bytes of every file of a folder by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def shards(tmp_path):
    """Three tars of seven samples, numbered 0 to 20, in a scrambled order."""
    folder = tmp_path / "shards"
    for shard in range(3):
        numbers = [shard * 7 + (3 * i) % 7 for i in range(7)]
        write_shard(folder, shard, [file for n in numbers for file in members(n)])
    return folder


@pytest.fixture
def out(tmp_path):
    """Return a folder that is not there yet."""
    return tmp_path / "out"


@pytest.fixture
def select(tmp_path):
    """Write a subset of numbered samples; a number given twice is wanted twice."""

    def select(*numbers, name="subset.npy"):
        path = tmp_path / name
        uids.save_subset(path, uids.from_hex([uid_of(number) for number in numbers]))
        return path

    return select


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line; return exit code, output and errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["datacomp", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    return run


@pytest.fixture
def make():
    """Return the helpers above, for tests that build their own tars."""
    from types import SimpleNamespace

    return SimpleNamespace(
        picture=picture, uid_of=uid_of, members=members, write_shard=write_shard,
        contents=contents, keys=keys_of, files_of=files_of,
        big=lambda number: picture(number, side=400),
    )  # fmt: skip
