"""Metalink 4 (RFC 5854): where each file of a version lies, with its size and hashes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

from ... import __version__
from .digests import Record
from .manifest import File, Manifest


def metalink(manifest: Manifest, records: Mapping[str, Record]) -> Iterator[str]:
    """Yield the document piece by piece; ``records`` are those of the files by path.

    The pieces of a file are the leaves of its UnixFS tree where those are its plain bytes, so
    their SHA-256 are known already, else those of the torrent with their SHA-1.
    """
    yield '<?xml version="1.0" encoding="UTF-8"?>\n'
    yield '<metalink xmlns="urn:ietf:params:xml:ns:metalink">\n'
    yield f"  <generator>datacomp/{__version__}</generator>\n"
    yield f"  <published>{manifest.date}T00:00:00Z</published>\n"
    for file in manifest.files:
        yield from _file(manifest, file, records[file.path])
    yield "</metalink>\n"


def _file(manifest: Manifest, file: File, record: Record) -> Iterator[str]:
    name = f"{manifest.name}/{file.path}"
    yield f"  <file name={quoteattr(name)}>\n"
    yield f"    <identity>{escape(manifest.name)}</identity>\n"
    yield f"    <version>{escape(manifest.version)}</version>\n"
    if manifest.licence:
        yield f"    <copyright>{escape(manifest.licence)}</copyright>\n"
    yield f"    <size>{file.size}</size>\n"
    yield f'    <hash type="sha-256">{file.sha256}</hash>\n'
    yield from _pieces(record)
    for number, mirror in enumerate(manifest.mirrors, 1):
        address = f"{mirror}versions/{manifest.version}/{quote(name)}"
        yield f'    <url priority="{number}">{escape(address)}</url>\n'
    yield f'    <url priority="{len(manifest.mirrors) + 1}">ipfs://{file.cid}</url>\n'
    torrent = manifest.torrents["v1"]["file"]
    for number, mirror in enumerate(manifest.mirrors, 1):
        address = f"{mirror}versions/{manifest.version}/{torrent}"
        yield (
            f'    <metaurl mediatype="torrent" priority="{number}" name={quoteattr(name)}>'
            f"{escape(address)}</metaurl>\n"
        )
    yield "  </file>\n"


def _pieces(record: Record) -> Iterator[str]:
    from ..ipfs.unixfs import PROFILES

    profile = PROFILES[record.profile]
    if profile.raw_leaves:
        kind, length, size, hashes = "sha-256", profile.chunk, 32, record.leaves
    else:
        kind, length, size, hashes = "sha-1", record.piece_length, 20, record.pieces
    if len(hashes) <= size:
        return
    yield f'    <pieces length="{length}" type="{kind}">\n'
    hashes = bytes(hashes)
    for at in range(0, len(hashes), size):
        yield f"      <hash>{hashes[at : at + size].hex()}</hash>\n"
    yield "    </pieces>\n"
