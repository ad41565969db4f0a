"""Open images from strangers: known formats only, bounded in pixels, decoded to the end."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import DataError, UnsafeInputError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
EXTENSIONS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
MAX_PIXELS = 50_000_000
MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What an image's header says: size in pixels and format."""

    width: int
    height: int
    format: str


def probe(data: bytes) -> ImageInfo:
    """Return size and format from the header alone.

    Raises DataError for what is no image and UnsafeInputError for more than MAX_PIXELS.
    """
    from PIL import Image, UnidentifiedImageError

    if len(data) > MAX_BYTES:
        raise UnsafeInputError(f"image of {len(data):,} bytes (at most {MAX_BYTES:,})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height, kind = image.width, image.height, image.format or ""
    except UnidentifiedImageError:
        raise DataError("not an image of a known format") from None
    except Image.DecompressionBombError:
        raise UnsafeInputError(f"more than {MAX_PIXELS:,} pixels") from None
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"broken image: {error}") from None
    if width * height > MAX_PIXELS:
        raise UnsafeInputError(f"{width} x {height} pixels (at most {MAX_PIXELS:,})")
    return ImageInfo(width, height, kind)


def decode(data: bytes) -> Image:
    """Decode an image to RGB, to its last byte.

    Raises DataError for a truncated or broken image, UnsafeInputError for a bomb.
    """
    from PIL import Image

    probe(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"broken image: {error}") from None


def verify(data: bytes) -> ImageInfo:
    """Decode an image to its last byte and return what its header says."""
    info = probe(data)
    decode(data)
    return info
