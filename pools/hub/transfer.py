"""Bring files of the Hub, piece by piece: what was broken off goes on, and digests must fit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from ...durable import fsync_directory, partial_path, storage_errors
from ...errors import DataError, IntegrityError, StorageError
from ..http import http_get, refuse_status
from .listing import SHA256, RemoteFile

PIECE = 16 << 20
_BLOCK = 1 << 20


def digest_of(path: Path, file: RemoteFile) -> str:
    """Return the digest of a file on disk, of the kind the Hub tells for it."""
    found = _new_digest(file)
    with path.open("rb") as stream:
        while data := stream.read(_BLOCK):
            found.update(data)
    return found.hexdigest()


def _new_digest(file: RemoteFile) -> hashlib._Hash:
    if file.kind == SHA256:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)


def bring(
    url: str, file: RemoteFile, path: Path, headers: dict[str, str], told: Callable[[int], None]
) -> None:
    """Bring a file to ``path``; ``told`` hears how many bytes more are here.

    What an earlier run left of it is kept, and its bytes count in the digest. Raises
    IntegrityError, and keeps nothing, where the whole is not what the Hub promised.
    """
    part = partial_path(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        found = _new_digest(file)
        with part.open("a+b") as stream:
            stream.seek(0)
            while data := stream.read(_BLOCK):
                found.update(data)
            at, place = stream.tell(), url
            if at > file.size:
                stream.truncate(0)
                at, found = 0, _new_digest(file)
            told(at)
            while at < file.size:
                data, place = _piece(place, url, file, at, headers)
                stream.write(data)
                found.update(data)
                at += len(data)
                told(len(data))
        brought = found.hexdigest()
        if brought != file.digest:
            part.unlink()
            raise IntegrityError(
                f"{url}: not the bytes that the Hub promised ({file.kind} {brought[:16]}, expected "
                f"{file.digest[:16]}); nothing was kept, run the same command again"
            )
        part.replace(path)
        fsync_directory(path.parent)


def _piece(
    place: str, url: str, file: RemoteFile, at: int, headers: dict[str, str]
) -> tuple[bytes, str]:
    """Return the bytes that follow ``at``, and where they were: the Hub sends one elsewhere."""
    wanted = min(PIECE, file.size - at)
    asked = {"Range": f"bytes={at}-{at + wanted - 1}"}
    # What stands elsewhere is signed for a while, and is not told who asks.
    response, data, found = http_get(place, asked | (headers if place == url else {}), wanted + 1)
    if response.status in (401, 403, 404, 410) and place != url:
        return _piece(url, url, file, at, headers)
    if response.status in (401, 403):
        raise DataError(f"{url}: not open to you ({response.status}); HF_TOKEN says who you are")
    refuse_status(response, url)
    if response.status == 200 and wanted < file.size:
        raise DataError(f"{url}: the server sends whole files only, no ranges; name another one")
    if not data or len(data) > wanted:
        raise StorageError(f"{url}: {len(data):,} bytes came where {wanted:,} were asked for")
    return data, found
