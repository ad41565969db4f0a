"""Is what lies beside the files of a release what its manifest makes of it?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DatacompError
from ...pools.merkle import root_of_layer
from .. import bencode
from ..stretch import Bytes
from .folder import KEY, SUMS, TOMBSTONES, Release, Releases
from .keys import public_pem
from .manifest import Manifest
from .pointer import NAME as POINTER
from .pointer import RECORD
from .torrents import MAX_TORRENT_BYTES, addresses, info_hashes
from .views import sums, tombstones


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file: ``missing``, ``size``, ``digest``, ``tree``, ``unreadable``."""

    version: str
    path: str
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.version}/{self.path}: {self.detail}"


def pointer_faults(releases: Releases) -> list[Fault]:
    """Return what is wrong with the pointers to the newest version, and with the public key."""
    newest = releases.latest.manifest
    said = {
        POINTER: _pointer(releases, newest),
        RECORD: _record(releases.folder / RECORD, newest),
        KEY: _differs(releases.folder / KEY, [public_pem(newest.key)]),
    }
    return [Fault(newest.version, name, *fault) for name, fault in said.items() if fault]


def list_faults(release: Release) -> list[Fault]:
    """Return what is wrong with the lists that repeat the manifest."""
    manifest = release.manifest
    lists = {SUMS: sums(manifest), TOMBSTONES: tombstones(manifest)}
    faults: list[Fault] = []
    for name, lines in lists.items():
        path = release.folder / name
        if name == SUMS or manifest.removed or path.exists():
            fault = _differs(path, (line.encode() for line in lines))
            if fault is not None:
                faults.append(Fault(manifest.version, name, *fault))
    return faults


def torrent_faults(release: Release) -> list[Fault]:
    """Compare the torrents with the hashes that the manifest has of them, and of the files."""
    manifest = release.manifest
    faults: list[Fault] = []
    for kind, said in manifest.torrents.items():
        path = release.folder / said["file"]
        detail = None
        try:
            with path.open("rb") as file:
                value, places = bencode.scan(file, MAX_TORRENT_BYTES, str(path))
                found, v2 = info_hashes(places[b"info"])
                if found != said.get("infohash", said.get("infohash_v1")) or v2 != said.get(
                    "infohash_v2", v2
                ):
                    detail = f"info-hash {found} is not the manifest's"
                elif kind == "hybrid" and (wrong := _wrong_layer(value, manifest)) is not None:
                    detail = f"its piece layer of {wrong} is missing or not that of the file"
                elif not _leads_there(value, manifest):
                    detail = "its trackers or web seeds are not the manifest's"
        except (OSError, DatacompError, KeyError, TypeError):
            faults.append(Fault(manifest.version, path.name, "unreadable", "no torrent"))
            continue
        if detail is not None:
            faults.append(Fault(manifest.version, said["file"], "digest", detail))
    return faults


_ADDRESSES = (b"url-list", b"announce", b"announce-list")

Wrong = tuple[str, str]
"""Kind and detail of a fault."""


def _pointer(releases: Releases, newest: Manifest) -> Wrong | None:
    try:
        pointer = releases.pointer
    except DatacompError as error:
        return "digest", str(error)
    if pointer.manifest_sha256 == newest.sha256 and pointer.key == newest.key:
        return None
    return "digest", f"names version {pointer.version}, but {newest.version} is the newest"


def _record(path: Path, newest: Manifest) -> Wrong | None:
    from ..ipfs import ipns

    try:
        with path.open("rb") as file:
            data = file.read(ipns.MAX_RECORD + 1)
        record = ipns.read_record(data, ipns.name_of(newest.key))
    except FileNotFoundError:
        return "missing", "no such file"
    except OSError as error:
        return "unreadable", error.strerror or str(error)
    except DatacompError as error:
        return "digest", str(error)
    expected = (f"/ipfs/{newest.root_cid}", newest.serial)
    if (record.value, record.sequence) == expected:
        return None
    return "digest", f"points to number {record.sequence}, {record.value[:80]}, not to the newest"


def _differs(path: Path, expected: Iterable[bytes]) -> Wrong | None:
    """Compare a file with what it should be."""
    try:
        with path.open("rb") as file:
            same = all(file.read(len(part)) == part for part in expected) and not file.read(1)
    except FileNotFoundError:
        return "missing", "no such file"
    except OSError as error:
        return "unreadable", error.strerror or str(error)
    return None if same else ("digest", "is not what the manifest makes of it")


def _wrong_layer(value: dict[bytes, Any], manifest: Manifest) -> str | None:
    """Return the first file whose piece layer does not lead to its root."""
    layers = value.get(b"piece layers")
    if not isinstance(layers, dict):
        layers = {}
    for file in manifest.files:
        if file.size <= manifest.piece_length:
            continue
        root = bytes.fromhex(file.pieces_root or "")
        layer = layers.get(root)
        whole = 32 * -(-file.size // manifest.piece_length)
        if not isinstance(layer, Bytes) or len(layer) != whole:
            return file.path
        if root_of_layer(bytes(layer), manifest.piece_length) != root:
            return file.path
    return None


def _leads_there(value: dict[bytes, Any], manifest: Manifest) -> bool:
    webseeds = [f"{mirror}versions/{manifest.version}/" for mirror in manifest.mirrors]
    right = addresses(webseeds, manifest.trackers)
    said = {name.decode(): value[name] for name in _ADDRESSES if name in value}
    return bencode.encode(said) == bencode.encode(right)
