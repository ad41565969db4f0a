"""Torrent files read as orders: names, sizes and v2 roots, none of them believed unchecked."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from ...errors import DataError, UnsafeInputError
from ...urls import split_url
from ..bencode import decode, locate
from ..manifest import check_paths
from ..release.torrents import MAX_TORRENT_BYTES, info_hashes
from .blocks import Layers
from .order import Order, Wanted

MAX_FILES = 1_000_000
MAX_SEEDS = 100


def read_torrent(data: bytes, where: str) -> tuple[Order, list[str]]:
    """Return the order of a torrent, and the addresses of its web seeds.

    Where the torrent can prove the bytes of each file, the web seeds are mirrors of the order.

    Raises DataError for what is no torrent of a folder of files, UnsafeInputError for names that
    would leave it.
    """
    value = decode(data, MAX_TORRENT_BYTES, where)
    info = value.get(b"info") if isinstance(value, dict) else None
    if not isinstance(info, dict) or not isinstance(info.get(b"name"), bytes):
        raise DataError(f"{where}: not a torrent")
    name = _text(info[b"name"], where)
    check_paths([name], where)
    if "/" in name:
        raise DataError(f"{where}: the name {name[:80]!r} is a path")
    if isinstance(info.get(b"file tree"), dict):
        found = list(_tree(info[b"file tree"], "", where))
    else:
        listed = v1_files(info, where)
        found = [(path, size, None) for path, size in listed if path is not None]
    if not found or len(found) > MAX_FILES:
        raise DataError(f"{where}: {len(found):,} files; not a torrent for us")
    check_paths([path for path, _, _ in found], where)
    files = tuple(
        Wanted(number, path, size, None, root) for number, (path, size, root) in enumerate(found)
    )
    seeds = value.get(b"url-list", [])
    seeds = [seeds] if isinstance(seeds, bytes) else seeds if isinstance(seeds, list) else []
    urls = [_text(url, where) for url in seeds[:MAX_SEEDS] if isinstance(url, bytes)]
    single = b"files" not in info and [file.path for file in files] == [name]
    infohash = min(names_of(data))
    order = Order(name, None, files, torrent=data, infohash=infohash, single=single)
    if urls and _is_proven(order, Layers.of_value(value)):
        order.mirrors = [base for url in urls if (base := _base(url, name, single))]
    else:
        order.seeds = [url for url in urls if _is_http(url)]
    return order, urls


def _is_proven(order: Order, layers: Layers) -> bool:
    """Tell whether a wrong byte of any file could be told."""
    return all(
        file.pieces_root is not None and layers.prove(file.size, file.pieces_root)
        for file in order.files
        if file.size
    )


def _base(seed: str, name: str, single: bool) -> str | None:
    """Return the URL to which the path of a file is added; None for what is no web seed."""
    if not _is_http(seed):
        return None
    if not single:
        return f"{seed.rstrip('/')}/{quote(name)}/"
    return seed if seed.endswith("/") else seed.removesuffix(quote(name))


def _is_http(url: str) -> bool:
    try:
        return bool(split_url(url))
    except UnsafeInputError:
        return False


def names_of(data: bytes) -> set[str]:
    """Return what names a torrent: the SHA-1 and the SHA-256 of its info dictionary, in hex.

    Raises DataError for what is no torrent.
    """
    info = locate(data, MAX_TORRENT_BYTES).get(b"info")
    if info is None:
        raise DataError("not a torrent")
    return set(info_hashes(info))


def _tree(tree: dict[Any, Any], folder: str, where: str, depth: int = 0) -> Any:
    if depth > 32:
        raise DataError(f"{where}: folders nested too deeply")
    for key, inside in tree.items():
        name = _text(key, where)
        if not isinstance(inside, dict):
            raise DataError(f"{where}: its file tree is broken at {name[:80]!r}")
        leaf = inside.get(b"")
        if isinstance(leaf, dict):
            size, root = _size(leaf.get(b"length"), where), leaf.get(b"pieces root")
            known = root.hex() if isinstance(root, bytes) and len(root) == 32 else None
            if size and known is None:
                raise DataError(f"{where}: {name[:80]!r} has no root")
            yield f"{folder}{name}", size, known if size else None
        else:
            yield from _tree(inside, f"{folder}{name}/", where, depth + 1)


def v1_files(info: dict[bytes, Any], where: str) -> list[tuple[str | None, int]]:
    """Return path and size of each file that an info dictionary lists; a pad file has no path.

    Raises DataError.
    """
    if not isinstance(info.get(b"files"), list):
        return [(_text(info.get(b"name"), where), _size(info.get(b"length"), where))]
    return [_listed(item, where) for item in info[b"files"]]


def _listed(item: Any, where: str) -> tuple[str | None, int]:
    if not isinstance(item, dict) or not isinstance(item.get(b"path"), list):
        raise DataError(f"{where}: its list of files is broken")
    attributes, size = item.get(b"attr"), _size(item.get(b"length"), where)
    if isinstance(attributes, bytes) and b"p" in attributes:  # a pad file (BEP 47)
        return None, size
    parts = [_text(part, where) for part in item[b"path"]]
    if any("/" in part for part in parts):
        raise DataError(f"{where}: a file name holds a slash")
    return "/".join(parts), size


def _size(value: Any, where: str) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << 53:
        raise DataError(f"{where}: a file has no size, or an absurd one")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, bytes):
        raise DataError(f"{where}: a name is not text")
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise DataError(f"{where}: a name is not UTF-8") from None
