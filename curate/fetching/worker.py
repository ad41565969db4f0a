"""Fetch one shard with img2dataset: its downloader, its resizer, its blurrer. Runs in workers.

img2dataset downloads through ``urllib.request.urlopen``, which asks the opener installed; that is
where ``web.Opener`` stands. What it downloads is looked at before OpenCV decodes it, and what it
writes goes to ``writer.ShardWriter``.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import math
import os
import shutil
import sys
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import DataError, UnsafeInputError
from ...pools.images import FORMATS, probe
from ...pools.late import late
from .job import PENDING, STOP, Job, Row, StoppedError, be_quiet
from .limits import Deadlines, Hosts, Room
from .web import Opener, Rules
from .writer import NAME, ShardWriter, stats_of

be_quiet()
with warnings.catch_warnings(), late("fire", "pandas", "wandb", "webdataset"):
    warnings.simplefilter("ignore")
    from img2dataset.blurrer import BoundingBoxBlurrer
    from img2dataset.downloader import Downloader, compute_key
    from img2dataset.resizer import Resizer

ROOM = 256 << 20
"""Bytes that large bodies may take in one process until they are written."""
TRANSPARENT_PIXELS = 16_000_000
"""Putting an image on white takes img2dataset some 70 bytes a pixel, so these are kept smaller."""
SCANS = 100
"""A progressive JPEG has about ten scans; thousands take hours to decode."""


class CarefulResizer(Resizer):
    """Resizes as img2dataset does what is an image, and of a size that can be decoded."""

    def __call__(self, img_stream: io.BytesIO, blurring_bbox_list: Any = None) -> Any:
        """Return what img2dataset's resizer does; the last value is what went wrong, or None."""
        trouble = _trouble(img_stream.getvalue())
        if trouble is None and self.blurrer is not None and blurring_bbox_list is None:
            trouble = "boxes_unknown: cannot blur faces"
        if trouble is not None:
            return None, None, None, None, None, trouble
        *found, message = super().__call__(img_stream, blurring_bbox_list)
        if message is not None and message != "image too small":
            message = f"image_broken: {' '.join(message.split())[:200]}"
        return *found, message


def _trouble(data: bytes) -> str | None:
    """Say why an image is not to be decoded, from its header."""
    try:
        info = probe(data)
    except UnsafeInputError as error:
        return f"too_many_pixels: {error}"
    except DataError as error:
        reason = "image_broken" if str(error).startswith("broken") else "not_an_image"
        return f"{reason}: {error}"
    if info.format == "JPEG":
        return "image_broken: too many scans" if data.count(b"\xff\xda") > SCANS else None
    if info.width * info.height > TRANSPARENT_PIXELS and _is_transparent(data):
        return f"too_many_pixels: {info.width} x {info.height}, transparent"
    return None


def _is_transparent(data: bytes) -> bool:
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return "transparency" in image.info or "A" in image.getbands()


def fetch_shard(job: Job, row: Row) -> None:
    """Fetch the shard of a list into ``job.out``; nothing is there under its name until whole.

    Raises StorageError if it cannot be written, StoppedError if the fetch was interrupted.
    """
    number, listed = row
    pending = job.out / PENDING
    with _alone(Path(listed)):
        if stats_of(job.out, number).exists():  # another worker's last act before it was killed
            return
        scratch = pending / f"work-{NAME.format(number)}"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            _fetch(job, number, Path(listed), scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            (pending / f"{NAME.format(number)}.count").unlink(missing_ok=True)


def _fetch(job: Job, number: int, listed: Path, scratch: Path) -> None:
    import pyarrow as pa

    options, pending = job.options, job.out / PENDING
    room = Room(ROOM)
    count_file = pending / f"{NAME.format(number)}.count"
    with Deadlines(pending / STOP) as deadlines, contextlib.redirect_stdout(sys.stderr):
        opener = Opener(
            Rules(
                options.max_bytes,
                options.allow_private,
                options.honour_opt_out,
                options.user_agent_token,
            ),
            deadlines,
            Hosts(max(1, options.per_host // job.shared), options.timeout, deadlines.pause),
            room,
        )
        writer = ShardWriter(scratch, count_file, "jpg", room, deadlines.stop)
        downloader = _ShardDownloader(job, scratch, writer)
        # img2dataset removes the list that it is given.
        given = scratch / "list.arrow"
        shutil.copyfile(listed, given)
        with _installed(opener), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # albumentations warns of itself
            downloader.download_shard((number, str(given)))
        if deadlines.stopped and not writer.failed:
            raise StoppedError
    with pa.OSFile(str(listed)) as file:
        rows = pa.ipc.open_file(file).read_all().to_pylist()
    digits = math.ceil(math.log10(options.per_shard))
    keys = [(compute_key(i, number, digits, 8), row) for i, row in enumerate(rows)]
    writer.publish(job.out, number, keys)


class _ShardDownloader(Downloader):
    """img2dataset's downloader, which writes to the one writer that it is given."""

    def __init__(self, job: Job, scratch: Path, writer: ShardWriter) -> None:
        options = job.options
        blur = options.boxes is not None and options.boxes in job.columns
        super().__init__(
            sample_writer_class=writer.begin,
            resizer=CarefulResizer(
                image_size=options.size,
                resize_mode="keep_ratio_largest",
                resize_only_if_bigger=True,
                encode_quality=options.quality,
                min_image_size=options.min_size,
                blurrer=BoundingBoxBlurrer() if blur else None,
            ),
            thread_count=options.threads,
            save_caption=True,
            extract_exif=True,
            output_folder=str(scratch),
            column_list=list(job.columns),
            timeout=options.timeout,
            number_sample_per_shard=options.per_shard,
            oom_shard_count=8,
            compute_hash="sha256",
            verify_hash_type=options.verify,
            encode_format="jpg",
            retries=0,
            user_agent_token=options.user_agent_token,
            disallowed_header_directives=None,  # Opener honours them
            blurring_bbox_col=options.boxes if blur else None,
        )


@contextlib.contextmanager
def _installed(opener: Opener) -> Iterator[None]:
    """Let ``urlopen`` of this process use an opener for a while."""
    urllib.request.install_opener(opener)  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        urllib.request.install_opener(None)  # pyright: ignore[reportArgumentType]


@contextlib.contextmanager
def _alone(listed: Path) -> Iterator[None]:
    """Wait until no worker of a killed process works on a list any more."""
    descriptor = os.open(listed, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
