"""Small labelled shards: four classes told apart by colour."""

import io
from dataclasses import replace

import numpy as np
import pytest
from datacomp.evaluate.vision.recipes import FINETUNING, PRETRAINING
from datacomp.pools.tar import TarWriter

TINY = {"patch_size": 8, "depth": 1, "embed_dim": 16, "num_heads": 2}


def _square(label: int, seed: int) -> bytes:
    """Return a PNG of 16 px: red, green, blue or white."""
    from PIL import Image

    pixels = np.random.default_rng([label, seed]).integers(0, 60, (16, 16, 3), np.uint8)
    pixels[..., label if label < 3 else slice(None)] += 180
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _write_tar(path, files):
    with path.open("wb") as file:
        writer = TarWriter(file)
        for name, data in files:
            writer.add(name, data)
        writer.close()


@pytest.fixture(scope="session")
def square():
    """Return a maker of PNGs of 16 px: (label, seed)."""
    return _square


@pytest.fixture(scope="session")
def write_tar():
    """Return a writer of tars: (path, [(name, bytes)])."""
    return _write_tar


@pytest.fixture(scope="session")
def tiny_args():
    """Return what makes a ViT tiny."""
    return TINY


@pytest.fixture(scope="session")
def labelled(tmp_path_factory):
    """Two shards of 40 images each, ten a class and shard."""
    folder = tmp_path_factory.mktemp("labelled")
    for shard in range(2):
        files = []
        for i in range(40):
            key = f"{shard}{i:04d}"
            files.append((f"{key}.cls", str(i % 4).encode()))
            files.append((f"{key}.png", _square(i % 4, shard * 40 + i)))
        _write_tar(folder / f"{shard:05d}.tar", files)
    return folder


@pytest.fixture(scope="session")
def tiny_recipe():
    """Return a maker of recipes small enough for a test."""

    def make(purpose="pretrain", **changes):
        recipe = (PRETRAINING if purpose == "pretrain" else FINETUNING)["demo"]
        small = {
            "image_size": 16, "model_args": TINY, "epochs": 2, "batch_size": 16,
            "warmup_epochs": 0, "learning_rate": 5e-3, "crop_scale": (0.9, 1.0),
        }  # fmt: skip
        return replace(recipe, **{**small, **changes})

    return make
