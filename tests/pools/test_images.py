import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from datacomp.errors import DataError, UnsafeInputError
from datacomp.pools import images
from datacomp.pools.images import ImageInfo, decode, probe, verify
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image


def encoded(kind, width=31, height=17, mode="RGB", **options):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def bomb(width, height):
    """A PNG of a few hundred bytes whose header promises ``width`` x ``height`` pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))  # fmt: skip


@pytest.mark.parametrize("kind", images.FORMATS)
def test_every_known_format_is_read(kind):
    data = encoded(kind)
    assert probe(data) == verify(data) == ImageInfo(31, 17, kind)
    image = decode(data)
    assert (image.mode, image.size) == ("RGB", (31, 17))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK"])
def test_every_mode_becomes_rgb(mode):
    assert decode(encoded("TIFF", mode=mode)).mode == "RGB"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_truncated_image_is_broken_even_where_its_header_is_sound(kind):
    data = encoded(kind)
    cut = data[: len(data) * 3 // 4]
    for read in (verify, decode):
        with pytest.raises(DataError):
            read(cut)


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.4", b"\0" * 99]
)
def test_what_is_no_known_image_is_refused(data):
    for read in (probe, verify, decode):
        with pytest.raises(DataError):
            read(data)


def test_formats_that_run_programs_or_are_rare_are_not_opened():
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    with pytest.raises(DataError, match=r"^not an image of a known format$"):
        probe(eps)
    with pytest.raises(DataError, match=r"^not an image of a known format$"):
        probe(encoded("PPM"))


@pytest.mark.parametrize(
    ("size", "message"),
    [((10_000, 5_001), "10000 x 5001 pixels (at most 50,000,000)"),
     ((60_000, 60_000), "more than 50,000,000 pixels")],
)  # fmt: skip
def test_a_bomb_is_refused_before_it_is_opened(size, message):
    data = bomb(*size)
    assert len(data) < 200
    for read in (probe, verify, decode):
        with pytest.raises(UnsafeInputError) as caught:
            read(data)
        assert str(caught.value) == message


def test_too_many_bytes_are_refused(monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 100)
    data = encoded("PNG")
    with pytest.raises(UnsafeInputError) as caught:
        probe(data)
    assert str(caught.value) == f"image of {len(data):,} bytes (at most 100)"


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(images.FORMATS), data=st.data())
def test_damage_never_raises_anything_else(kind, data):
    sound = encoded(kind, 9, 7)
    broken = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 6))):
        broken[data.draw(st.integers(0, len(sound) - 1))] = data.draw(st.integers(0, 255))
    broken = bytes(broken[: data.draw(st.integers(0, len(sound)))])
    with contextlib.suppress(DataError):
        info = verify(broken)
        assert decode(broken).size == (info.width, info.height)
