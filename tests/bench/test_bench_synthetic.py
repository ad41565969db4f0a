"""Images by formula: one process on one core, against the authors' scripts as they wrote them.

The authors' code is not part of this repository. Name the folders of its checkouts:

    FDSL_VISUALATOM   github.com/masora1030/CVPR2023-FDSL-on-VisualAtom
    FDSL_RCDB         github.com/masora1030/CVPR2022-Pretrained-ViT-PyTorch
    FDSL_PYTHON       a Python 3.11 with the packages noise and pillow (default: this one)

Both sides count everything from the start of the process to the last file, except that ours is
given what it compiles once per installation; images per second are printed besides the ratio.
"""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from datacomp.pools.synthetic import generator_class
from datacomp.pools.synthetic.build import Plan, build
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
FEW = {"visualatom": 24, "rcdb": 100}
MANY = {"visualatom": 400, "rcdb": 1000}


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


def theirs(kind, out):
    command = [
        os.environ.get("FDSL_PYTHON", sys.executable), "-W", "ignore", script_of(kind),
        f"--save_root={out}", "--numof_thread=1", "--thread_num=0",
        f"--numof_classes={FEW[kind]}", "--numof_instances=1", *PARAMETERS[kind],
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def pixels(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            Image.open(path).convert("RGB").tobytes()
        ).hexdigest()
        for path in folder.rglob("*.png")
    }


def rate(count, work):
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("kind", SCRIPTS)
def test_against_the_authors(kind, mode, tmp_path, capsys):
    script_of(kind)
    make = generator_class(kind)
    build(Plan(make(classes=4, instances=1, mode=mode), tmp_path / "warm"), 1)
    theirs(kind, tmp_path / "first")
    if mode == "exact":
        few = Plan(make(classes=FEW[kind], instances=1, mode=mode), tmp_path / "few", "folder")
        build(few, 1)
        assert pixels(few.out) == pixels(tmp_path / "first")
    pairs = []
    for number in range(3):
        plan = Plan(make(classes=MANY[kind], instances=1, mode=mode), tmp_path / f"ours{number}")
        mine = rate(MANY[kind], lambda plan=plan: build(plan, 1))
        out = tmp_path / f"theirs{number}"
        other = rate(FEW[kind], lambda out=out: theirs(kind, out))
        pairs.append((mine, other))
    ratios = sorted(mine / other for mine, other in pairs)
    mine, other = np.median(pairs, axis=0)
    with capsys.disabled():
        print(
            f"\n{kind} {mode}, 512 px, into shards: ours {mine:.0f} images/s, authors "
            f"{other:.1f}, ratio {ratios[1]:.0f} ({ratios[0]:.0f} to {ratios[2]:.0f})"
        )


def test_two_workers_against_one(tmp_path, capsys):
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor")
    rates = {}
    for workers in (1, 2):
        # The difference of a long run and a short one: starting processes is not drawing.
        times = []
        for images in (2000, 8000):
            plan = Plan(
                generator_class("visualatom")(classes=1000, instances=images // 1000),
                tmp_path / f"{workers}-{images}",
            )
            started = time.perf_counter()
            build(plan, workers)
            times.append(time.perf_counter() - started)
        rates[workers] = 6000 / (times[1] - times[0])
    with capsys.disabled():
        print(
            f"\nvisualatom fast: 1 worker {rates[1]:.0f} images/s, 2 workers {rates[2]:.0f}, "
            f"ratio {rates[2] / rates[1]:.2f}"
        )
