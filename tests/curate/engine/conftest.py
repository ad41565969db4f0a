"""A Ray cluster of this machine, and small data for every stage that runs on it."""

import hashlib
import io
import json
import os

import numpy as np
import pytest
from datacomp.curate.engine import EngineChoice, open_engine
from datacomp.evaluate.tasks import Task
from datacomp.pools import uids
from datacomp.pools.tar import tar_bytes
from PIL import Image

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # else Ray makes a token in the home
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture(scope="module")
def cluster():
    """Return the engine of a cluster with two workers; it starts once for a module."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with open_engine(EngineChoice("ray", "local", 2)) as engine:
        yield engine


def uid_of(number):
    return hashlib.sha256(b"%d" % number).hexdigest()[:32]


def picture(number):
    pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def write_shards():
    """Return a writer of four tars of five samples, numbered 0 to 19, with a given pad."""

    def write(folder, pad=512):
        folder.mkdir(parents=True)
        for shard in range(4):
            files = []
            for number in range(shard * 5, shard * 5 + 5):
                about = {"uid": uid_of(number), "caption": f"caption {number}"}
                files += [
                    (f"{number:09d}.png", picture(number)),
                    (f"{number:09d}.json", json.dumps(about).encode()),
                    (f"{number:09d}.txt", f"caption {number}".encode()),
                ]
            data = tar_bytes(files)
            (folder / f"{shard:08d}.tar").write_bytes(data + bytes(-len(data) % pad))
            (folder / f"{shard:08d}_stats.json").write_text('{"successes": 5}')
        return folder

    return write


@pytest.fixture(scope="session")
def write_subset():
    """Return a writer of a subset of numbered samples."""

    def write(path, numbers):
        uids.save_subset(path, uids.from_hex([uid_of(number) for number in numbers]))
        return path

    return write


@pytest.fixture
def subset(tmp_path, write_subset):
    """A subset of eleven of the samples, one of them twice."""
    numbers = [0, 3, 4, 4, 7, 9, 11, 12, 13, 16, 19]
    return write_subset(tmp_path / "subset.npy", numbers)


@pytest.fixture
def evalsets(tmp_path):
    """Two small classification sets and their tasks."""
    tasks = []
    for key, size in (("colours", 9), ("shapes", 7)):
        path = tmp_path / "evalsets" / f"wds_{key}_test"
        (path / "test").mkdir(parents=True)
        files = []
        for i in range(size):
            files += [(f"s{i}.cls", b"%d" % (i % 3)), (f"s{i}.png", picture(i))]
        (path / "test" / "0.tar").write_bytes(tar_bytes(files))
        (path / "test" / "nshards.txt").write_text("1")
        (path / "classnames.txt").write_text("red\ngreen\nblue")
        (path / "zeroshot_classification_templates.txt").write_text("a photo of {c}\na {c}")
        tasks.append(Task.model_validate({
            "key": key, "name": key, "suite": "demo", "family": "classification", "size": size,
            "version": 1, "main_metric": "acc1", "classes": 3,
        }))  # fmt: skip
    return tmp_path / "evalsets", tasks


@pytest.fixture
def files_of():
    """Return the bytes of every file below a folder, by path."""

    def files_of(folder):
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    return files_of
