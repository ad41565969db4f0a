"""Draw characters of real fonts and say in words what they are.

The fonts are the ones matplotlib ships (DejaVu, STIX, Computer Modern): real outlines under
free licences, at hand without a network. Names come from the Unicode character database.
"""

from __future__ import annotations

import functools
import io
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont


@dataclass(frozen=True)
class Font:
    """A font file, how a person would call its style, and what of its mapping is Unicode."""

    file: str
    style: str
    ascii_only: bool = False


POOL_FONTS = (
    Font("DejaVuSans.ttf", "sans serif"),
    Font("DejaVuSans-Bold.ttf", "bold sans serif"),
    Font("DejaVuSans-Oblique.ttf", "slanted sans serif"),
    Font("DejaVuSans-BoldOblique.ttf", "bold slanted sans serif"),
    Font("DejaVuSerif.ttf", "serif"),
    Font("DejaVuSerif-Bold.ttf", "bold serif"),
    Font("DejaVuSerif-Italic.ttf", "italic serif"),
    Font("DejaVuSerif-BoldItalic.ttf", "bold italic serif"),
    Font("DejaVuSansMono.ttf", "typewriter"),
    Font("DejaVuSansMono-Bold.ttf", "bold typewriter"),
    Font("DejaVuSansMono-Oblique.ttf", "slanted typewriter"),
    # Computer Modern keeps TeX's own encoding: only its letters and digits are Unicode.
    Font("cmr10.ttf", "book", ascii_only=True),
    Font("cmss10.ttf", "plain sans serif", ascii_only=True),
    Font("cmtt10.ttf", "teletype", ascii_only=True),
)

HELD_OUT_FONTS = (
    Font("STIXGeneral.ttf", "times"),
    Font("STIXGeneralBol.ttf", "bold times"),
    Font("STIXGeneralItalic.ttf", "italic times"),
    Font("STIXGeneralBolIta.ttf", "bold italic times"),
)
"""Fonts no pool sample is drawn in: the demo suite is made of them."""

_WORDS = {
    "rightwards": "right",
    "leftwards": "left",
    "upwards": "up",
    "downwards": "down",
    "black": "filled",
    "white": "outlined",
    "vulgar": "",
    "latin": "",
}
_INVISIBLE = ("Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn", "Mn", "Me", "Mc")


def font_path(font: Font) -> Path:
    """Return where a font's file lies."""
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / font.file


@functools.cache
def characters(font: Font) -> tuple[str, ...]:
    """Return the visible characters that a font maps, in code order."""
    from matplotlib.ft2font import FT2Font

    mapped = FT2Font(str(font_path(font))).get_charmap()
    return tuple(
        character
        for code in sorted(mapped)
        if is_visible(character := chr(code))
        and (not font.ascii_only or (character.isascii() and character.isalnum()))
    )


def is_visible(character: str) -> bool:
    """Tell whether a character has a name and leaves ink of its own."""
    return (
        unicodedata.category(character) not in _INVISIBLE and unicodedata.name(character, "") != ""
    )


def describe(character: str) -> str:
    """Return a character's Unicode name in words a person would use.

    >>> describe("a"), describe("7"), describe("→")
    ('lowercase letter a', 'the digit seven', 'right arrow')
    """
    name = unicodedata.name(character).lower().replace("-", " ").replace("small letter", "\0")
    words = [_WORDS.get(word, word) for word in name.split()]
    text = " ".join(word for word in words if word).replace("\0", "small letter")
    script, found, rest = text.partition("small letter ")
    if found:
        text = f"lowercase {script}letter {rest}"
    script, found, rest = text.partition("capital letter ")
    if found:
        text = f"capital {script}letter {rest}"
    if text.startswith("digit "):
        text = f"the {text}"
    return text


@functools.lru_cache(maxsize=256)
def _load(font: Font, size: int) -> FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(str(font_path(font)), size, layout_engine=ImageFont.Layout.BASIC)


def draw(
    character: str,
    font: Font,
    side: int,
    *,
    fill: float = 0.75,
    shift: tuple[float, float] = (0.0, 0.0),
    angle: float = 0.0,
    ink: int = 0,
    paper: int = 255,
) -> Image | None:
    """Draw a character as a grey image of ``side`` x ``side`` pixels; None if it has no ink.

    ``fill`` is the part of the side that the longer edge of the ink takes, ``shift`` moves it
    by parts of the free room (-1 to 1), ``angle`` turns it by degrees.
    """
    from PIL import Image, ImageDraw

    size = max(8, round(side * fill))
    for _ in range(2):  # once to see how large the ink is at a known size, once to fit it
        left, top, right, bottom = _load(font, size).getbbox(character)
        longer = max(right - left, bottom - top)
        if longer <= 0:
            return None
        wanted = side * fill
        if 0.97 * wanted <= longer <= 1.03 * wanted:
            break
        # Short marks (a dot, a dash) keep some of their smallness.
        size = max(4, min(round(size * wanted / longer), round(side * 1.6)))
    face = _load(font, size)
    left, top, right, bottom = face.getbbox(character)
    width, height = right - left, bottom - top
    if width <= 0 or height <= 0:
        return None
    image = Image.new("L", (side, side), paper)
    x = (side - width) * (0.5 + 0.5 * shift[0]) - left
    y = (side - height) * (0.5 + 0.5 * shift[1]) - top
    ImageDraw.Draw(image).text((round(x), round(y)), character, font=face, fill=ink)
    if image.getextrema()[0] == image.getextrema()[1]:
        return None
    if angle:
        image = image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=paper)
    return image


def to_png(image: Image) -> bytes:
    """Encode an image as PNG; the same image gives the same bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
