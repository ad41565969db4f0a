"""What is in the folder before a download, and what is no longer there after it."""

from __future__ import annotations

import contextlib
import os
import shutil

from ...errors import StorageError, UsageError
from ...pools.parallel import map_threads
from ...progress import Progress, say
from ..release import Manifest
from .folder import Folder, sha256_of
from .order import Order, Wanted


def withdraw(folder: Folder, manifest: Manifest) -> list[str]:
    """Delete every file that was taken back; return their paths."""
    taken = manifest.withdrawn
    found = {path for path, sha256 in folder.records() if sha256 in taken}
    for removal in manifest.removed:
        for path, size, sha256 in removal.files:
            place = folder.path / path
            if path in found or sha256 not in taken or not place.is_file():
                continue
            if place.stat().st_size == size and sha256_of(folder.place_of(path)) == sha256:
                found.add(path)
    folder.forget_partials_of(taken)
    gone = {path for removal in manifest.removed for path, _, sha256 in removal.files
            if sha256 in taken}  # fmt: skip
    infohashes = manifest.torrents["v1"]["infohash"], manifest.torrents["hybrid"]["infohash_v1"]
    folder.forget_staged(manifest.name, gone, infohashes)
    for path in sorted(found):
        folder.remove(path)
        say(f"{path}: taken back by its keeper; deleted")
    return sorted(found)


def sort_out(folder: Folder, order: Order, rehash: bool) -> list[Wanted]:
    """Return the files that have to be fetched, wholly or in part."""
    missing: list[Wanted] = []
    doubtful: list[Wanted] = []
    for wanted in order.files:
        place = folder.place_of(wanted.path)
        if not rehash and folder.knows(wanted):
            continue
        known = folder.verified_digest(wanted.path)
        if place.is_dir():
            raise UsageError(f"{place}: a folder stands where a file should be; move it away")
        if not place.is_file() or (known is not None and not rehash):
            missing.append(wanted)
        elif place.stat().st_size == wanted.size and wanted.cid and wanted.sha256 is None:
            folder.take_back(wanted)  # prepared whole, it is checked like a fetched one
            missing.append(wanted)
        elif place.stat().st_size == wanted.size and wanted.sha256 is None:
            folder.lend(wanted, order.in_torrent(wanted))
            missing.append(wanted)
        elif place.stat().st_size == wanted.size:
            doubtful.append(wanted)
        elif folder.is_ours(wanted.path):
            missing.append(wanted)
        else:
            raise UsageError(
                f"{place}: is there already and is another file (of {place.stat().st_size:,} "
                f"bytes instead of {wanted.size:,}); move it away"
            )
    missing += _look_at(folder, doubtful)
    return link_same(folder, sorted(missing, key=lambda wanted: wanted.number))


def _look_at(folder: Folder, doubtful: list[Wanted]) -> list[Wanted]:
    """Read files that may be right; return those that are not, set aside for repair."""
    wrong = []
    paths = [folder.path / wanted.path for wanted in doubtful]
    total = sum(wanted.size for wanted in doubtful)
    with Progress("checking", total, "bytes") as progress:
        for wanted, digest in zip(doubtful, map_threads(sha256_of, paths), strict=True):
            progress.advance(wanted.size)
            if digest == wanted.sha256:
                folder.remember(wanted.path, digest)
            else:
                say(f"{wanted.path}: damaged; its wrong blocks are fetched again")
                folder.take_back(wanted)
                wrong.append(wanted)
    return wrong


def link_same(folder: Folder, missing: list[Wanted]) -> list[Wanted]:
    """Take what is here under another name; return what is not."""
    here = {sha256: path for path, sha256 in folder.records()}
    left = []
    for wanted in missing:
        other = here.get(wanted.sha256 or "")
        if other is None or wanted.sha256 is None:
            left.append(wanted)
            continue
        prepared = folder.partial_of(wanted)
        prepared.unlink(missing_ok=True)
        try:
            os.link(folder.path / other, prepared)
        except OSError:  # a file system without hard links
            shutil.copyfile(folder.path / other, prepared)
        folder.put(wanted, prepared, wanted.sha256)
    return left


def check_space(folder: Folder, order: Order, missing: list[Wanted]) -> None:
    """Raise StorageError if what is still to come does not fit on the disk."""
    needed = 0
    for wanted in missing:
        have = 0
        with contextlib.suppress(FileNotFoundError):
            have = folder.partial_of(wanted).stat().st_size
        with contextlib.suppress(OSError):  # what peers gave has holes
            staged = (folder.torrent / order.in_torrent(wanted)).lstat()
            have = max(have, staged.st_blocks * 512)
        needed += max(wanted.size - have, 0)
    free = shutil.disk_usage(folder.path).free
    if needed > free:
        raise StorageError(
            f"{folder.path}: {needed:,} bytes are still to come, but only {free:,} are free; "
            "make room or choose another place"
        )


def remove_old(folder: Folder, held: Manifest | None, order: Order) -> list[str]:
    """Delete what the version before had and this one has not; strangers' files stay."""
    kept = {wanted.path for wanted in order.files}
    if held is None and order.manifest is None and order.record is not None:
        gone = folder.left_over(kept)
    elif held is None or order.manifest is None:
        return []
    else:
        gone = [
            file.path
            for file in held.files
            if file.path not in kept and folder.verified_digest(file.path) == file.sha256
        ]
    for path in gone:
        folder.remove(path)
    return gone
