"""Polygons have the pixels that Pillow gives them."""

import numpy as np
from datacomp.pools.synthetic.lines import WORK, polygon
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

POINTS = st.lists(st.tuples(st.integers(-40, 90), st.integers(-40, 90)), min_size=3, max_size=8)


def pillow(points, side):
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)
    for start, end in zip(points, [*points[1:], points[0]], strict=True):
        draw.line((*start, *end), fill=200, width=1)
    return np.asarray(image)


def ours(points, side):
    pixels = np.zeros((side, side), np.uint8)
    xs, ys = (np.array(values, np.int32) for values in zip(*points, strict=True))
    work = np.empty((WORK, len(points)), np.int64)
    polygon(pixels, xs, ys, np.uint8(200), work)
    return pixels


@settings(deadline=None, max_examples=300)
@given(POINTS)
@example([(5, 5)] * 3)
@example([(0, 0), (49, 0), (49, 49)])
@example([(-1, 10), (50, 10), (20, -5)])
def test_small_polygons(points):
    assert np.array_equal(ours(points, 50), pillow(points, 50))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(-500, 2500), st.integers(-500, 2500)), min_size=3,
                max_size=4))  # fmt: skip
def test_lines_longer_than_the_table(points):
    assert np.array_equal(ours(points, 2000), pillow(points, 2000))


def test_every_slope_within_the_table():
    for length in (2, 3, 7, 100, 1022, 1023, 1024):
        points = [(0, 0)] + [point for m in range(0, length + 1, max(1, length // 37))
                             for point in ((length, m), (0, 0))]  # fmt: skip
        assert np.array_equal(ours(points, 1030), pillow(points, 1030))
