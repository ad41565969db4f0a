"""Push a release to IPFS: into a Kubo node, or to a pinning service.

To Kubo only the files go that it lacks, one CAR each, made as it is sent and in such an order
that a file's root comes last: what is there of a push that broke off need not be sent again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ...errors import MissingError, RunError
from ...progress import Progress, say, warn
from ..release.pointer import RECORD
from ..stretch import Spill
from . import car, dag, ipns
from .blocks import BlockMap
from .cid import CID
from .kubo import Kubo, check_root
from .pinning import Pin, PinningService, check_origins
from .released import Released, collect
from .service import ServiceError
from .unixfs import FileTree

if TYPE_CHECKING:
    from ..release import Release, Releases


@dataclass(frozen=True)
class Pushed:
    """What a push did: root CID, files and bytes sent, what was pinned and unpinned, the name."""

    version: str
    root_cid: str
    files_sent: int
    bytes_sent: int
    updated_from: str | None
    unpinned: tuple[str, ...]
    name: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def push_to_kubo(releases: Releases, kubo: Kubo, version: str | None = None) -> Pushed:
    """Import and pin a version (the newest, unless named) and publish the IPNS record.

    Versions of which something was taken back are unpinned. Raises MissingError where files or
    their digests are not at hand or Kubo does not answer, RunError where it refuses.
    """
    release = releases.latest if version is None else releases.version(version)
    root = check_root(release.manifest.root_cid)
    say(f"Kubo {kubo.version()} at {kubo.service.name}", level=1)
    trees: dict[str, FileTree] = {}
    released = collect(release, trees, Spill())
    _require_whole(release, released)
    older = _older(releases, release)
    before = _pinned_before(older, kubo)
    sent = (0, 0)
    if not kubo.is_pinned(root):
        name = f"{release.manifest.name} {release.manifest.version}"
        has = {file.cid for file in before.manifest.files} if before else set[str]()
        sent = _send(released, kubo, has, trust=True)
        try:
            _pin(kubo, before, root, name)
        except ServiceError:
            # Kubo has roots whose leaves its garbage collection took away.
            sent = _send(released, kubo, set(), trust=False)
            kubo.pin(root, name)
    unpinned = tuple(_unpin_withdrawn(older, kubo))
    record = _publish(releases, kubo) if release is releases.latest else None
    old = before.manifest.root_cid if before else None
    return Pushed(release.manifest.version, root, *sent, old, unpinned, record)


def _older(releases: Releases, release: Release) -> list[Release]:
    """Return the versions before one, the newest first."""
    older = [one for one in releases.versions if one.manifest.serial < release.manifest.serial]
    return older[::-1]


def _require_whole(release: Release, released: Released) -> None:
    missing = [file.path for file in release.manifest.files if file.path not in released.files]
    if missing or released.folder is None:
        what = f"{missing[0]!r} and {len(missing) - 1} more" if missing else "some digests"
        raise MissingError(
            f"{release.folder}: {what} not at hand; push from the machine that made the release"
        )


def _pinned_before(older: Sequence[Release], kubo: Kubo) -> Release | None:
    """Return the newest older version that Kubo has pinned."""
    for release in older:
        if kubo.is_pinned(check_root(release.manifest.root_cid)):
            return release
    return None


def _send(released: Released, kubo: Kubo, has: set[str], *, trust: bool) -> tuple[int, int]:
    """Send what Kubo lacks; return how many files and bytes went.

    With ``trust`` a file whose root is there counts as there.
    """
    assert released.folder is not None
    wanted = {tree.node.cid: tree for _, tree in released.files.values()}
    blocks = BlockMap(released.files.values(), [released.folder])
    files = sent = 0
    total = sum(tree.size for cid, tree in wanted.items() if cid not in has)
    with Progress("pushing", total, "bytes") as progress:
        for cid, tree in wanted.items():
            if cid in has or (trust and kubo.has(cid)):
                progress.advance(0 if cid in has else tree.size)
                continue
            kubo.import_car(_advancing(root_last(blocks, CID.parse(cid)), progress), cid)
            files, sent = files + 1, sent + tree.size
    root = released.folder.cid
    folders = [(CID.parse(cid), block) for cid, block in released.folder.blocks.items()]
    folders.sort(key=lambda folder: str(folder[0]) == root)
    kubo.import_car(car.write([CID.parse(root)], folders), root)
    return files, sent


def root_last(blocks: BlockMap, root: CID) -> Iterator[bytes]:
    """Yield the CAR of a file: first its leaves, then the inner blocks, the root last."""
    inner: list[tuple[CID, bytes]] = []
    yield car.header([root])
    for cid, block in dag.walk(blocks.get, root, seen=set()):
        if dag.read_entry(cid, block).links:
            inner.append((cid, block))
        else:
            yield car.section(cid, block)
    for cid, block in reversed(inner):
        yield car.section(cid, block)


def _advancing(parts: Iterator[bytes], progress: Progress) -> Iterator[bytes]:
    for part in parts:
        yield part
        progress.advance(len(part))


def _pin(kubo: Kubo, before: Release | None, root: str, name: str) -> None:
    if before is None:
        kubo.pin(root, name)
    else:
        kubo.update_pin(before.manifest.root_cid, root, name)


def _unpin_withdrawn(older: Sequence[Release], kubo: Kubo) -> Iterator[str]:
    """Unpin every older version of which something was taken back."""
    for release in older:
        if _is_withdrawn(release) and kubo.is_pinned(check_root(release.manifest.root_cid)):
            kubo.unpin(release.manifest.root_cid)
            yield release.manifest.root_cid


def _publish(releases: Releases, kubo: Kubo) -> str | None:
    """Publish the signed record that points to the newest version; None where there is none."""
    name = ipns.name_of(releases.latest.manifest.key)
    try:
        with (releases.folder / RECORD).open("rb") as file:
            record = file.read(ipns.MAX_RECORD + 1)
    except FileNotFoundError:
        return None
    said = ipns.read_record(record, name)
    if said.value != f"/ipfs/{releases.latest.manifest.root_cid}":
        raise RunError(
            f"{releases.folder / RECORD}: points to another version; run 'datacomp release renew'"
        )
    if not kubo.put_record(name, record):
        warn(f"{kubo.service.name}: has no command to publish names; {name} is not published there")
        return None
    return name


def push_to_service(
    releases: Releases,
    service: PinningService,
    version: str | None = None,
    origins: Sequence[str] = (),
    keep: bool = False,
) -> Pin:
    """Have a version pinned by a service, in place of the newest older one unless ``keep``.

    Where it is pinned, or asked for, already, this tells how far it is. Pins of versions of which
    something was taken back are removed.
    """
    check_origins(origins)
    release = releases.latest if version is None else releases.version(version)
    root = check_root(release.manifest.root_cid)
    older = {one.manifest.root_cid: one for one in _older(releases, release)}
    there = {pin.cid: pin for pin in service.find([root, *older])}
    before = [(one, there[cid]) for cid, one in older.items() if cid in there]
    name = f"{release.manifest.name} {release.manifest.version}"
    if root in there:
        made = there[root]
    elif keep or not before:
        made = service.add(root, name, origins)
    else:
        made = service.replace(before.pop(0)[1].request, root, name, origins)
    for one, pin in before:
        if _is_withdrawn(one):
            service.remove(pin.request)
    return made


def _is_withdrawn(release: Release) -> bool:
    """Whether something of a version was taken back."""
    return any(release.is_withdrawn(file.path) for file in release.manifest.files)
