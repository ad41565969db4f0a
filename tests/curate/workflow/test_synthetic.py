"""Sets of synthetic images in a study: made or read, filtered by their ink, cut into shards."""

import io
import json

import numpy as np
import pytest
from datacomp.curate.workflow import stages
from datacomp.curate.workflow.config import load_study
from datacomp.evaluate.vision.labelled import open_labelled
from datacomp.pools import tar
from datacomp.pools.synthetic.build import Plan, build
from datacomp.pools.synthetic.exfractaldb import ExFractalDB
from PIL import Image

STUDY = """\
[study]
output = "out"

[[pool.source]]
kind = "visualatom"
path = "atoms"
classes = 60
instances = 2
size = 64

[[pool.source]]
kind = "exfractaldb"
path = "views"

[[pool.source]]
kind = "fractaldb"
path = "fractals"
classes = 1
instances = 20
size = 64
points = 5000
parameters = "systems"

[[dataset]]
name = "inked"
filters = [{ use = "min_ink", share = 0.03 }]

[evaluate]
suite = "demo"
"""


def images(folder):
    """Return the share of pixels drawn on and the class of each image below a folder, by uid."""
    found = {}
    for path in folder.rglob("*.tar"):
        with path.open("rb") as file:
            for sample in tar.samples(path):
                members = {n: tar.read_member(file, m) for n, m in sample.members.items()}
                pixels = np.asarray(Image.open(io.BytesIO(members["png"])).convert("L"))
                ink, label = float((pixels > 0).mean()), int(members["cls"])
                found[json.loads(members["json"])["uid"]] = ink, label
    return found


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "datacomp.toml").write_text(STUDY)
    (folder / "systems").mkdir()
    (folder / "systems/00000.csv").write_text(
        "".join(f"0.5,0,0,0.5,{e},{f},{1 / 3}\n" for e, f in [(0, 0), (0.5, 0), (0.25, 0.5)])
    )
    views = ExFractalDB(classes=2, instances=30, size=64, points=2000, start_class=60)
    build(Plan(views, folder / "views"), 1)
    return load_study(folder / "datacomp.toml")


def test_near_blank_images_of_formulas_never_reach_the_shards(study):
    made = stages.make_pool(study)
    assert (made["samples"], made["set_aside"]) == (200, {})
    drawn = {}
    for name in ("atoms", "views", "fractals"):
        drawn |= images(study.output.parent / name)
    assert len(drawn) == 200
    kept = {uid: found for uid, found in drawn.items() if found[0] >= 0.03}
    assert 100 < len(kept) < 195
    chosen = stages.select(study, "inked")
    assert chosen["size"] == len(kept)
    funnel = json.loads(study.subset_path("inked").with_suffix(".json").read_text())
    assert funnel["funnel"][0]["reasons"] == {"too_little_ink": 200 - len(kept)}
    assert stages.build(study, "inked")["samples"] == len(kept)
    assert images(study.shards_dir("inked")) == kept
    data = open_labelled(study.shards_dir("inked"), None)
    assert data.numbers.tolist() == sorted({label for _, label in kept.values()})
    assert len(data) == len(kept)
