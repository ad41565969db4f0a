"""Embedding a pool against the bare forward pass; merged tokens against all of them.

Weights are random: they cost what others cost. DATACOMP_BENCH_IMAGES says how many images there
are, DATACOMP_BENCH_DEVICE where they are embedded, DATACOMP_BENCH_BATCH in batches of how many.
"""

import io
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from datacomp.pools import Pool, tar
from datacomp.pools.clip_model import ModelSpec
from datacomp.pools.embedding.embed import embed_pool
from datacomp.pools.embedding.merging import merge_tokens
from datacomp.pools.embedding.recipe import Recipe
from datacomp.pools.sources import open_source
from PIL import Image

IMAGES = int(os.environ.get("DATACOMP_BENCH_IMAGES", "128"))
DEVICE = os.environ.get("DATACOMP_BENCH_DEVICE", "cpu")
BATCH = int(os.environ.get("DATACOMP_BENCH_BATCH", "32"))


def photo(number):
    """A JPEG of 512 x 384 pixels that compresses as photographs do."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
    pixels = np.asarray(coarse.resize((512, 384), Image.Resampling.BICUBIC), np.int16)
    pixels = np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def photos():
    return [photo(number) for number in range(IMAGES)]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("b32"), "ViT-B-32")


def random_model(folder, name):
    import open_clip

    torch.manual_seed(0)
    torch.save(open_clip.create_model(name).state_dict(), folder / "weights.pt")
    return Recipe(ModelSpec(name, folder / "weights.pt"))


def test_embedding_a_pool(photos, recipe, tmp_path, paired):
    with (tmp_path / "0.tar").open("wb") as file:
        writer = tar.TarWriter(file)
        for number, data in enumerate(photos):
            writer.add(f"{number:06d}.jpg", data)
            writer.add(f"{number:06d}.txt", f"a photograph of number {number} in colour".encode())
        writer.close()
    start = tmp_path / "start.duckdb"
    with Pool.create(start) as pool:
        pool.add(open_source("webdataset", tmp_path / "0.tar", verify=False))
    prepare = recipe.load(DEVICE).prepare
    tensors = [prepare(data) for data in photos]
    texts = [f"a photograph of number {number} in colour" for number in range(IMAGES)]

    def ours():
        shutil.copy(start, tmp_path / "pool.duckdb")
        shutil.rmtree(tmp_path / "pool.duckdb.features", ignore_errors=True)
        with Pool.open(tmp_path / "pool.duckdb") as pool:
            return embed_pool(pool, recipe, device=DEVICE, batch_size=BATCH).embedded

    def bare():
        clip = recipe.load(DEVICE)
        done = 0
        for first in range(0, IMAGES, BATCH):
            done += len(clip.encode_tensors(tensors[first : first + BATCH]))
            clip.encode_texts(texts[first : first + BATCH], BATCH)
        return done

    assert ours() == bare() == IMAGES
    paired(
        f"embed {IMAGES} images and captions with ViT-B-32, its loading included", ours, bare,
        against="the forward pass of prepared images", rounds=3,
    )  # fmt: skip


def test_merging_tokens(photos, tmp_path, paired):
    clip = random_model(tmp_path, "ViT-B-16").load(DEVICE)
    merged = merge_tokens(clip, 13)
    tensors = [clip.prepare(data) for data in photos[:16]]
    paired(
        "see 16 images with ViT-B-16, 13 tokens merged in each layer",
        lambda: merged.encode_tensors(tensors), lambda: clip.encode_tensors(tensors),
        against="all tokens", rounds=3,
    )  # fmt: skip


def test_memory_of_embedding(photos, tiny, tmp_path, capsys):
    """What is held does not grow with the pool: six times the images, hardly more memory."""
    spec = tiny(0)
    body = (
        "from datacomp.curate.cli import main\n"
        "try: main()\n"  # getrusage's peak is at least that of the process that began this one
        "finally: print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
    )
    peaks, held = [], 0
    for count in (200, 1200):
        path = tmp_path / f"{count}.duckdb"
        with (tmp_path / f"{count}.tar").open("wb") as file:
            writer = tar.TarWriter(file)
            for number in range(count):
                writer.add(f"{number:06d}.jpg", photos[number % len(photos)])
                writer.add(f"{number:06d}.txt", f"a photograph of number {number}".encode())
            writer.close()
        with Pool.create(path) as pool:
            pool.add(open_source("webdataset", tmp_path / f"{count}.tar", verify=False))
        options = ["--checkpoint", spec.checkpoint, "--model", spec.model_config,
                   "--device", "cpu", "--batch-size", "32"]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", body, "pool", "embed", path, *options],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(int(done.stdout.splitlines()[-1]) * 1024)
        held = (tmp_path / f"{count}.tar").stat().st_size
    with capsys.disabled():
        few, many = (peak / 1e6 for peak in peaks)
        print(
            f"\nembed 200 images: peak {few:,.0f} MB; 1,200 of {held / 1e6:,.0f} MB: {many:,.0f} MB"
        )
    assert peaks[1] - peaks[0] < held / 3
