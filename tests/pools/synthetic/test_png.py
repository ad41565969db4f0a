"""Files hold the pixels, with the fewest channels and bits."""

import hashlib
import io

import numpy as np
from datacomp.pools.synthetic import png
from datacomp.pools.synthetic.contract import Picture
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

SHAPES = st.tuples(st.integers(1, 20), st.integers(1, 20))


def decoded(data):
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.format == "PNG"
        return image


@settings(deadline=None)
@given(arrays(np.uint8, SHAPES))
def test_gray(pixels):
    image = decoded(png.encode(Picture(0, pixels)))
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), pixels)


@settings(deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3))))
def test_colour(pixels):
    image = decoded(png.encode(Picture(0, pixels)))
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), pixels)


@settings(deadline=None)
@given(arrays(np.bool_, SHAPES), st.booleans())
def test_two_levels_take_one_bit(bits, flipped):
    pixels = np.where(bits, 127, 0).astype(np.uint8)
    pixels = pixels[::-1, ::-1] if flipped else pixels
    data = png.encode(Picture(0, pixels, levels=(0, 127)))
    image = decoded(data)
    assert (image.mode, data[24], data[25]) == ("P", 1, 3)
    assert np.array_equal(np.asarray(image.convert("RGB"))[:, :, 1], pixels)


def test_bytes_never_change():
    """Whoever changes them counts PACKER up: sets begun before must not be mixed with new ones."""
    pixels = np.zeros((40, 40), np.uint8)
    pixels[5:30:3, 7:] = np.arange(33)
    digest = hashlib.sha256(png.encode(Picture(0, pixels))).hexdigest()
    assert (png.PACKER, digest[:16]) == ("deflate 2", "661c57976797036b")
