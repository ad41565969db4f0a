"""Blur faces while shards are built, by DataComp's rule.

Each box is grown by a tenth of its longer side; the blur is one Gaussian whose sigma is a tenth
of the longest side of all boxes of the image; the edge of the blurred region is softened by the
same Gaussian. The image is then a WebP of quality 100, and stands as ``.webp`` in place of what
it was. A box reaches into its image and at most one image's width or height out of it; it is
blurred even where DataComp's rule rounds it to nothing. A sample whose boxes are not known, or that
has several images, is never passed through.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, MissingError
from ...pools.images import EXTENSIONS, decode
from ...pools.uids import UidArray, to_hex
from ..subset import Lookup
from .columns import ANY_PARQUET, uid_records

QUALITY = 100
GROW = 0.1
SIGMA = 0.1
LEAST = 10
"""The side in pixels that counts at least for the sigma where a box is rounded to nothing."""
BEYOND = 1.0
"""Detectors draw boxes of faces at the edge beyond it; farther out they mean pixels, not shares."""
LISTED = 3

Box = tuple[float, float, float, float]
"""Left, top, right, bottom, as shares of width and height."""


@dataclass(frozen=True)
class Boxes:
    """The face boxes of sorted uids: those of uid i are ``values[first[i] : first[i + 1]]``.

    Whether they are ``known``, and whether one of them is ``wrong`` and would blur nothing.
    """

    first: NDArray[np.int64]
    values: NDArray[np.float64]
    known: NDArray[np.bool_]
    wrong: NDArray[np.bool_]

    def counts(self) -> NDArray[np.int64]:
        """Return how many boxes each uid has, shape (n,)."""
        return np.diff(self.first)

    def of(self, place: int) -> list[Box]:
        """Return the boxes of a uid."""
        found = self.values[self.first[place] : self.first[place + 1]]
        return [tuple(box) for box in found.tolist()]


def read_boxes(source: Path, uids: UidArray) -> Boxes:
    """Read the boxes of sorted uids, shape (n,), from parquet files of (uid, face_bboxes).

    ``source`` is a parquet file, a folder of them, or DataComp's map: JSON that names them.
    Raises MissingError for a file that is not there, DataError for what are no boxes.
    """
    lookup = Lookup(uids)
    counts = np.zeros(len(uids), np.int64)
    known = np.zeros(len(uids), bool)
    places: list[NDArray[np.int64]] = []
    values: list[NDArray[np.float64]] = []
    for path in box_files(source):
        for ids, batch_counts, coordinates in _batches(path):
            found = lookup.find(ids)
            rows = found >= 0
            here = found[rows]
            if known[here].any() or len(np.unique(here)) < len(here):
                raise DataError(f"{path}: a uid whose boxes stand there twice")
            known[here] = True
            counts[here] = batch_counts[rows]
            places.append(np.repeat(found, batch_counts)[np.repeat(rows, batch_counts)])
            values.append(coordinates[np.repeat(rows, batch_counts)])
    every = np.concatenate(places) if places else np.zeros(0, np.int64)
    order = np.argsort(every, kind="stable")
    joined = np.concatenate(values)[order] if values else np.zeros((0, 4))
    wrong = np.zeros(len(uids), bool)
    wrong[every[order][~_sane(joined)]] = True
    return Boxes(np.concatenate([[0], np.cumsum(counts)]), joined, known, wrong)


def require_known(boxes: Boxes, uids: UidArray, source: Path) -> None:
    """Raise DataError when boxes of some uids are not known, or wrong."""
    lacking = uids[~boxes.known]
    if len(lacking):
        shown = ", ".join(to_hex(lacking[:LISTED])) + (", ..." if len(lacking) > LISTED else "")
        raise DataError(
            f"{source}: says nothing about the faces of {len(lacking):,} samples ({shown}); "
            "--keep-going leaves them out"
        )
    places = np.flatnonzero(boxes.wrong)
    if len(places):
        mine = boxes.values[boxes.first[places[0]] : boxes.first[places[0] + 1]]
        shown = ", ".join(f"{value:g}" for value in mine[~_sane(mine)][0])
        raise DataError(
            f"{source}: {len(places):,} samples with a face box as ({shown}) of "
            f"{to_hex(uids[places[:1]])[0]}, but a box is left, top, right, bottom, as shares of "
            "width and height; --keep-going leaves them out"
        )


def box_files(source: Path) -> list[Path]:
    """Return the parquet files that a source of boxes names; all must be there."""
    if source.is_dir():
        files = sorted(source.glob("*.parquet"))
        if not files:
            raise MissingError(f"{source}: no .parquet files with face boxes")
        return files
    if not source.is_file():
        raise MissingError(f"{source}: no such file of face boxes")
    if source.suffix != ".json":
        return [source]
    try:
        value = json.loads(source.read_bytes())
        files = sorted({Path(source.parent, entry["parquet"]) for entry in value.values()})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise DataError(
            f"{source}: not a map of face boxes ({{name: {{parquet: path}}}})"
        ) from None
    for path in files:
        if not path.is_file():
            raise MissingError(f"{path}: no such file of face boxes, but {source} names it")
    return files


def _batches(
    path: Path,
) -> Iterator[tuple[UidArray, NDArray[np.int64], NDArray[np.float64]]]:
    """Yield uids (n,), boxes per uid (n,) and coordinates (boxes, 4); rows of null are skipped."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    kind = pa.list_(pa.list_(pa.float64()))
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(50_000, columns=["uid", "face_bboxes"]):
                rows = batch.filter(pc.is_valid(batch["face_bboxes"]))  # pyright: ignore[reportAttributeAccessIssue]
                column = rows["face_bboxes"].cast(kind)
                counts = pc.list_value_length(column).to_numpy(zero_copy_only=False)  # pyright: ignore[reportAttributeAccessIssue]
                inner = column.flatten()
                flat = inner.flatten().to_numpy(zero_copy_only=False)
                sizes = pc.list_value_length(inner).to_numpy(zero_copy_only=False)  # pyright: ignore[reportAttributeAccessIssue]
                if not (sizes == 4).all() or not np.isfinite(flat).all():
                    raise DataError(f"{path}: a face box that is not four numbers")
                yield uid_records(rows["uid"], str(path), ANY_PARQUET), counts, flat.reshape(-1, 4)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DataError(f"{path}: no readable face boxes: {str(error).splitlines()[0]}") from None


def _sane(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which boxes, shape (n, 4), have an extent and lie in their image, at least in part."""
    low, high = boxes[:, :2], boxes[:, 2:]
    inside = (low < 1) & (high > 0) & (low >= -BEYOND) & (high <= 1 + BEYOND)
    return np.logical_and.reduce(inside & (low < high), axis=1)


def blurred_members(
    members: list[tuple[str, bytes | memoryview]], boxes: list[Box]
) -> list[tuple[str, bytes | memoryview]]:
    """Return the members of a sample with its image blurred; they stay in alphabetical order.

    Raises DataError for an image that does not decode, and for more than one image: the boxes say
    nothing about others.
    """
    images = [name for name, _ in members if name in EXTENSIONS]
    if len(images) > 1:
        raise DataError(f"it has several images ({', '.join(images)})")
    image = bytes(dict(members)[images[0]])
    rest = [member for member in members if member[0] != images[0]]
    return sorted([*rest, ("webp", blur_image(image, boxes))])


def blur_image(data: bytes, boxes: list[Box]) -> bytes:
    """Return the image with its boxes blurred, as WebP."""
    from PIL import Image

    pixels = np.asarray(decode(data), np.float32) / 255.0
    result = (blur_pixels(pixels, boxes) * 255.0).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(result).save(buffer, "WEBP", quality=QUALITY)
    return buffer.getvalue()


def blur_pixels(pixels: NDArray[np.float32], boxes: list[Box]) -> NDArray[np.float32]:
    """Blur boxes of an image of values 0 to 1, shape (height, width, 3)."""
    try:
        import cv2
    except ImportError:
        raise MissingError("blurring needs OpenCV: pip install -e '.[download]'") from None
    height, width = pixels.shape[:2]
    mask = np.zeros(pixels.shape[:2], np.float32)
    longest = 0
    for box in boxes:
        corners = [int(v * size) for v, size in zip(box, (width, height) * 2, strict=True)]
        side = max(corners[2] - corners[0], corners[3] - corners[1])
        longest = max(longest, side)
        left, top = (max(int(v - GROW * side), 0) for v in corners[:2])
        right, bottom = (int(v + GROW * side) for v in corners[2:])
        right, bottom = max(min(right, width - 1), 0), max(min(bottom, height - 1), 0)
        if left >= right or top >= bottom:  # rounded to nothing: the pixels that it touches
            left, top = min(left, width - 1), min(top, height - 1)
            right, bottom = max(right, left + 1), max(bottom, top + 1)
            longest = max(longest, LEAST)
        mask[top:bottom, left:right] = 1
    if not boxes:
        return pixels
    size = 2 * int(np.ceil(4 * SIGMA * longest)) + 1
    soft = cv2.GaussianBlur(mask, (size, size), SIGMA * longest)[..., None]
    blurred = cv2.GaussianBlur(pixels, (size, size), SIGMA * longest)
    return pixels * (1 - soft) + blurred * soft
