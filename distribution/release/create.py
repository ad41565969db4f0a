"""Make a version: read what is new once, describe it, link it, sign it, point to it.

Nothing is visible before it is whole: a version is put together under ``.state`` and renamed to
its place, and ``latest.json`` is replaced last. What was read is remembered file by file, so the
same call after a crash goes on where it stopped and writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from ...durable import write_bytes
from ...errors import DataError, UsageError
from ...pools.engine import Workers, engine_of
from .. import manifest as plain
from ..stretch import Spill
from .about import About
from .describe import Shape, describe
from .digests import PIECE_LENGTH
from .folder import KEY, VERSIONS, Release, Releases
from .keys import SigningKey, public_pem
from .manifest import Manifest, Removal, check_name
from .pointer import NAME as POINTER
from .pointer import RECORD, VALID_DAYS, read_pointer, sign_pointer
from .reading import Reader, Reading, Source
from .staging import stage
from .state import State
from .torrents import Torrent


@dataclass(frozen=True)
class Plan:
    """How a version is to be made. ``date`` is YYYY-MM-DD, today where it is not given.

    ``mirrors`` are URLs under which the folder of releases is served, ``removal`` the samples
    that this version takes back.
    """

    name: str
    version: str
    date: str | None = None
    parent: Release | None = None
    about: About = field(default_factory=About)
    piece_length: int | None = None
    profile: str | None = None
    mirrors: tuple[str, ...] = ()
    trackers: tuple[str, ...] = ()
    removal: Removal | None = None
    rehash: bool = False
    workers: Workers = None
    valid_days: float = VALID_DAYS


@dataclass
class CreateReport:
    """What was published. ``read`` and ``copied`` count files, ``bytes_read`` what was hashed.

    That includes what was read again of unchanged files, for pieces they share with changed ones.
    ``same_as`` is the version before where that has just these files.
    """

    path: str
    name: str
    version: str
    serial: int
    files: int
    bytes: int
    read: int
    bytes_read: int
    copied: int
    samples: int | None
    sha256: str
    root_cid: str
    key: str
    magnet: str
    hybrid_magnet: str
    there: bool
    same_as: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def create_version(
    folder: Path | str,
    sources: Iterable[Source],
    plan: Plan,
    key: SigningKey,
    now: datetime | None = None,
    refuse: Callable[[frozenset[str]], None] | None = None,
) -> CreateReport:
    """Publish files as the next version of the dataset in a folder of releases.

    ``refuse`` is called with the uids that were taken back, and raises if they are there.

    A version that is there already is never changed: the same call again is a no-op, another
    one a UsageError. Raises also MissingError, DataError, UnsafeInputError, IntegrityError and
    StorageError.
    """
    folder = Path(folder)
    sources = sorted(sources, key=lambda source: source.path)
    check_name(plan.name, "name")
    check_name(plan.version, "version")
    if plan.date is not None:
        _check_date(plan.date)
    plain.check_paths([source.path for source in sources], plan.name)
    if not sources:
        raise DataError("there is no file to publish")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: a file, but releases need a folder")
    state = State(folder)
    with state.locked(), Spill(state.folder) as spill:
        releases = Releases(folder)
        parent = _parent(releases, plan, key)
        if refuse is not None:
            refuse(_removed(parent, plan))
        shape = _shape(plan, parent)
        about = plan.about if parent is None else plan.about.after(parent.manifest)
        place = folder / VERSIONS / plan.version
        there = Release(place) if place.exists() else None
        reader = Reader(
            state, shape.piece_length, shape.profile, spill,
            parent=parent, there=there, rehash=plan.rehash,
            engine=engine_of(plan.workers),
        )  # fmt: skip
        reading = reader.read(sources)
        day = plan.date or (there.manifest.date if there else f"{datetime.now(UTC):%Y-%m-%d}")
        manifest, torrents = describe(
            reading, plan.name, plan.version, day, about, key.public, parent, shape,
            plan.removal,
        )  # fmt: skip
        if there is None:
            stage(place, state, reading, manifest, torrents, key, about)
        elif there.manifest.raw != manifest.raw:
            raise UsageError(
                f"{place}: is there already and differs; versions never change, so choose "
                "another name"
            )
        _write_key(folder / KEY, public_pem(key.public))
        _point_to(folder, manifest, key, now, plan.valid_days)
        if manifest.withdrawn:
            releases.refresh()
            withdraw(releases)
        state.rewrite(found.seen for found in reading.found)
        state.clear()
    same = parent.manifest if parent and parent.manifest.files == manifest.files else None
    return _report(folder, manifest, torrents, reading, there is not None, same)


def withdraw(releases: Releases) -> int:
    """Delete the files that were taken back from every version that has them; count them."""
    state, count = State(releases.folder), 0
    for release in releases.versions:
        for file in release.manifest.files:
            if file.sha256 in release.withdrawn:
                state.forget(file.sha256)
                place = release.data / file.path
                if place.is_file():
                    place.unlink()
                    count += 1
    return count


def renew(
    folder: Path | str,
    key: SigningKey,
    valid_days: float = VALID_DAYS,
    now: datetime | None = None,
) -> Release:
    """Sign ``latest.json`` and the IPNS record anew for the newest version and return that."""
    folder = Path(folder)
    newest = Releases(folder).latest
    _refuse_key(newest.manifest, key)
    with State(folder).locked():
        _point_to(folder, newest.manifest, key, now, valid_days)
    return newest


def _write_key(path: Path, pem: bytes) -> None:
    if not path.is_file() or path.read_bytes() != pem:
        write_bytes(path, pem)


def _point_to(
    folder: Path, manifest: Manifest, key: SigningKey, now: datetime | None, valid_days: float
) -> None:
    """Write both pointers to a version; they are valid for the same time."""
    from ..ipfs.ipns import create_record

    data = sign_pointer(manifest, key, now or datetime.now(UTC), valid_days)
    expires = read_pointer(data, POINTER, key.public, now).expires
    record = create_record(key, f"/ipfs/{manifest.root_cid}", manifest.serial, expires)
    write_bytes(folder / RECORD, record)
    write_bytes(folder / POINTER, data)


def _parent(releases: Releases, plan: Plan, key: SigningKey) -> Release | None:
    """Return the version before the one to make: the newest, or the one that is named."""
    there = releases.versions
    _refuse_gap(releases)
    before = [release for release in there if release.folder.name != plan.version]
    if len(before) < len(there) and there[-1].folder.name != plan.version:
        raise UsageError(
            f"{releases.folder}: version {plan.version!r} is there and newer ones are; versions "
            "never change, so choose another name"
        )
    newest = before[-1] if before else None
    parent = plan.parent or newest
    if parent is None:
        return None
    if newest is not None and parent.manifest.sha256 != newest.manifest.sha256:
        raise UsageError(
            f"{releases.folder}: the newest version is {newest.manifest.version!r}, so "
            f"{parent.manifest.version!r} cannot be the parent of the next"
        )
    if parent.manifest.name != plan.name:
        raise UsageError(
            f"{releases.folder}: holds the dataset {parent.manifest.name!r}, not {plan.name!r}; "
            "choose another folder"
        )
    _refuse_key(parent.manifest, key)
    return parent


def _refuse_gap(releases: Releases) -> None:
    """Refuse to go on where a version is missing: readers would see two of one number."""
    path = releases.folder / POINTER
    if not path.is_file():
        return
    pointer = read_pointer(path.read_bytes(), str(path), now=datetime.min.replace(tzinfo=UTC))
    if not releases.versions or releases.versions[-1].serial < pointer.serial:
        raise UsageError(
            f"{path}: names version {pointer.version!r} (number {pointer.serial}), which is not "
            "here; bring it back first"
        )


def _removed(parent: Release | None, plan: Plan) -> frozenset[str]:
    """Return the uids that were taken back before, or are to be now."""
    before = frozenset() if parent is None else parent.manifest.removed_uids
    return before if plan.removal is None else before | frozenset(plan.removal.uids)


def _refuse_key(manifest: Manifest, key: SigningKey) -> None:
    if manifest.key != key.public:
        raise UsageError(
            f"version {manifest.version} was signed with the key {manifest.key}, not with "
            f"{key.public}; readers trust the first one only"
        )


def _check_date(text: str) -> None:
    try:
        found = f"{date.fromisoformat(text)}"
    except ValueError:
        found = None
    if found != text:
        raise UsageError(f"date {text[:80]!r}: expected YYYY-MM-DD")


def _shape(plan: Plan, parent: Release | None) -> Shape:
    """Return how files are cut: as for the parent unless it is said otherwise."""
    from ..ipfs.profiles import get_profile
    from ..ipfs.unixfs import DEFAULT_PROFILE

    before = None if parent is None else parent.manifest
    mirrors = plan.mirrors or (() if before is None else before.mirrors)
    trackers = plan.trackers or (() if before is None else before.trackers)
    length = plan.piece_length or (PIECE_LENGTH if before is None else before.piece_length)
    profile = plan.profile or (DEFAULT_PROFILE if before is None else before.cid_profile)
    mirrors = tuple(
        f"{url}/" if url.startswith("http") and not url.endswith("/") else url for url in mirrors
    )
    return Shape(length, get_profile(profile).name, mirrors, trackers).check()


def _report(
    folder: Path,
    manifest: Manifest,
    torrents: tuple[Torrent, Torrent],
    reading: Reading,
    there: bool,
    same: Manifest | None,
) -> CreateReport:
    v1, hybrid = torrents
    seeds = [f"{mirror}versions/{manifest.version}/" for mirror in manifest.mirrors]
    return CreateReport(
        path=str(folder),
        name=manifest.name,
        version=manifest.version,
        serial=manifest.serial,
        files=len(manifest.files),
        bytes=sum(file.size for file in manifest.files),
        read=reading.read,
        bytes_read=reading.bytes_read,
        copied=reading.copied,
        samples=manifest.counts["samples"],
        sha256=manifest.sha256,
        root_cid=manifest.root_cid,
        key=manifest.key,
        magnet=v1.magnet(manifest.name, seeds, manifest.trackers),
        hybrid_magnet=hybrid.magnet(manifest.name, seeds, manifest.trackers),
        there=there,
        same_as=None if same is None else same.version,
    )
