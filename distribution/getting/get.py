"""Get a version of a dataset: from all who have it, every byte verified, nothing fetched twice."""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from ...errors import DataError, IntegrityError, MissingError, StorageError, UsageError
from ...progress import say, warn
from ...urls import join_url
from ..release import Manifest, Pointer, read_pointer
from .fetch import fetch
from .find import Finder, Trust
from .folder import STATE, Folder
from .options import Options
from .order import Order, data_base
from .report import GetReport
from .there import check_space, remove_old, sort_out, withdraw

_RELEASES = re.compile(
    r"(https?://.*?)(versions/[^/]+/?|versions/[^/]+/manifest\.json|latest\.json|)"
)
_VERSION = re.compile(r".*/versions/[^/]+/")
"""The address of a server of releases, and what is named below it."""
_BEGINNING = datetime.min.replace(tzinfo=UTC)


def get(source: str, directory: Path | str, options: Options | None = None) -> GetReport:
    """Fetch the files that a source names into a folder, and return what was done.

    A file appears under its name when it is right. What is there already is kept, a damaged file
    is repaired block by block, and the same call goes on after any interruption. The report's
    ``failed`` names what no source could give.

    Raises UsageError (another version or a stranger's file is in the folder), IntegrityError
    (signature, key, rollback), StorageError (disk, nobody answers), DataError, UnsafeInputError.
    """
    options = options or Options()
    started = time.monotonic()
    with Folder(directory) as folder:
        held = folder.held()
        order = _find(folder, source, options)
        _check_version(folder, held, order, options.update)
        _bind(folder, order, options.update)
        if order.pointer is not None:
            folder.see(order.pointer.raw)
        report = _report(folder, order)
        if order.manifest is not None:
            report.withdrawn = withdraw(folder, order.manifest)
        missing = sort_out(folder, order, options.rehash)
        report.reused_files = len(order.files) - len(missing)
        if missing:
            check_space(folder, order, missing)
            fetch(folder, order, missing, options, report)
        if report.whole:
            report.removed = remove_old(folder, held, order)
            folder.finish(order)
        report.seconds = time.monotonic() - started
        return report


def get_some(
    source: str, directory: Path | str, paths: Collection[str], options: Options, home: Path | str
) -> tuple[Order, GetReport]:
    """Fetch those of the files named that a source has; return its whole order, too.

    The source must lead to a signed version on a mirror; UsageError for any other. The folder is
    not marked as holding the version. What is to be believed depends on what was once kept
    (``Folder.keep``) in the folder ``home``, for which the files are. Raises as ``get``.
    """
    started = time.monotonic()
    with Folder(directory) as folder:
        known = Folder(home) if (Path(home) / STATE).is_dir() else folder
        order = _find(known, source, options)
        if order.manifest is None or not order.mirrors:
            raise UsageError(
                f"{source}: leads to no signed release on an HTTP server, but samples are read "
                "from one; give its address, or name it with --mirror"
            )
        _check_version(known, known.held(), order, update=True)
        if order.pointer is not None:
            known.see(order.pointer.raw)
        chosen = replace(order, files=tuple(f for f in order.files if f.path in paths))
        report = _report(folder, chosen)
        missing = sort_out(folder, chosen, options.rehash)
        report.reused_files = len(chosen.files) - len(missing)
        if missing:
            check_space(folder, chosen, missing)
            fetch(folder, chosen, missing, options, report)
        report.seconds = time.monotonic() - started
        return order, report


def _find(folder: Folder, source: str, options: Options) -> Order:
    """Return the order of a source that may be believed, with all mirrors named."""
    held = folder.held()
    trust = Trust(options.key or _key_of(folder, held), _seen(folder), folder.followed())
    finder = Finder(
        trust, options.net, tuple(options.gateways), tuple(options.peers), options.patience,
        tuple(options.mirrors),
    )  # fmt: skip
    others = [*options.mirrors, *(held.mirrors if held else ())]
    order = _first(finder, source, others)
    for mirror in options.mirrors:
        base = _mirror_base(mirror, order)
        order.mirrors.append(base)
        if order.manifest is None:
            say(f"{mirror}: no signed manifest of this found; its files are asked for at {base}…")
    return order


def _first(finder: Finder, source: str, mirrors: list[str]) -> Order:
    """Return the order of a source; where its server fails, of the first mirror that does not."""
    try:
        return finder.find(source)
    except (DataError, MissingError, StorageError) as error:
        at = _RELEASES.fullmatch(source)
        others = [mirror for mirror in mirrors if at and _RELEASES.fullmatch(mirror)]
        for mirror in others:
            root = _RELEASES.sub(r"\1", mirror)
            try:
                order = finder.find(f"{root.rstrip('/')}/{at[2] if at else ''}")
            except (DataError, MissingError, StorageError) as also:
                warn(str(also))
                continue
            warn(f"{error}; going on with {mirror}")
            return order
        raise


def _report(folder: Folder, order: Order) -> GetReport:
    size = sum(file.size for file in order.files)
    signed = order.manifest is not None
    return GetReport(str(folder.path), order.name, order.version, signed, len(order.files), size)


def _key_of(folder: Folder, held: Manifest | None) -> str | None:
    """Return the key that was trusted at the first time."""
    seen = _seen(folder)
    return held.key if held else seen.key if seen else None


def _seen(folder: Folder) -> Pointer | None:
    data = folder.pointer()
    # It may have expired since: it still says which version was once believed.
    return read_pointer(data, str(folder.state), now=_BEGINNING) if data else None


def _check_version(folder: Folder, held: Manifest | None, order: Order, update: bool) -> None:
    if held is None:
        return
    if held.name != order.name:
        raise UsageError(f"{folder.path}: holds {held.name}, not {order.name}; use another folder")
    new = order.manifest
    if new is None:
        raise IntegrityError(
            f"{folder.path}: holds the signed version {held.version}, but this source is not "
            "signed; use another folder for it"
        )
    if new.sha256 == held.sha256:
        return
    if new.serial <= held.serial:
        raise IntegrityError(
            f"{folder.path}: holds version {held.version} (number {held.serial}), and {new.version}"
            f" (number {new.serial}) is no newer; use another folder for it"
        )
    if not update:
        raise UsageError(
            f"{folder.path}: holds version {held.version}; --update makes it {new.version}, or use "
            "another folder"
        )


def _bind(folder: Folder, order: Order, update: bool) -> None:
    """Bind the folder to a source that nobody has signed, or only a name that points to it."""
    if order.infohash is None or order.manifest is not None:
        return
    if order.record is None:
        folder.bind(order.infohash)
    else:
        folder.follow(*order.record, order.infohash, update)


def _mirror_base(mirror: str, order: Order) -> str:
    """Return where a version's files lie on a mirror named by its root."""
    root = join_url(mirror, ".") if mirror.endswith(".json") else mirror.rstrip("/") + "/"
    if _VERSION.fullmatch(root):
        return join_url(root, f"{quote(order.name)}/")
    if "/versions/" in root or order.version is None or root in order.mirrors:
        return root
    return data_base(root, order.name, order.version)
