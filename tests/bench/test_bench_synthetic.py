"""Images by formula: one process on one core, against the authors' scripts as they wrote them.

The authors' code is not part of this repository. Name the folders of its checkouts:

    FDSL_VISUALATOM   github.com/masora1030/CVPR2023-FDSL-on-VisualAtom
    FDSL_RCDB         github.com/masora1030/CVPR2022-Pretrained-ViT-PyTorch
    FDSL_PYTHON       a Python 3.11 with the packages noise and pillow (default: this one)

Both sides are processes of their own. A rate is that of many images less that of few, so that
neither side's start is counted: sets have millions of images.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPTS = {
    "visualatom": ("FDSL_VISUALATOM", "visual_atomic_renderer/render_VisualAtom.py"),
    "rcdb": ("FDSL_RCDB", "rcdb_render/make_rcdb.py"),
}
PARAMETERS = {
    "visualatom": [
        "--vertex_num_min=200", "--vertex_num_max=1000", "--perlin_min=0", "--line_num_min=1",
        "--line_num_max=200", "--line_width=0.1", "--radius_min=10", "--oval_rate=2",
        "--start_pos=512", "--nami_1_min=0", "--nami_2_min=0", "--nami_1_max=20",
        "--nami_2_max=20",
    ],
    "rcdb": [
        "--vertex_num=200", "--perlin_min=0", "--line_width=0.1", "--radius_min=0",
        "--oval_rate=2", "--start_pos=400",
    ],
}  # fmt: skip
THEIRS = {"visualatom": (4, 84), "rcdb": (20, 220)}
OURS = {"visualatom": (500, 4500), "rcdb": (500, 6500)}


def script_of(kind):
    variable, name = SCRIPTS[kind]
    root = os.environ.get(variable)
    if not root:
        pytest.skip(f"{variable} is not set: it names the checkout of the authors' code")
    path = Path(root) / name
    if not path.is_file():
        pytest.skip(f"{variable}: no {path}")
    return path


@pytest.fixture(autouse=True)
def one_core():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    yield
    os.sched_setaffinity(0, before)


def theirs(kind, out, count):
    command = [
        os.environ.get("FDSL_PYTHON", sys.executable), "-W", "ignore", script_of(kind),
        f"--save_root={out}", "--numof_thread=1", "--thread_num=0",
        f"--numof_classes={count}", "--numof_instances=1", *PARAMETERS[kind],
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def ours(kind, out, count, *options, workers=1):
    command = [
        sys.executable, "-m", "datacomp.curate.cli", "-q", "synth", kind, out, "--classes",
        str(count), "--instances", "1", "--workers", str(workers), *options,
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def pixels(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            Image.open(path).convert("RGB").tobytes()
        ).hexdigest()
        for path in folder.rglob("*.png")
    }


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("kind", SCRIPTS)
def test_against_the_authors(kind, mode, tmp_path, capsys, steady_rate):
    script_of(kind)
    if mode == "exact":
        few = THEIRS[kind][0]
        theirs(kind, tmp_path / "first", few)
        ours(kind, tmp_path / "few", few, "--mode", mode, "--format", "folder")
        assert pixels(tmp_path / "few") == pixels(tmp_path / "first")
    pairs = []
    for n in range(3):
        mine = steady_rate(
            lambda count, n=n: ours(kind, tmp_path / f"ours{n}-{count}", count, "--mode", mode),
            *OURS[kind],
        )
        other = steady_rate(
            lambda count, n=n: theirs(kind, tmp_path / f"theirs{n}-{count}", count), *THEIRS[kind]
        )
        pairs.append((mine, other))
    ratios = sorted(mine / other for mine, other in pairs)
    mine, other = np.median(pairs, axis=0)
    with capsys.disabled():
        print(
            f"\n{kind} {mode}, 512 px, into shards: ours {mine:.0f} images/s, authors "
            f"{other:.1f}, ratio {ratios[1]:.0f} ({ratios[0]:.0f} to {ratios[2]:.0f})"
        )


def test_two_workers_against_one(tmp_path, capsys, steady_rate):
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor")
    ours("visualatom", tmp_path / "warm", 20, workers=1)  # kernels are compiled the first time
    rates = {
        workers: steady_rate(
            lambda count, workers=workers: ours(
                "visualatom", tmp_path / f"{workers}-{count}", count, workers=workers
            ),
            2000,
            12000,
        )
        for workers in (1, 2)
    }
    with capsys.disabled():
        print(
            f"\nvisualatom fast: 1 worker {rates[1]:.0f} images/s, 2 workers {rates[2]:.0f}, "
            f"ratio {rates[2] / rates[1]:.2f}"
        )
