"""Open images from strangers: known formats only, bounded in pixels, decoded to the end."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
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
    with _opened(data) as (_, info):
        return info


def decode(data: bytes) -> Image:
    """Decode an image to RGB, to its last byte.

    Raises DataError for a truncated or broken image, UnsafeInputError for a bomb.
    """
    with _opened(data) as (image, _):
        return image.convert("RGB")


def verify(data: bytes) -> ImageInfo:
    """Decode an image to its last byte and return what its header says."""
    with _opened(data) as (image, info):
        image.convert("RGB")
        return info


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[tuple[Image, ImageInfo]]:
    """Open an image of a known format and a bounded size; nothing is decoded yet."""
    from PIL import Image, UnidentifiedImageError

    if len(data) > MAX_BYTES:
        raise UnsafeInputError(f"image of {len(data):,} bytes (at most {MAX_BYTES:,})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UnsafeInputError(
                        f"{image.width} x {image.height} pixels (at most {MAX_PIXELS:,})"
                    )
                yield image, ImageInfo(image.width, image.height, image.format or "")
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError("not an image of a known format") from None
    except Image.DecompressionBombError:
        raise UnsafeInputError(f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # noqa: BLE001  crafted bytes make decoders raise anything
        raise DataError(f"broken image: {' '.join(str(error).split())[:200]}") from None
