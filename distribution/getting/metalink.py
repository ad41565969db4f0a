"""Metalink 4 (RFC 5854): files with sizes, digests and addresses, as others write it too."""

from __future__ import annotations

import re
from urllib.parse import quote
from xml.etree import ElementTree

from ...errors import DataError, UnsafeInputError
from ...urls import split_url
from ..manifest import check_paths
from .order import Order, Wanted

MAX_METALINK = 1 << 28
_SPACE = "{urn:ietf:params:xml:ns:metalink}"
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def read_metalink(data: bytes, where: str) -> Order:
    """Return the order of a Metalink; a folder that all its files lie in is its name.

    A mirror is an address below which every file lies under its own path. Raises DataError and
    UnsafeInputError; a document type is refused, since its entities can grow without bound.
    """
    if len(data) > MAX_METALINK:
        raise UnsafeInputError(f"{where}: larger than {MAX_METALINK:,} bytes; refused")
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise UnsafeInputError(f"{where}: has a document type; refused")
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise DataError(f"{where}: not XML: {error}") from None
    entries = root.findall(f"{_SPACE}file")
    if root.tag != f"{_SPACE}metalink" or not entries:
        raise DataError(f"{where}: not a Metalink 4, or one without files")
    names = [entry.get("name", "") for entry in entries]
    check_paths(names, where)
    top = names[0].partition("/")[0]
    shared = all(name.startswith(f"{top}/") for name in names)
    cut = len(top) + 1 if shared else 0
    files = tuple(
        Wanted(number, name[cut:], *_facts(entry, name, where))
        for number, (entry, name) in enumerate(zip(entries, names, strict=True))
    )
    title = top if shared else where.rpartition("/")[2].partition(".")[0]
    return Order(title, None, files, _mirrors(entries, files))


def _facts(entry: ElementTree.Element, name: str, where: str) -> tuple[int, str]:
    size = (entry.findtext(f"{_SPACE}size") or "").strip()
    digest = next(
        (
            (found.text or "").strip()
            for found in entry.findall(f"{_SPACE}hash")
            if found.get("type") == "sha-256"
        ),
        "",
    )
    if not (size.isdecimal() and len(size) < 17) or not _SHA256.fullmatch(digest):
        raise DataError(f"{where}: file {name[:80]!r} has no size or no SHA-256; not enough to get")
    return int(size), digest.lower()


def _mirrors(entries: list[ElementTree.Element], files: tuple[Wanted, ...]) -> list[str]:
    """Return the base URLs that every file has an address at, the preferred ones first.

    What is no address is passed over.
    """
    found: dict[str, tuple[int, set[int]]] = {}
    for entry, file in zip(entries, files, strict=True):
        for url in entry.findall(f"{_SPACE}url"):
            text = (url.text or "").strip()
            end = quote(file.path)
            if text.startswith(("http://", "https://")) and text.endswith(f"/{end}"):
                priority = url.get("priority", "")
                number = int(priority) if priority.isdecimal() and len(priority) < 7 else 999_999
                found.setdefault(text.removesuffix(end), (number, set()))[1].add(file.number)
    whole = [(number, base) for base, (number, has) in found.items() if len(has) == len(files)]
    return [base for _, base in sorted(whole) if _is_address(base)]


def _is_address(url: str) -> bool:
    try:
        split_url(url)
    except UnsafeInputError:
        return False
    return True
