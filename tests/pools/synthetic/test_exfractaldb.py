"""ExFractalDB: the authors' models bit for bit, any image by itself.

The digest is of the points that the authors' code makes,
github.com/masora1030/CVPR2022-Pretrained-ViT-PyTorch, in exfractaldb_render:

    python 3dfractal_render/category_search.py --seed 1 --numof_classes 1 --variance 0.05
    python 3dfractal_render/instance.py --load_root CSVS --save_root PLYS --classes 1

with ``np.random.seed(0)`` before the second, ``np.str`` replaced by ``str``, and in place of
open3d a module that hands on the arrays: the SHA-256 of the 145 models' points, each as
float64 of shape (3, 9999).
"""

import hashlib
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from datacomp.errors import DataError, MissingError, UsageError
from datacomp.pools.synthetic import ifs
from datacomp.pools.synthetic.exfractaldb import ExFractalDB
from datacomp.pools.synthetic.ifs_csv import read_system
from datacomp.pools.synthetic.ifs_generator import multiplied
from datacomp.pools.synthetic.ifs_weights import space_rows

CLASS = (
    "-1.738005737786900706e-01,-4.176275330726331170e-01,2.945339619093840788e-01,"
    "-5.563824266375569927e-01,2.205972948765817510e-01,-4.995551884372035900e-01,"
    "-6.574387207615428608e-02,-1.253255485345452502e-01,-6.362942248378753440e-01,"
    "8.787576705010087252e-01,2.937712666058296396e-01,1.283769223300503803e-01,"
    "8.020821847255357184e-01\n"
    "6.945435442847200935e-01,3.433143102039550865e-01,-4.631666007004142660e-01,"
    "3.897348114930543339e-02,8.941517174681745672e-02,4.997200738984461932e-01,"
    "-8.167478715682687795e-01,-3.993282484007281141e-01,-4.060491715904805954e-01,"
    "-2.793111762405733334e-01,9.921099903433134859e-01,3.770274750314261958e-02,"
    "1.979178152744643371e-01\n"
)
MODELS = "e3b5e2576a6759c87f7c3355d346c7ce88eb5c633850c171d0bd5da0d6b7cd42"
SMALL = {"size": 64, "points": 1000, "variance": 0.02}


def records(generator):
    return [record for group in generator.groups() for record in generator.find(group)]


def images(generator, record, first=0, last=None):
    last = generator.instances if last is None else last
    return [
        (one.instance, one.pixels.copy(), one.parameters)
        for one in generator.pictures(record, first, last)
    ]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "000000.csv").write_text(CLASS)
    return tmp_path


def test_models_are_the_authors_bit_for_bit(folder):
    system = np.array(read_system(folder / "000000.csv", 12))
    numbers = np.random.RandomState(0)
    points, chosen = np.empty((3, 9999)), np.empty(9999, np.uint8)
    total = hashlib.sha256()
    for row in space_rows(145):
        chances = numbers.random_sample(10_000)
        ifs.play_space(multiplied(system, row), chances[:-1], chosen, points)
        assert ifs.normalize(points) < ifs.BOUND
        total.update(points.tobytes())
    assert total.hexdigest() == MODELS


def test_a_class_is_the_same_however_the_search_is_cut():
    whole = records(ExFractalDB(classes=4, **SMALL))
    assert all(one.parameters["variance"] > 0.02 for one in whole)
    assert records(ExFractalDB(classes=2, start_class=2, **SMALL)) == whole[2:]
    assert records(ExFractalDB(classes=1, seed=1, **SMALL)) != whole[:1]


def test_classes_vary_along_every_axis():
    [one] = records(ExFractalDB(classes=1))
    assert one.parameters["variance"] > 0.05
    system = np.array(one.parameters["coefficients"]).reshape(one.parameters["maps"], 13)
    assert 2 <= len(system) <= 7
    assert np.abs(system[:, :12]).max() <= 1
    sizes = np.abs(np.linalg.det(system[:, :9].reshape(-1, 3, 3)))
    assert system[:, 12] == pytest.approx(sizes / sizes.sum())


@pytest.mark.parametrize("viewpoints", ["random", "equator"])
def test_an_image_is_the_same_however_a_class_is_cut(viewpoints):
    generator = ExFractalDB(classes=2, instances=60, viewpoints=viewpoints, **SMALL)
    record = records(generator)[1]
    whole = images(generator, record)
    for first, last in [(0, 1), (11, 14), (59, 60)]:
        for (n, pixels, values), there in zip(
            images(generator, record, first, last), whole[first:last], strict=True
        ):
            assert (n, values) == (there[0], there[2])
            assert (pixels == there[1]).all()
    assert (generator.picture(1, 37).pixels == whole[37][1]).all()
    assert len({pixels.tobytes() for _, pixels, _ in whole}) == 60
    assert all(set(np.unique(pixels)) == {0, 255} for _, pixels, _ in whole)


def test_all_models_are_seen_from_all_sides():
    generator = ExFractalDB(classes=1, instances=1740, **SMALL)
    record = records(generator)[0]
    names = {generator.file_name(record, n) for n in range(1740)}
    assert names == {
        f"images/000000/000000_{model:05d}_{view:03d}.png"
        for model in range(145)
        for view in range(12)
    }
    assert generator.file_name(record, 0) == "images/000000/000000_00006_000.png"
    assert generator.block == 12


def test_random_views_never_end():
    generator = ExFractalDB(classes=1, instances=30, models=1, **SMALL)
    found = images(generator, records(generator)[0])
    assert [values["view"] for _, _, values in found] == list(range(30))
    assert len({pixels.tobytes() for _, pixels, _ in found}) == 30


def test_views_from_the_equator_are_evenly_spaced_but_for_the_jitter(folder):
    """Three points in place of a fractal: where they are seen tells where from."""
    generator = ExFractalDB(classes=1, viewpoints="equator", instances=12, **SMALL)
    steps = []
    for view in range(12):
        rotation = generator._rotation(0, 6, view)
        assert rotation[:, 1].tolist() == [0, 1, 0]
        assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-11)
        turn = math.degrees(math.atan2(-rotation[2, 0], rotation[0, 0]))
        steps.append((turn - 30 - 30 * view + 180) % 360 - 180)
    assert max(map(abs, steps)) <= math.pi
    assert max(steps) > 0.5
    assert min(steps) < -0.5
    still = ExFractalDB(classes=1, viewpoints="equator", instances=12, jitter=0.0, **SMALL)
    assert still._rotation(0, 6, 0)[:, 0] == pytest.approx([3**0.5 / 2, 0, -0.5])


def test_given_classes_are_drawn_and_written_as_they_are(folder):
    generator = ExFractalDB(classes=1, instances=12, parameters=str(folder))
    [record] = records(generator)
    assert record.parameters["maps"] == 2
    assert record.parameters["variance"] > 0.05
    assert generator.class_files(record) == {"3DIFS_params/000000.csv": CLASS.encode()}
    assert generator.caption(record) == "a fractal of 2 affine maps of space"
    shares = [(pixels > 0).mean() for _, pixels, _ in images(generator, record)]
    assert 0.003 < min(shares) <= max(shares) < 0.02


def test_sweeps_multiply_one_parameter_of_all_maps(folder):
    generator = ExFractalDB(classes=1, instances=1, parameters=str(folder), size=64)
    [record] = records(generator)
    assert len(generator.sweeps()) == 12
    system = generator.system(record)
    for parameter, name in enumerate(generator.sweeps()):
        swept = replace(record, parameters=record.parameters | {name: 1.6})
        wanted = system.copy()
        wanted[:, parameter] *= 1.6
        assert generator.system(swept).tolist() == wanted.tolist()
        assert images(generator, swept)[0][1].any()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"classes": 0}, "exfractaldb: classes is 0, expected 1 to 10,000,000"),
        ({"models": 12}, "exfractaldb: models is 12, expected 1, 25, 49, 73, 97, 121, 145, 169,"),
        ({"models": 241}, "exfractaldb: models is 241, expected 1, 25, 49"),
        ({"maps_min": 5, "maps_max": 3}, "exfractaldb: maps_min is 5, more than maps_max 3"),
        (
            {"viewpoints": "equator", "models": 25},
            "exfractaldb: 25 models from 12 sides are 300 images, not 1,000; raise views or lower",
        ),
        ({"mode": "exact"}, "exfractaldb: there is no mode 'exact'; use 'fast'"),
        ({"distance": 0.5}, "exfractaldb: distance is 0.5, expected 1 to 50"),
    ],
)
def test_options_that_cannot_be(options, said):
    with pytest.raises(UsageError, match=f"^{re.escape(said)}"):
        ExFractalDB(**options)


def test_a_variance_that_no_system_reaches_ends_the_search(monkeypatch):
    monkeypatch.setattr("datacomp.pools.synthetic.exfractaldb._TRIES", 50)
    with pytest.raises(
        DataError,
        match=r"^exfractaldb: none of 50 systems varies by 0\.9 along every axis \(class 0\); ",
    ):
        records(ExFractalDB(classes=1, variance=0.9))


def test_maps_that_diverge_are_refused_by_file(folder):
    row = "3,0,0,0,3,0,0,0,3,1,1,1"
    (folder / "000001.csv").write_text(f"{row},0.5\n{row},0.5\n")
    said = f"{folder / '000001.csv'}: the maps diverge; take maps that bring points closer"
    with pytest.raises(DataError, match=f"^{re.escape(said)}"):
        records(ExFractalDB(classes=2, parameters=str(folder)))


def test_a_class_of_the_plane_is_refused(folder):
    (folder / "000000.csv").write_text("0.5,0,0,0.5,0,0,1\n")
    with pytest.raises(DataError, match=r"000000\.csv: line 1: expected 13 numbers, found 7$"):
        records(ExFractalDB(classes=1, parameters=str(folder)))


def test_a_class_without_a_file_is_named(folder):
    with pytest.raises(MissingError, match=r"there is no 000001\.csv; the set has classes 0 to 1$"):
        records(ExFractalDB(classes=2, parameters=str(folder)))
