"""Kernels of iterated function systems, against plain Python."""

import math
import random

import numpy as np
import pytest
from datacomp.pools.synthetic import ifs
from hypothesis import given, settings
from hypothesis import strategies as st

POINTS, SIDE = 400, 32

numbers = st.floats(-1, 1, allow_subnormal=False)


@st.composite
def systems(draw, parameters=6):
    maps = draw(st.integers(1, 7))
    rows = [[draw(numbers) for _ in range(parameters)] for _ in range(maps)]
    return np.array([[*row, 1 / maps] for row in rows])


def play(system, chances):
    """Return the points of a game and how many of them hold."""
    xs, ys = np.empty(len(chances)), np.empty(len(chances))
    held = ifs.play(system, chances, np.empty(len(chances), np.uint8), xs, ys)
    return xs, ys, held


def plain_game(system, chances):
    """Play the game as one would write it down."""
    points = [(0.0, 0.0)]
    for chance in chances[:-1]:
        x, y = points[-1]
        total = 0.0
        for a, b, c, d, e, f, p in system.tolist():
            total += p
            if chance <= total:
                x, y = x * a + y * b + e, x * c + y * d + f
                break
        points.append((x, y))
    return points


@settings(max_examples=50, deadline=None)
@given(systems(), st.integers(0, 2**32 - 1))
def test_a_game_is_the_one_in_plain_python_bit_for_bit(system, seed):
    chances = np.random.default_rng(seed).random(POINTS)
    xs, ys, held = play(system, chances)
    assert held == POINTS
    assert list(zip(xs.tolist(), ys.tolist(), strict=True)) == plain_game(system, chances)


def test_a_chance_beyond_the_sum_leaves_the_point():
    system = np.array([[0, 0, 0, 0, 1.0, 2.0, 0.5], [0, 0, 0, 0, 3.0, 4.0, 0.4]])
    xs, ys, _ = play(system, np.array([0.1, 0.95, 0.9, 0.95, 0.0]))
    assert xs.tolist() == [0, 1, 1, 3, 3]
    assert ys.tolist() == [0, 2, 2, 4, 4]


def test_what_is_no_number_is_dropped_with_the_hundred_points_before():
    system = np.array([[30.0, -30.0, 30.0, 30.0, 1.0, 0.0, 1.0]])
    chances = np.full(POINTS, 0.5)
    xs, _, held = play(system, chances)
    first = int(np.isnan(xs).argmax())
    assert first > 100
    assert held == first - ifs.DROPPED
    assert play(system, chances[:first])[2] == first


def test_a_game_lost_within_a_hundred_points_has_none():
    system = np.array([[1e6, -1e6, 1e6, 1e6, 1.0, 0.0, 1.0]])
    _, _, held = play(system, np.full(POINTS, 0.5))
    assert held == 0
    assert ifs.spread(np.zeros(1), np.zeros(1), 0) == math.inf


def test_each_axis_fills_the_image_but_for_the_margin():
    rng = np.random.default_rng(0)
    xs, ys = rng.normal(size=POINTS) * 7 + 1, rng.normal(size=POINTS) * 0.01
    xs[0] = ys[0] = 0.0
    pixels = np.empty(POINTS, np.int32)
    ifs.settle(xs, ys, POINTS, SIDE, 3, pixels)
    rows, columns = np.divmod(pixels, SIDE)
    assert (columns.min(), columns.max()) == (3, SIDE - 3)
    assert (rows.min(), rows.max()) == (3, SIDE - 3)
    room = SIDE - 6
    wanted = ((xs - xs.min()) / (xs - xs.min()).max() * room + 3).astype(np.uint16)
    assert columns.tolist() == wanted.tolist()
    assert ifs.distinct(pixels, POINTS, np.empty(SIDE * SIDE, np.uint8)) == len(set(pixels))


def test_points_in_one_place_are_at_the_corner_as_in_the_authors_images():
    pixels = np.empty(5, np.int32)
    ifs.settle(np.zeros(5), np.zeros(5), 5, SIDE, 3, pixels)
    assert pixels.tolist() == [0] * 5
    ifs.settle(np.array([0, np.inf, 1, 2, 3]), np.zeros(5), 5, SIDE, 3, pixels)
    assert pixels.tolist() == [3, 0, 3, 3, 3]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300))
def test_last_visits_and_cover_are_what_patches_pasted_one_by_one_give(seed, count):
    rng = random.Random(seed)
    side = 12
    pixels = np.array([rng.randrange(side * side) for _ in range(count)], np.int32)
    masks = np.array([rng.randrange(1, 512) for _ in range(count)], np.uint16)
    pasted = np.zeros((side + 4, side + 4), np.uint8)
    for pixel, mask in zip(pixels.tolist(), masks.tolist(), strict=True):
        row, column = pixel // side + 1, pixel % side + 1
        holes = [int(hole) for hole in f"{mask:09b}"]
        pasted[row : row + 3, column : column + 3] = np.array(holes).reshape(3, 3)
    where, when = np.empty(count, np.int32), np.empty(count, np.int32)
    owner = np.empty(side * side, np.int32)
    visited = ifs.last_visits(pixels, count, owner, where, when)
    assert sorted(where[:visited].tolist()) == sorted(set(pixels.tolist()))
    ifs.cover(where, visited, side, owner)
    shown = np.append(masks[when[:visited]], 0).astype(np.uint16)
    image = np.empty(side * side, np.uint8)
    ifs.paint_gray(owner, shown, 1, image)
    assert (image.reshape(side, side) == pasted[:side, :side]).all()


def test_masks_are_any_but_the_empty_one_as_often_as_each_other():
    count = 511 * 200
    masks = np.empty(count + 1, np.uint16)
    ifs.draw_masks(np.uint64(1), np.arange(count, dtype=np.int32), count, masks)
    drawn = np.bincount(masks[:count], minlength=512)
    assert drawn[0] == 0
    assert len(drawn) == 512
    chi_square = ((drawn[1:] - 200) ** 2 / 200).sum()
    assert 400 < chi_square < 640  # 510 degrees of freedom, 4 standard deviations


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**63 - 1))
def test_rotations_are_proper(key):
    rotation = np.empty((3, 3))
    ifs.draw_rotation(np.uint64(key), rotation)
    assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_points_of_view_are_all_over_the_sphere():
    seen = np.empty((3000, 3))
    rotation = np.empty((3, 3))
    for key in range(len(seen)):
        ifs.draw_rotation(np.uint64(key), rotation)
        seen[key] = rotation[:, 0]
    # On a sphere every coordinate is uniform (Archimedes): mean 0, variance 1/3.
    assert seen.mean(axis=0) == pytest.approx(np.zeros(3), abs=0.05)
    assert seen.var(axis=0) == pytest.approx(np.full(3, 1 / 3), abs=0.02)
    assert np.histogram(seen[:, 2], 6, (-1, 1))[0] == pytest.approx(np.full(6, 500), abs=100)


def test_normalized_points_keep_their_shape_about_the_centre():
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(3, 999)) * [[1.0], [2.0], [5.0]] + 4
    points = raw.copy()
    wide = ifs.normalize(points)
    assert wide == pytest.approx(raw.max() - raw.min())
    moved = (raw - raw.min()) / wide * 2 - 1
    # The authors divide by 1,000 where there are 999 points.
    assert points == pytest.approx(moved - moved.sum(axis=1, keepdims=True) / 1000)
    assert ifs.least_variance(points) == pytest.approx(points.var(axis=1).min())


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e7])
def test_points_that_diverge_are_not_normalized(bad):
    points = np.random.default_rng(0).normal(size=(3, 50))
    points[1, -1] = bad
    assert ifs.normalize(points) == math.inf


def test_points_in_one_place_are_not_normalized():
    assert ifs.normalize(np.ones((3, 50))) == math.inf


def test_projection_is_that_of_the_matrices_of_opengl():
    """Against look-at and perspective matrices written out, with the viewport's rounding."""
    rng = np.random.default_rng(1)
    points = rng.uniform(-1.9, 1.9, size=(3, 500)).astype(np.float32)
    side, near, distance = 64, 1.0, 3.0
    rotation = np.empty((3, 3))
    ifs.draw_rotation(np.uint64(5), rotation)
    forward, up, right = rotation.T
    eye = -distance * forward
    view = np.eye(4)
    view[:3, :3] = right, up, -forward
    view[:3, 3] = -view[:3, :3] @ eye
    focal, far = 1 / math.tan(math.radians(45) / 2), 100.0
    frustum = np.diag([focal, focal, (far + near) / (near - far), 0])
    frustum[2, 3], frustum[3, 2] = 2 * far * near / (near - far), -1
    clip = frustum @ view @ np.vstack([points, np.ones(500)])
    inside = (np.abs(clip[:3]) <= clip[3]).all(axis=0)
    window = (clip[:2, inside] / clip[3, inside] + 1) * side / 2
    wanted = np.zeros((side, side), np.uint8)
    wanted[window[1].astype(int), window[0].astype(int)] = 255
    assert 0 < inside.sum() < 500

    image = np.empty(side * side + 1, np.uint8)
    ifs.project(
        points, rotation.astype(np.float32), np.float32(focal), np.float32(distance),
        np.float32(near), side, 255, np.empty((3, 500), np.float32), np.empty(500, np.int32), image,
    )  # fmt: skip
    # Points within a rounding error of a pixel's edge may fall on either side of it.
    assert (image[:-1].reshape(side, side) != wanted).sum() <= 2
