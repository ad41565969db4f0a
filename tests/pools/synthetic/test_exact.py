"""Exact mode against images made with the authors' own code.

authors.json holds the SHA-256 of the RGB pixels of each image that these commands made, with
CPython 3.11, Pillow 13.0 and noise 1.2.2, once per thread t of ``threads``:

    python render_VisualAtom.py --save_root=OUT --numof_thread=PROCESSES --thread_num=t ARGUMENTS
    python make_rcdb.py         --save_root=OUT --numof_thread=PROCESSES --thread_num=t ARGUMENTS

(masora1030/CVPR2023-FDSL-on-VisualAtom and masora1030/CVPR2022-Pretrained-ViT-PyTorch, as they
are; 5 classes over 2 processes are 4, since their script rounds down.)
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from datacomp.pools.synthetic import generator_class

AUTHORS = json.loads(Path(__file__).with_name("authors.json").read_text())

_SMALL = {"noise_min": 1.0, "drift": 0.5, "radius_min": 3, "oval": 3.0, "offset": 31}
SETS = {
    "va_best": ("visualatom", {"classes": 12, "instances": 1}),
    "va_split": ("visualatom", {"classes": 6, "instances": 3}),
    "va_published": ("visualatom", {"classes": 40, "instances": 2}),
    "va_argparse": (
        "visualatom",
        {"classes": 4, "instances": 2, "noise_min": 2.0, "drift": 0.01, "radius_min": 0},
    ),
    "va_small": (
        "visualatom",
        {"classes": 4, "instances": 2, "start_class": 7, "size": 97, "vertices_min": 3,
         "vertices_max": 9, "orbits_min": 2, "orbits_max": 5, "frequency1_max": 2,
         "frequency2_max": 2, **_SMALL},
    ),
    "rcdb_best": ("rcdb", {"classes": 12, "instances": 1}),
    "rcdb_split": ("rcdb", {"classes": 6, "instances": 4}),
    "rcdb_published": ("rcdb", {"classes": 80, "instances": 2}),
    "rcdb_small": (
        "rcdb",
        {"classes": 4, "instances": 3, "size": 96, "vertices_max": 12, "orbits_min": 2,
         "orbits_max": 201, **_SMALL},
    ),
}  # fmt: skip


def exact(name):
    kind, options = SETS[name]
    return generator_class(kind)(mode="exact", processes=AUTHORS[name]["processes"], **options)


def sha256(pixels):
    return hashlib.sha256(np.repeat(pixels[:, :, None], 3, axis=2).tobytes()).hexdigest()


@pytest.mark.parametrize("name", SETS)
def test_pixels_and_file_names_are_the_authors(name):
    generator, authors = exact(name), AUTHORS[name]
    found = {
        generator.file_name(record, picture.instance): sha256(picture.pixels)
        for thread in authors["threads"]
        for record in generator.find(generator.groups()[thread])
        for picture in generator.pictures(record, 0, generator.instances)
    }
    assert found == authors["sha256"]
    assert len(found) >= 8


@pytest.mark.parametrize("name", ["rcdb_best", "rcdb_split", "rcdb_published", "rcdb_small"])
def test_parameter_files_are_the_authors(name):
    generator, authors = exact(name), AUTHORS[name]
    record = next(generator.find(generator.groups()[0]))
    ((file, text),) = authors["csv"].items()
    written = generator.class_files(record)
    assert list(written) == [file]
    # Python's csv module ends lines with \r\n; the text was recorded with \n.
    assert written[file] == text.replace("\n", "\r\n").encode()


@pytest.mark.parametrize("name", ["va_split", "rcdb_split"])
def test_any_image_by_itself(name):
    generator, authors = exact(name), AUTHORS[name]
    last = generator.instances - 1
    picture = generator.picture(5, last)
    names = sorted(key for key in authors["sha256"] if "00005/" in key)
    assert sha256(picture.pixels) == authors["sha256"][names[last]]


def test_states_are_kept_within_a_class(monkeypatch):
    from datacomp.pools.synthetic import contour

    assert exact("va_split").block == 1
    monkeypatch.setattr(contour, "_CHECKPOINTS", 12)  # two for each of six classes
    generator = exact("va_split")
    assert generator.block == 2
    authors = AUTHORS["va_split"]["sha256"]
    record = list(generator.find(generator.groups()[1]))[1]
    assert len(record.state) == 2 * (2500 + 16)
    for first in range(3):  # the second is reached from the first's state
        (picture,) = generator.pictures(record, first, first + 1)
        assert sha256(picture.pixels) == authors[generator.file_name(record, first)]


def test_seed_is_added_to_the_processes():
    one = generator_class("visualatom")(mode="exact", classes=2, processes=2, instances=1)
    other = generator_class("visualatom")(mode="exact", classes=1, instances=1, seed=1)
    assert np.array_equal(one.picture(1, 0).pixels, other.picture(0, 0).pixels)
