"""IPFS gateways as sources: block by block, each checked against its CID as it comes.

https://specs.ipfs.tech/http-gateways/trustless-gateway
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ...errors import DatacompError, DataError, IntegrityError, StorageError, UsageError
from ...progress import warn
from ..ipfs import dag, dagpb, ipns
from ..ipfs.car import MAX_BLOCK
from ..ipfs.cid import CID, RAW
from ..ipfs.unixfs import PROFILES, FileHasher
from ..manifest import check_paths
from .mirror import PATIENCE, Mirror
from .order import Order, Wanted
from .trouble import Consequence, SourceTrouble

if TYPE_CHECKING:
    from pathlib import Path

    from .find import Finder

MAX_ENTRIES = 1_000_000
MAX_DEPTH = 32


class GatewayMirror(Mirror):
    """Reads files as a Mirror does, by the CIDs of their paths."""

    def __init__(self, base: str, cids: Mapping[str, str], patience: float = PATIENCE) -> None:
        super().__init__(base, patience)
        self._cids = cids

    def block(self, cid: CID) -> bytes:
        """Return a block that is what its CID says. Raises SourceTrouble."""
        try:
            data = self.small(f"ipfs/{cid}", MAX_BLOCK, "?format=raw")
        except DatacompError as error:
            raise SourceTrouble(str(error), Consequence.SKIP) from None
        try:
            cid.check(data)
        except IntegrityError:
            raise SourceTrouble(
                f"gave bytes that are not those of the block {cid}", Consequence.DROP
            ) from None
        return data

    def read(self, path: str, size: int, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes ``start`` to ``end`` of a file. Raises SourceTrouble."""
        try:
            for leaf in dag.leaves(self.block, CID.parse(self._cids[path]), size):
                if leaf.offset + leaf.length <= start:
                    continue
                if leaf.offset >= end:
                    break
                data = dag.content(leaf.cid, self.block(leaf.cid), leaf.length)
                yield data[max(start - leaf.offset, 0) : end - leaf.offset]
        except DatacompError as error:
            raise SourceTrouble(str(error), Consequence.SKIP) from None


def find_ipfs(finder: Finder, source: str) -> Order:
    """Return the order of ``ipfs://CID`` or ``ipns://NAME``, through the finder's gateways.

    A gateway that serves releases, too, tells the signed manifest of the folder. One that fails or
    gives what cannot be believed costs itself. Raises UsageError without a gateway, StorageError
    when none answers, IntegrityError when one gave what is wrong and none what is right, and as
    ``Finder.find``.
    """
    scheme, _, name = source.partition("://")
    name = name.rstrip("/")
    if not finder.gateways:
        raise UsageError(f"{source[:100]}: name an IPFS gateway with --gateway")
    named = scheme.lower() == "ipns"
    if named:
        _refuse_name(finder, name)
    else:
        CID.parse(name)
    trouble: list[str] = []
    wrong = False
    for number, gateway in enumerate(finder.gateways, 1):
        mirror = GatewayMirror(gateway, {}, finder.patience)
        try:
            record = _point(finder, mirror, name) if named else None
            root = record.value.removeprefix("/ipfs/").rstrip("/") if record else name
            order = _order(finder, mirror, gateway, root)
            order.record = (name, record.sequence) if record else None
            return order
        except (SourceTrouble, DatacompError) as error:
            wrong = wrong or isinstance(error, IntegrityError)
            said = str(error)
            trouble.append(said if gateway in said else f"{gateway} {said}")
            if number < len(finder.gateways):
                warn(f"{trouble[-1]}; going on with {finder.gateways[number]}")
        finally:
            mirror.close()
    kind = IntegrityError if wrong else StorageError
    raise kind(f"{source[:100]}: {'; '.join(trouble)}; try another --gateway")


def _refuse_name(finder: Finder, name: str) -> None:
    trust, key = finder.trust, ipns.key_of(name)
    if trust.key is not None and key != trust.key:
        raise IntegrityError(f"ipns://{name}: the name of the key {key}, not of {trust.key}")
    trust.key = key


def _point(finder: Finder, mirror: GatewayMirror, name: str) -> ipns.Record:
    """Return what a gateway says a name points to now, if it is to be believed."""
    trust = finder.trust
    data = mirror.small(f"ipns/{name}", ipns.MAX_RECORD, "?format=ipns-record")
    record = ipns.read_record(data, name, trust.now)
    if trust.seen is not None and record.sequence < trust.seen.serial:
        raise IntegrityError(
            f"ipns://{name}: points to number {record.sequence}, older than {trust.seen.version} "
            f"(number {trust.seen.serial}) seen before; refused"
        )
    followed = trust.followed
    if followed is not None and followed[0] == name and record.sequence < followed[1]:
        raise IntegrityError(
            f"ipns://{name}: points to number {record.sequence}, older than number {followed[1]} "
            "seen before; refused"
        )
    if not record.value.startswith("/ipfs/"):
        raise DataError(f"ipns://{name}: points to {record.value[:80]!r}, not to a folder")
    return record


def _order(finder: Finder, mirror: GatewayMirror, gateway: str, root: str) -> Order:
    cid = CID.parse(root)
    signed = _signed(finder, gateway, root)
    if signed is not None:
        return signed
    files = [
        Wanted(number, path, size, None, None, str(file))
        for number, (path, size, file) in enumerate(_walk(mirror, cid))
    ]
    check_paths([file.path for file in files], f"ipfs://{root}")
    return Order(root, None, tuple(files), infohash=root)


def _walk(mirror: GatewayMirror, root: CID) -> Iterator[tuple[str, int, CID]]:
    """Yield path, size and CID of every file below a folder."""
    stack, seen = [("", root)], 0
    while stack:
        prefix, folder = stack.pop()
        for item in dag.list_folder(mirror.block, folder):
            seen += 1
            if seen > MAX_ENTRIES or prefix.count("/") > MAX_DEPTH:
                raise DataError(f"ipfs://{root}: more than {MAX_ENTRIES:,} files, or nested deeply")
            if "/" in item.name:
                raise DataError(f"ipfs://{root}: a file name holds a slash")
            path = prefix + item.name
            # A leaf of raw bytes is a file, and its size is known without it.
            if item.cid.codec == RAW:
                yield path, item.tsize, item.cid
                continue
            entry = dag.read_entry(item.cid, mirror.block(item.cid))
            if entry.kind in (dagpb.DIRECTORY, dagpb.HAMT):
                stack.append((f"{path}/", item.cid))
            else:
                yield path, entry.size, item.cid


def _signed(finder: Finder, gateway: str, root: str) -> Order | None:
    """Return the signed order of the folder, if the gateway serves releases, too."""
    try:
        order = finder.latest(gateway)
    except IntegrityError:
        raise
    except DatacompError:
        return None
    found = order.manifest is not None and order.manifest.root_cid == root
    return order if found else None


def is_cid_of(path: Path, cid: str) -> bool | None:
    """Tell whether a file has a CID; None if it was made in a way that we do not know."""
    hashers = {name: FileHasher(name) for name in PROFILES}
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            for hasher in hashers.values():
                hasher.update(data)
    return True if any(hasher.finish().cid == cid for hasher in hashers.values()) else None
