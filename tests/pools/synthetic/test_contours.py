"""Fast mode of VisualAtom and RCDB: the same distributions, any image by itself."""

import hashlib
import math

import numpy as np
import pytest
from datacomp.pools.synthetic.build import ink
from datacomp.pools.synthetic.contour_kernels import turn
from datacomp.pools.synthetic.rcdb import RCDB
from datacomp.pools.synthetic.visualatom import VisualAtom
from hypothesis import given, settings
from hypothesis import strategies as st


def records(generator):
    return [record for group in generator.groups() for record in generator.find(group)]


def digest(pixels):
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("kind", [VisualAtom, RCDB])
def test_an_image_depends_on_seed_class_and_instance_alone(kind):
    wide = kind(classes=30, instances=9, size=64, seed=3)
    narrow = kind(classes=1, instances=1000, size=64, seed=3, start_class=17)
    record = records(wide)[17]
    assert records(narrow) == [record]
    run = [picture.pixels.copy() for picture in wide.pictures(record, 2, 6)]
    for number, pixels in enumerate(run, 2):
        (alone,) = narrow.pictures(record, number, number + 1)
        assert np.array_equal(alone.pixels, pixels)
        assert np.array_equal(wide.picture(17, number).pixels, pixels)
    assert len({digest(pixels) for pixels in run}) > 1
    other = kind(classes=30, instances=9, size=64, seed=4)
    assert records(other)[17].parameters != record.parameters


@pytest.mark.parametrize(
    ("kind", "found"), [(VisualAtom, "ATOM"), (RCDB, "RCDB")], ids=["visualatom", "rcdb"]
)
def test_pixels_never_change(kind, found):
    generator = kind(classes=4, instances=2, size=128, seed=1)
    drawn = [digest(one.pixels) for record in records(generator)
             for one in generator.pictures(record, 0, 2)]  # fmt: skip
    assert drawn == PINNED[found]


def test_parameters_have_the_authors_distributions():
    fast = records(VisualAtom(classes=4000, instances=1))
    exact = records(
        VisualAtom(classes=4000, instances=1, mode="exact", vertices_max=201, orbits_max=2)
    )
    for name in fast[0].parameters:
        one, other = (
            np.sort([record.parameters[name] for record in found]) for found in (fast, exact)
        )
        if name in ("vertices", "orbits"):  # fewer in exact mode, to pass over them quickly
            low, high = (200, 1000) if name == "vertices" else (1, 200)
            assert (one[0], one[-1]) == (low, high)
            assert abs(one.mean() - (low + high) / 2) < (high - low) / 100
            continue
        grid = np.union1d(one, other)
        gap = np.searchsorted(one, grid, "right") - np.searchsorted(other, grid, "right")
        assert np.abs(gap).max() / 4000 < 0.036, name  # Kolmogorov and Smirnov, p about 0.01
    waves = {(one.parameters["frequency1"], one.parameters["frequency2"]) for one in fast}
    assert (0, 0) in waves
    assert not any(first == second != 0 for first, second in waves)


def test_rcdb_has_the_authors_distributions():
    fast = records(RCDB(classes=4000, instances=1))
    vertices = np.array([record.parameters["vertices"] for record in fast])
    weights = np.exp(-np.arange(3, 201) / 100)
    assert (vertices.min(), vertices.max()) == (3, 200)
    expected = (np.arange(3, 201) * weights).sum() / weights.sum()
    assert abs(vertices.mean() - expected) < 3
    places = [RCDB(classes=1, instances=1).first_values(record) for record in fast]
    assert {one["radius"] for one in places} == set(range(101))
    assert {2 * one["x"] for one in places} <= set(range(112, 913))


@pytest.mark.parametrize("kind", [VisualAtom, RCDB])
def test_both_modes_draw_alike(kind):
    fast, exact = (kind(classes=300, instances=1, mode=mode) for mode in ("fast", "exact"))
    share = {}
    for generator in (fast, exact):
        share[generator.mode] = [
            ink(picture)
            for record in records(generator)
            for picture in generator.pictures(record, 0, 1)
        ]
    grid = np.linspace(0, 1, 201)
    gap = [np.searchsorted(np.sort(share[mode]), grid) for mode in ("fast", "exact")]
    assert np.abs(gap[0] - gap[1]).max() / 300 < 0.14  # Kolmogorov and Smirnov, p about 0.005
    blank = np.mean(np.array(share["fast"]) < 0.01)
    assert 0.005 < blank < 0.12


def test_a_smaller_image_shows_the_whole_canvas():
    large, small = (VisualAtom(classes=40, instances=1, size=size) for size in (512, 128))
    shares = []
    for one in records(large):
        (fine,), (coarse,) = large.pictures(one, 0, 1), small.pictures(one, 0, 1)
        blocks = (fine.pixels > 0).reshape(128, 4, 128, 4).any(axis=(1, 3))
        drawn = coarse.pixels > 0
        if drawn.sum() > 50:
            shares.append((blocks & drawn).sum() / drawn.sum())
    assert len(shares) > 30
    assert min(shares) > 0.8


@settings(deadline=None, max_examples=40)
@given(st.integers(3, 3000))
def test_cosine_and_sine_to_the_last_digits(q):
    cosine, sine = np.array([turn(step, q) for step in range(q)]).T
    turns = 2 * np.pi * np.arange(q) / q
    assert np.abs(cosine - np.cos(turns)).max() < 3e-15
    assert np.abs(sine - np.sin(turns)).max() < 3e-15
    assert (cosine[0], sine[0]) == (1.0, 0.0)
    if q % 4 == 0:
        assert (cosine[q // 4], sine[q // 4]) == (0.0, 1.0)
    assert math.isclose((cosine**2 + sine**2).max(), 1)


def test_captions_and_names():
    atom, contour = VisualAtom(), RCDB()
    record = records(VisualAtom(classes=1))[0]
    assert atom.caption(record) == (
        "a visual atom of 184 orbits with 978 vertices, waves of frequency 8 and 17"
    )
    assert atom.file_name(record, 3) == "00000/vertex_0978_instance_0003.png"
    one = records(RCDB(classes=1, orbits_max=1, vertices_max=3))[0]
    assert contour.caption(one) == "a radial contour of one polygon with 3 vertices"
    assert contour.file_name(one, 12) == "image/00000/00000_0012.png"


def test_sweeps_can_be_drawn():
    for kind in (VisualAtom, RCDB):
        generator = kind(classes=1, instances=1, size=64)
        (record,) = records(generator)
        for name, values in generator.sweeps().items():
            assert len(values) >= 2
            for value in values:
                changed = type(record)(0, {**record.parameters, name: value}, record.state)
                (picture,) = generator.pictures(changed, 0, 1)
                assert picture.pixels.shape == (64, 64)


PINNED = {
    "ATOM": [
        "d08c5b1df1366629",
        "1144616c05d1b033",
        "1de354fcec61904c",
        "958833098e64ddfc",
        "1b013e113a1df76f",
        "f62e7c1a3a18d050",
        "2898ca283417d6ef",
        "284391c57fb2934d",
    ],
    "RCDB": [
        "016724447b43398e",
        "e06ba28277b09a7f",
        "e9316b3fcea7e503",
        "48c6cbeb172bc58c",
        "4992574520aa6fb8",
        "8927917925d89543",
        "78c6e33512128e89",
        "a4f1f2e983cf182d",
    ],
}
