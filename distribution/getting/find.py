"""From what a person names to what is to be got: manifest URLs, torrents, magnets, Metalinks."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from ...errors import (
    DatacompError,
    DataError,
    IntegrityError,
    MissingError,
    StorageError,
    UsageError,
)
from ...progress import warn
from ...urls import join_url, split_url
from ..release.manifest import MAX_BYTES as MAX_MANIFEST
from ..release.manifest import Manifest, verify_manifest
from ..release.pointer import MAX_BYTES as MAX_POINTER
from ..release.pointer import Pointer, read_pointer
from ..release.torrents import MAX_TORRENT_BYTES
from .metalink import MAX_METALINK, read_metalink
from .mirror import PATIENCE, Mirror
from .order import Order, data_base, of_manifest
from .torrent_file import names_of, read_torrent
from .trouble import SourceTrouble

if TYPE_CHECKING:
    from ..torrents.session import Net

MANIFEST, POINTER = "manifest.json", "latest.json"
PATIENCES = 6
"""How many times the patience with a server a swarm gets, to be found at all."""
MAX_FIELDS = 1000
"""Of a magnet link."""
MAX_VERSIONS = 1000
"""Of a mirror, looked through for the one that a torrent is of."""
_BEGINNING = datetime.min.replace(tzinfo=UTC)
_FILES = (".torrent", ".meta4", ".metalink")
_HTTP = ("http://", "https://")
_VERSIONED = re.compile(r"(.*/)versions/[^/]+/")
_INFOHASH = re.compile(r"urn:btih:([0-9a-fA-F]{40})|urn:btmh:1220([0-9a-fA-F]{64})")


@dataclass
class Trust:
    """What a source has to live up to: the key expected, and the newest pointer seen before.

    ``followed`` is an IPNS name and the number of the record that was believed of it.
    """

    key: str | None = None
    seen: Pointer | None = None
    followed: tuple[str, int] | None = None
    now: datetime | None = None


@dataclass
class Finder:
    """Makes orders of sources.

    ``mirrors`` are URLs where releases, a version or its files may lie; ``gateways`` are base URLs
    of IPFS gateways; ``net`` and ``peers`` are for magnet links.
    """

    trust: Trust
    net: Callable[[], Net]
    gateways: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    patience: float = PATIENCE
    mirrors: tuple[str, ...] = ()

    def find(self, source: str) -> Order:
        """Return what a source offers.

        Raises UsageError for what is no source, MissingError and StorageError where nobody
        answers, IntegrityError for what is not signed as it should be, DataError, UnsafeInputError.
        """
        scheme = source.partition(":")[0].lower()
        if scheme == "magnet":
            return self._magnet(source)
        if scheme in ("ipfs", "ipns"):
            from .ipfs import find_ipfs

            return find_ipfs(self, source)
        if scheme in ("http", "https"):
            return self._url(source)
        path = Path(source)
        if path.suffix in _FILES:
            if not path.is_file():
                raise MissingError(f"{source}: no such file")
            with path.open("rb") as file:
                data = file.read(MAX_TORRENT_BYTES + 1)
            return self._file(data, source, path.suffix)
        raise UsageError(
            f"{source}: not a source; expected the URL of a manifest, a .torrent, a .meta4, "
            "magnet:, ipfs:// or ipns://"
        )

    # -- URLs -------------------------------------------------------------------------------

    def _url(self, url: str) -> Order:
        path = split_url(url).path
        suffix = Path(path).suffix
        if suffix in _FILES:
            limit = MAX_TORRENT_BYTES if suffix == ".torrent" else MAX_METALINK
            return self._file(self.small(url, "", limit), url, suffix)
        if path.endswith("/" + MANIFEST):
            return self._manifest(url)
        root = url.removesuffix(POINTER) if path.endswith("/" + POINTER) else url.rstrip("/") + "/"
        if _VERSIONED.fullmatch(root):
            return self._manifest(root + MANIFEST)
        return self.latest(root)

    def latest(self, root: str) -> Order:
        """Return the newest version that a served folder of releases offers."""
        where = join_url(root, POINTER)
        pointer = self.believe(self.small(root, POINTER, MAX_POINTER), where)
        return self.pointed(pointer, root)

    def believe(self, data: bytes, where: str) -> Pointer:
        """Return a pointer that may be believed."""
        trust = self.trust
        return read_pointer(data, where, trust.key, trust.now or datetime.now(UTC), trust.seen)

    def pointed(self, pointer: Pointer, root: str) -> Order:
        """Return the version that a pointer names, from a mirror."""
        path = pointer.manifest_path
        raw = self.small(root, path, min(pointer.manifest_size, MAX_MANIFEST))
        signature = self.small(root, f"{path}.sig", 64)
        where = join_url(root, path)
        manifest = verify_manifest(raw, signature, where, pointer.key)
        if manifest.sha256 != pointer.manifest_sha256:
            raise IntegrityError(
                f"{where}: not the manifest that {POINTER} names; the mirror is stale or was "
                "tampered with; try again later or another mirror"
            )
        return self._at(of_manifest(manifest, signature, pointer), root)

    def _manifest(self, url: str) -> Order:
        raw = self.small(url, "", MAX_MANIFEST)
        signature = self.small(f"{url}.sig", "", 64)
        manifest = verify_manifest(raw, signature, url, self.trust.key)
        self._refuse_older(manifest, url)
        order = of_manifest(manifest, signature)
        versioned = _VERSIONED.fullmatch(url.removesuffix(MANIFEST))
        if versioned:
            return self._at(order, versioned[1])
        order.mirrors.insert(0, join_url(url, f"{manifest.name}/"))
        return order

    def _at(self, order: Order, root: str) -> Order:
        """Put the mirror that has answered first."""
        first = data_base(root, order.name, order.version or "")
        order.mirrors = [first, *(mirror for mirror in order.mirrors if mirror != first)]
        return order

    def _refuse_older(self, manifest: Manifest, where: str) -> None:
        seen = self.trust.seen
        if seen is not None and manifest.serial < seen.serial:
            raise IntegrityError(
                f"{where}: version {manifest.version} (number {manifest.serial}) is older than "
                f"{seen.version} (number {seen.serial}) seen before; use another folder for it"
            )

    # -- torrents and Metalinks -------------------------------------------------------------

    def _file(self, data: bytes, where: str, suffix: str) -> Order:
        # Beside a file on a server may lie the manifest, whatever addresses the file names.
        beside = [join_url(where, ".")] if where.lower().startswith(_HTTP) else []
        if suffix != ".torrent":
            order = read_metalink(data, where)
            signed = self._signed([*beside, *self._above(order.mirrors)])
            if signed is None:
                return self._mirrored(lambda other: _facts(other) == _facts(order)) or order
            return self._same(signed, order, where)
        order, seeds = read_torrent(data, where)
        signed = self._signed_of(names_of(data), [*beside, *seeds])
        if signed is None:
            return order
        signed.torrent = data
        return signed

    def _magnet(self, magnet: str) -> Order:
        text = magnet.partition("?")[2].partition("#")[0]
        try:
            query = parse_qs(text, max_num_fields=MAX_FIELDS)
        except ValueError:
            raise UsageError(f"{magnet[:100]}: has more than {MAX_FIELDS:,} fields") from None
        hashes = {
            (found[1] or found[2]).lower()
            for text in query.get("xt", ())
            if (found := _INFOHASH.fullmatch(text))
        }
        if not hashes:
            raise UsageError(f"{magnet[:100]}: names no torrent (xt=urn:btih: or urn:btmh:)")
        signed = self._signed_of(hashes, query.get("ws", ()))
        if signed is not None:
            signed.magnet = magnet
            return signed
        from ..torrents.leech import fetch_metadata

        data = fetch_metadata(magnet, self.net(), self.peers, PATIENCES * self.patience)
        order, _ = read_torrent(data, magnet[:60])
        order.magnet = magnet
        # There are no layers in what peers tell of a torrent.
        order.seeds = [url for url in query.get("ws", ()) if url.lower().startswith(_HTTP)]
        return order

    def _signed_of(self, hashes: set[str], places: Sequence[str]) -> Order | None:
        """Return the signed order of the version that has a torrent, from one of the places.

        A manifest that does not name the torrent asked for is none of it.
        """

        def fits(order: Order) -> bool:
            torrents = order.manifest.torrents.values() if order.manifest else ()
            return bool(hashes & {text for one in torrents for text in one.values()})

        return self._signed(places, fits) or self._mirrored(fits)

    def _signed(
        self, places: Sequence[str], fits: Callable[[Order], bool] = lambda _: True
    ) -> Order | None:
        """Return the signed order of the version whose files lie below one of the places."""
        for place in places:
            if not place.lower().startswith(_HTTP) or not place.endswith("/"):
                continue
            try:
                order = self._manifest(join_url(place, MANIFEST))
            except (MissingError, StorageError, DataError) as error:
                if isinstance(error, IntegrityError):
                    raise
                continue
            if fits(order):
                return order
        return None

    def _mirrored(self, fits: Callable[[Order], bool]) -> Order | None:
        """Return the signed order of the version that fits, from the first mirror that has it."""
        for mirror in self.mirrors:
            root = join_url(mirror, ".") if mirror.endswith(".json") else mirror.rstrip("/") + "/"
            try:
                # The folder of a version, that of its files, or that of all versions.
                for place in dict.fromkeys((root, join_url(root, ".."))):
                    with contextlib.suppress(MissingError):
                        order = self._manifest(place + MANIFEST)
                        if fits(order):
                            return order
                for order in self._all_below(root):
                    if fits(order):
                        return order
            except MissingError:
                continue
            except DatacompError as error:
                warn(f"{error}; going on without it")
        return None

    def _all_below(self, root: str) -> Iterator[Order]:
        """Yield the versions that a served folder of releases has, the newest first."""
        where = join_url(root, POINTER)
        data = self.small(root, POINTER, MAX_POINTER)
        # What is looked for is known by its digest: the pointer may have expired.
        version: str = read_pointer(data, where, self.trust.key, _BEGINNING).version
        for _ in range(MAX_VERSIONS):
            order = self._manifest(join_url(root, f"versions/{version}/{MANIFEST}"))
            yield order
            parent = order.manifest.parent if order.manifest else None
            if parent is None:
                return
            version = parent.version

    @staticmethod
    def _above(mirrors: list[str]) -> list[str]:
        return [join_url(mirror, "..") for mirror in mirrors]

    @staticmethod
    def _same(signed: Order, order: Order, where: str) -> Order:
        """Return the signed order if a Metalink names the same files; none may differ."""
        known = _facts(signed)
        for file in order.files:
            if known.get(file.path, (file.size, file.sha256)) != (file.size, file.sha256):
                raise IntegrityError(
                    f"{where}: {file.path} is another file than in the signed manifest beside it"
                )
        return signed if known.keys() == {file.path for file in order.files} else order

    # -- small files ------------------------------------------------------------------------

    def small(self, base: str, path: str, limit: int) -> bytes:
        """Fetch a small file, trying a few times. Raises as ``Mirror.small``, or StorageError."""
        return fetch_small(base, path, limit, self.patience)


def _facts(order: Order) -> dict[str, tuple[int, str | None]]:
    return {file.path: (file.size, file.sha256) for file in order.files}


def fetch_small(base: str, path: str, limit: int, patience: float = PATIENCE) -> bytes:
    """Fetch a small file from a server; a path of "" means the base URL itself."""
    import time

    tries = 3
    for attempt in range(tries):
        mirror = Mirror(base, patience, exact=not path)
        try:
            return mirror.small(path, limit)
        except SourceTrouble as trouble:
            if attempt + 1 == tries or not trouble.may_pass:
                where = join_url(mirror.base, path)
                raise StorageError(f"{where}: the server {trouble}; try again later") from None
            time.sleep(0.25 * 2**attempt)
        finally:
            mirror.close()
    raise AssertionError
