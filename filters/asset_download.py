"""Download the published files of an asset; each must have the SHA-256 it was published with."""

from __future__ import annotations

from pathlib import Path

from ..durable import fsync_directory, sha256_file, storage_errors
from ..errors import DataError, IntegrityError, UsageError, suggest
from ..pools.http import http_get, refuse_status
from ..progress import Progress
from .assets import ASSETS, Asset, check_name

_PIECE = 8 << 20
MAX_BYTES = 1 << 30
"""No published file is nearly as large."""


def published_files(asset: Asset, only: str | None = None) -> list[str]:
    """Return the names of the files to get; ``only`` is one of them.

    Raises UsageError for an asset that is not to be downloaded, and where there is a choice.
    """
    if asset.address is None:
        raise UsageError(f"asset {asset.name} has no public file: get it from {asset.get}")
    names = list(asset.published)
    if only is not None:
        if only not in names:
            raise UsageError(
                f"asset {asset.name} has no file {only!r}{suggest(only, names)}; "
                f"there are: {', '.join(names)}"
            )
        return [only]
    if asset.all_of_it or len(set(asset.published.values())) == 1:
        return names if asset.all_of_it else names[:1]
    raise UsageError(f"asset {asset.name} is one of several files: {', '.join(names)}; say which")


def download_asset(
    name: str, folder: Path, only: str | None = None, address: str | None = None
) -> Path:
    """Get an asset into a folder; return the path to give as ``--asset NAME=PATH``.

    What lies there already with the right bytes is not fetched again; what was broken off goes
    on. ``address`` is another place the files lie at. Raises IntegrityError for other bytes.
    """
    asset = ASSETS[check_name(name)]
    names = published_files(asset, only)
    home = folder / asset.name if asset.all_of_it else folder
    with storage_errors(home):
        home.mkdir(parents=True, exist_ok=True)
    for file in names:
        _download(f"{address or asset.address}{file}", home / file, asset.published[file])
    return home if asset.all_of_it else home / names[0]


def _download(url: str, path: Path, expected: str) -> None:
    if path.is_file() and sha256_file(path) == expected:
        return
    part = path.with_name(f".{path.name}.part")
    with storage_errors(path):
        _fetch(url, part)
        found = sha256_file(part)
        if found != expected:
            part.unlink()
            raise IntegrityError(
                f"{url}: not the file that was published (SHA-256 {found}, expected {expected}); "
                "nothing was kept"
            )
        part.replace(path)
        fsync_directory(path.parent)


def _fetch(url: str, part: Path) -> None:
    """Append to ``part`` what it lacks of the file at a URL, piece by piece."""
    with part.open("ab") as file, Progress(f"downloading {url}", None, "bytes") as progress:
        at = file.tell()
        progress.resume(at)
        while True:
            wanted = {"Range": f"bytes={at}-{at + _PIECE - 1}"}
            response, data, _ = http_get(url, wanted, MAX_BYTES)
            if response.status == 416:  # there is no more
                return
            refuse_status(response, url)
            if response.status == 200:  # a server that knows no ranges sends all of it
                file.truncate(0)
                at = 0
            total = _total(response.getheader("Content-Range"), at + len(data))
            if not data and at >= total > 0:
                return
            if total > MAX_BYTES or not data:
                raise DataError(f"{url}: {total:,} bytes promised, {len(data):,} sent; refused")
            file.write(data)
            file.flush()
            at += len(data)
            progress.total = total
            progress.advance(len(data))
            if at >= total:
                return


def _total(header: str | None, otherwise: int) -> int:
    """Return how long the whole is, as ``Content-Range: bytes 0-7/100`` tells."""
    text = (header or "").rpartition("/")[2]
    return int(text) if text.isascii() and text.isdecimal() else otherwise
