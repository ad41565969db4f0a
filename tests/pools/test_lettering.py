import io
import unicodedata

import numpy as np
import pytest
from datacomp.pools.lettering import (
    HELD_OUT_FONTS,
    POOL_FONTS,
    characters,
    describe,
    draw,
    font_path,
    is_visible,
    to_png,
)
from PIL import Image


def test_no_held_out_font_is_a_font_of_the_pool():
    pool, held_out = ({font.file for font in fonts} for fonts in (POOL_FONTS, HELD_OUT_FONTS))
    assert not pool & held_out
    contents = {font_path(font).read_bytes() for font in (*POOL_FONTS, *HELD_OUT_FONTS)}
    assert len(contents) == len(POOL_FONTS) + len(HELD_OUT_FONTS)


@pytest.mark.parametrize(
    ("character", "words"),
    [
        ("a", "lowercase letter a"), ("A", "capital letter a"), ("7", "the digit seven"),
        ("→", "right arrow"), ("β", "lowercase greek letter beta"),
        ("Ж", "capital cyrillic letter zhe"),
        ("½", "fraction one half"), ("■", "filled square"), ("-", "hyphen minus"),
    ],
)  # fmt: skip
def test_names_are_said_in_words(character, words):
    assert describe(character) == words


def test_fonts_map_visible_characters_only():
    for font in POOL_FONTS:
        found = characters(font)
        assert len(found) == len(set(found)) > 60
        assert list(found) == sorted(found)
        assert all(is_visible(character) for character in found)
        if font.ascii_only:
            assert all(character.isascii() and character.isalnum() for character in found)


@pytest.mark.parametrize("character", [" ", "\u00a0", "\u0301", "\u200b", "\ue000", "\n"])
def test_what_leaves_no_ink_is_not_visible(character):
    assert not is_visible(character)


def test_every_character_of_the_pool_has_words():
    known = {character for font in POOL_FONTS for character in characters(font)}
    assert len(known) > 5000
    for character in known:
        words = describe(character)
        assert words == words.strip()
        assert "  " not in words, unicodedata.name(character)
        assert words


def test_drawings_have_the_size_and_tones_asked_for():
    image = draw("g", POOL_FONTS[0], 48, fill=0.75, ink=20, paper=240)
    assert (image.size, image.mode) == ((48, 48), "L")
    assert image.getextrema() == (20, 240)
    rows, columns = np.nonzero(np.asarray(image) < 200)
    assert 0.65 * 48 <= max(np.ptp(rows), np.ptp(columns)) <= 0.85 * 48


def test_shift_and_angle_move_the_ink():
    def middle(**how):
        return np.argwhere(np.asarray(draw("l", POOL_FONTS[0], 64, **how)) < 128).mean(0)

    assert middle(shift=(1, 0))[1] > middle()[1] + 5
    assert middle(shift=(0, -1))[0] < middle()[0] - 3
    assert draw("l", POOL_FONTS[0], 64, angle=8).tobytes() != draw("l", POOL_FONTS[0], 64).tobytes()


def test_a_blank_is_none():
    assert draw(" ", POOL_FONTS[0], 32) is None


def test_pngs_are_the_same_every_time_and_read_back():
    image = draw("&", POOL_FONTS[4], 40)
    assert to_png(image) == to_png(draw("&", POOL_FONTS[4], 40))
    assert Image.open(io.BytesIO(to_png(image))).tobytes() == image.tobytes()
