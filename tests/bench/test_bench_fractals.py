"""FractalDB and ExFractalDB on one core, against the authors' scripts as they wrote them.

The authors' code is not part of this repository. Name the folders of its checkouts:

    FDSL_FRACTALDB   github.com/hirokatsukataoka16/FractalDB-Pretrained-ResNet-PyTorch
    FDSL_RCDB        github.com/masora1030/CVPR2022-Pretrained-ViT-PyTorch (with ExFractalDB)

Images are counted in files. Ours are processes, and a rate is that of many images less that of few,
so that their start is not counted; the authors' start is a fiftieth of their time. ExFractalDB's
renderer needs OpenGL; of the authors' code only the models are made here, so that what is printed
for it is a ceiling.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from datacomp.pools.synthetic.exfractaldb import ExFractalDB
from datacomp.pools.synthetic.fractaldb import FractalDB

# numpy has no str any more, and open3d does nothing but write what is computed without it.
SHIM = """
import pathlib, runpy, sys, types
import numpy
numpy.str = str
stand_in = types.ModuleType("open3d")
stand_in.geometry = types.SimpleNamespace(PointCloud=types.SimpleNamespace)
stand_in.utility = types.SimpleNamespace(Vector3dVector=lambda points: points)
stand_in.io = types.SimpleNamespace(write_point_cloud=lambda path, cloud: None)
sys.modules["open3d"] = stand_in
sys.argv = sys.argv[1:]
sys.path.insert(0, str(pathlib.Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def script_of(variable, name):
    root = os.environ.get(variable)
    if not root:
        pytest.skip(f"{variable} is not set: it names the checkout of the authors' code")
    path = (Path(root) / name).resolve()
    if not path.is_file():
        pytest.skip(f"{variable}: no {path}")
    return path


@pytest.fixture(autouse=True)
def one_core():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    yield
    os.sched_setaffinity(0, before)


def theirs(script, folder, *arguments):
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SHIM, script, *arguments],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def rate(count, work):
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def class_csv(generator, folder):
    """Write the CSV of a class for the authors' script."""
    record = next(generator.find(generator.groups()[0]))
    [(name, data)] = generator.class_files(record).items()
    folder.mkdir()
    (folder / Path(name).name).write_bytes(data)


def ours(kind, out, classes):
    command = [
        sys.executable, "-m", "datacomp.curate.cli", "-q", "synth", kind, out, "--classes",
        str(classes), "--instances", "1000", "--workers", "1",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def compare(said, mine, authors, capsys):
    """Print the rates of three pairs; ``authors`` is (files, how they are made)."""
    pairs = [(mine(n), rate(*authors)) for n in range(3)]
    ratios = sorted(one / other for one, other in pairs)
    one, other = np.median(pairs, axis=0)
    with capsys.disabled():
        print(
            f"\n{said}: ours {one:.0f}/s, authors {other:.2f}/s, ratio {ratios[1]:.0f} "
            f"({ratios[0]:.0f} to {ratios[2]:.0f})"
        )


@pytest.fixture
def our_rate(tmp_path, steady_rate):
    """Return how many images of a kind are made in a second, in classes of 1,000."""

    def our_rate(kind, number):
        return 1000 * steady_rate(
            lambda count: ours(kind, tmp_path / f"ours{number}-{count}", count), 2, 22
        )

    return our_rate


def test_fractaldb_against_the_authors(tmp_path, capsys, our_rate):
    script = script_of("FDSL_FRACTALDB", "fractal_renderer/make_fractaldb.py")
    class_csv(FractalDB(classes=1), tmp_path / "csv")
    (tmp_path / "weights.csv").write_text("1,1,1,1,1,1\n0.6,1,1,1,1,1\n")

    def authors():
        theirs(
            script, tmp_path, "--load_root=csv", "--save_root=theirs", "--weight_csv=weights.csv",
            "--image_size_x=362", "--image_size_y=362", "--iteration=200000",
            "--draw_type=patch_gray", "--instance=1",
        )  # fmt: skip

    said = "fractaldb patch_gray, 362 px, 200,000 points, files into shards"
    compare(said, lambda n: our_rate("fractaldb", n), (8, authors), capsys)


def test_exfractaldb_against_the_authors_models(tmp_path, capsys, our_rate):
    name = "exfractaldb_render/3dfractal_render/instance.py"
    script = script_of("FDSL_RCDB", name)
    class_csv(ExFractalDB(classes=1), tmp_path / "csv")

    def authors():
        theirs(
            script, script.parent.parent, "--classes=1", f"--load_root={tmp_path / 'csv'}",
            f"--save_root={tmp_path / 'theirs'}",
        )  # fmt: skip

    said = "exfractaldb, 224 px, 10,000 points, views into shards (the authors' not even drawn)"
    compare(said, lambda n: our_rate("exfractaldb", n), (145 * 12, authors), capsys)
