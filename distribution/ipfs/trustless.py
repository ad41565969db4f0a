"""Answers to ``/ipfs/``: blocks and CARs, which the client verifies.

No CAR is ever stored, and none is held in memory: blocks are read as they are sent.

https://specs.ipfs.tech/http-gateways/trustless-gateway
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import quote

from ...errors import DataError, IntegrityError, MissingError, UsageError
from ...progress import warn
from . import car, dag, dagpb
from .blocks import BlockMap, TakenBackError
from .cid import CID, IDENTITY

RAW_TYPE = "application/vnd.ipld.raw"
CAR_TYPE = "application/vnd.ipld.car"
RECORD_TYPE = "application/vnd.ipfs.ipns-record"

FORMATS = {"raw": RAW_TYPE, "car": CAR_TYPE, "ipns-record": RECORD_TYPE}

IMMUTABLE = "public, max-age=31536000, immutable"

MAX_SEGMENTS = 256


@dataclass(frozen=True)
class Answer:
    """What to send: status, headers and body, an iterable that may block and may fail.

    Where the body fails half-way, close the connection: the client must not take it for whole.
    """

    status: int
    headers: dict[str, str]
    body: Iterable[bytes] = field(default=())

    @property
    def length(self) -> int | None:
        """The bytes of the body, None where only sending it will tell."""
        length = self.headers.get("content-length")
        return None if length is None else int(length)


@dataclass(frozen=True)
class _CarRequest:
    """What a CAR shall hold."""

    scope: dag.Scope
    first: int | None
    last: int | None
    dups: bool


def answer(
    blocks: BlockMap, path: str, query: Mapping[str, str], headers: Mapping[str, str]
) -> Answer:
    """Answer GET (or HEAD: send no body) of ``/ipfs/{path}``.

    ``path`` is percent-decoded and begins with the CID; names of headers are in lower case.
    """
    try:
        name, *segments = path.rstrip("/").split("/")
        if len(segments) > MAX_SEGMENTS:
            raise UsageError(f"a path of more than {MAX_SEGMENTS} names")
        root = CID.parse(name)
        kind, parameters = negotiate(query, headers)
        if kind == RAW_TYPE:
            return _raw(blocks, root, segments, headers)
        if kind == CAR_TYPE:
            return _car(blocks, root, segments, parameters, headers)
        raise UsageError("what is named by its content needs no IPNS record")
    except TakenBackError as error:
        return refusal(410, str(error))
    except IntegrityError as error:
        return damaged(error)
    except (UsageError, DataError) as error:
        return refusal(400, str(error))
    except MissingError as error:
        cached_only = "only-if-cached" in headers.get("cache-control", "")
        return refusal(412 if cached_only else 404, str(error))


def negotiate(
    query: Mapping[str, str], headers: Mapping[str, str]
) -> tuple[str | None, dict[str, str]]:
    """Return the media type asked for and the parameters of a CAR; ``format`` beats Accept.

    Raises UsageError where it is none that a trustless gateway sends.
    """
    kind: str | None = None
    parameters: dict[str, str] = {}
    for part in headers.get("accept", "").split(","):
        media, *options = part.split(";")
        if media.strip() in FORMATS.values():
            kind = media.strip()
            pairs = (word.strip().partition("=") for word in options)
            parameters = {name: value for name, _, value in pairs}
            break
    if "format" in query:
        asked = FORMATS.get(query["format"])
        if asked is None:
            raise UsageError(f"format {query['format'][:40]!r}; this gateway has raw and car")
        kind = asked
    if kind is None:
        raise UsageError("this gateway sends what can be verified: ask for ?format=raw or car")
    for key in ("version", "order", "dups"):
        if f"car-{key}" in query:
            parameters[key] = query[f"car-{key}"]
    parameters |= {key: query[key] for key in ("dag-scope", "entity-bytes") if key in query}
    return kind, parameters


def refusal(status: int, text: str) -> Answer:
    """Return an answer that says why there is no other."""
    body = text.encode("utf-8", "replace") + b"\n"
    headers = {
        "content-type": "text/plain; charset=utf-8",
        "content-length": str(len(body)),
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
    }
    return Answer(status, headers, (body,))


def damaged(error: Exception) -> Answer:
    """Return the answer where a file here is not what was released; where, its keeper is told."""
    warn(str(error))
    return refusal(500, "this copy is damaged; use another mirror")


def _raw(blocks: BlockMap, cid: CID, segments: list[str], headers: Mapping[str, str]) -> Answer:
    if segments:
        raise UsageError("a raw block is asked for by its CID alone; ask for paths as ?format=car")
    sent = _headers(RAW_TYPE, f'"{cid}.raw"', f"{cid}.bin", f"/ipfs/{cid}")
    length = blocks.length(cid)
    if _known(headers, sent["etag"]):
        return Answer(304, sent)
    sent["content-length"] = str(length)
    return Answer(200, sent, _one(blocks, cid))


def _one(blocks: BlockMap, cid: CID) -> Iterator[bytes]:
    """Read the block when it is sent, not for HEAD."""
    yield blocks.get(cid)


def _car(
    blocks: BlockMap,
    root: CID,
    segments: list[str],
    parameters: dict[str, str],
    headers: Mapping[str, str],
) -> Answer:
    request = _car_request(parameters)
    end, passed = dag.resolve(blocks.get, root, segments)
    _require(blocks, end, request.scope)
    dups = "y" if request.dups else "n"
    kind = f"{CAR_TYPE}; version=1; order=dfs; dups={dups}"
    shape = f"{'/'.join(map(str, passed))} {end} {request}"
    mark = hashlib.sha256(shape.encode()).hexdigest()[:16]
    where = "/".join((f"/ipfs/{root}", *segments))
    sent = _headers(kind, f'W/"{root}.car.{request.scope}.{mark}"', f"{end}.car", where)
    if _known(headers, sent["etag"]):
        return Answer(304, sent)
    return Answer(200, sent, car.write([end], _blocks_of(blocks, end, passed, request)))


def _require(blocks: BlockMap, end: CID, scope: dag.Scope) -> None:
    """Raise MissingError where blocks are not here: half a CAR is of no use to anyone."""
    blocks.require(end)
    folders = [end] if scope == "all" and blocks.is_folder(end) else []
    while folders:
        folder = folders.pop()
        for item in dag.list_folder(blocks.get, folder):
            try:
                blocks.require(item.cid)
            except MissingError as error:
                where = f"{folder}/{item.name}: {error}; ask for the other files one by one"
                raise type(error)(where) from None
            if blocks.is_folder(item.cid):
                folders.append(item.cid)


def _blocks_of(
    blocks: BlockMap, end: CID, passed: list[CID], request: _CarRequest
) -> Iterator[tuple[CID, bytes]]:
    """Yield the blocks of the path, then those asked for below its end."""
    scope, first, last = request.scope, 0, None
    if request.first is not None:
        scope, first, last = _absolute(blocks, end, request.first, request.last)
    path = {cid: blocks.get(cid) for cid in passed}
    seen = None if request.dups else {cid.digest for cid in path}
    below = dag.walk(blocks.get, end, scope, first, last, seen)
    # A CID that holds its bytes itself has no block; see the specification.
    return ((cid, block) for cid, block in itertools.chain(path.items(), below)
            if cid.function != IDENTITY)  # fmt: skip


def _absolute(
    blocks: BlockMap, end: CID, first: int, last: int | None
) -> tuple[dag.Scope, int, int | None]:
    """Return scope and bytes of a range that may count from the end of a file.

    Of a folder a range says nothing; a range outside of a file is answered by its first block,
    which tells the client why.
    """
    entry = dag.read_entry(end, blocks.get(end))
    if entry.kind not in (dagpb.RAW, dagpb.FILE):
        return "entity", 0, None
    first = max(first + entry.size, 0) if first < 0 else first
    if last is not None and last < 0:
        last += entry.size
    if first >= entry.size or (last is not None and last < first):
        return "block", 0, None
    return "entity", first, last


def _car_request(parameters: Mapping[str, str]) -> _CarRequest:
    """Read the parameters of a CAR; raises UsageError for what is not known or makes no sense."""
    accepted = {
        "version": ("1",), "order": ("dfs", "unk"), "dups": ("y", "n"),
        "dag-scope": ("block", "entity", "all"),
    }  # fmt: skip
    for key, values in accepted.items():
        if parameters.get(key, values[0]) not in values:
            raise UsageError(
                f"{key}={parameters[key][:40]}: this gateway knows {' and '.join(values)}"
            )
    scope = cast(dag.Scope, parameters.get("dag-scope", "all"))
    first = last = None
    if "entity-bytes" in parameters:
        scope = "entity"
        first, last = _byte_range(parameters["entity-bytes"])
    return _CarRequest(scope, first, last, parameters.get("dups") == "y")


def _byte_range(text: str) -> tuple[int, int | None]:
    found = re.fullmatch(r"(-?\d{1,18}):(-?\d{1,18}|\*)", text, re.ASCII)
    if found is None:
        raise UsageError(
            f"entity-bytes={text[:40]}: expected FROM:TO, as in 0:1023, 0:* or -1024:*"
        )
    first, last = int(found[1]), None if found[2] == "*" else int(found[2])
    if last is not None and last < first and (last < 0) == (first < 0):
        raise UsageError(f"entity-bytes={text[:40]}: ends before it begins")
    return first, last


def _headers(kind: str, etag: str, file: str, where: str) -> dict[str, str]:
    return {
        "content-type": kind,
        "content-disposition": f'attachment; filename="{file}"',
        "content-location": f"{quote(where)}?format={'raw' if kind == RAW_TYPE else 'car'}",
        "etag": etag,
        "cache-control": IMMUTABLE,
        "x-content-type-options": "nosniff",
        "x-ipfs-path": quote(where),
        "vary": "accept",
    }


def _known(headers: Mapping[str, str], etag: str) -> bool:
    """Whether the client says that it has this answer already."""
    given = [tag.strip() for tag in headers.get("if-none-match", "").split(",")]
    return "*" in given or etag.removeprefix("W/") in [tag.removeprefix("W/") for tag in given]
