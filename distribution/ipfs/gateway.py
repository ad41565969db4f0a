"""A trustless IPFS gateway for a folder of releases, with the routing that leads clients to it.

It answers requests and knows nothing of sockets: a server hands it path, query and headers, and
sends what it returns. It has the blocks of what the manifests list and was not taken back, and
nothing else.

https://specs.ipfs.tech/http-gateways/trustless-gateway and
https://specs.ipfs.tech/routing/http-routing-v1
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import DataError, MissingError, UsageError
from ..release.pointer import RECORD
from ..stretch import Spill
from . import ipns
from .blocks import BlockMap
from .cid import CID
from .released import collect
from .trustless import RECORD_TYPE, Answer, answer, negotiate, refusal
from .unixfs import FileTree

if TYPE_CHECKING:
    from ..release import Releases

MAX_AGE = 300
"""Seconds an answer about who has a block may be kept; clients ask for every block."""

_HOST = re.compile(r"([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:]{2,45}\])(?::(\d{1,5}))?", re.ASCII)
_IPV4 = re.compile(r"\d{1,3}(\.\d{1,3}){3}", re.ASCII)


class Gateway:
    """Answers ``/ipfs/``, ``/ipns/`` and ``/routing/v1/`` for a folder of releases."""

    def __init__(self, releases: Releases) -> None:
        self.releases = releases
        self._trees: dict[str, FileTree] = {}
        self._spill = Spill()
        self.blocks = BlockMap()
        self.refresh()

    def refresh(self) -> None:
        """Take up new versions and drop what was taken back; answers under way go on."""
        trees = dict(self._trees)
        found = [collect(release, trees, self._spill) for release in self.releases.versions]
        files = [file for released in found for file in released.files.values()]
        self._trees = {tree.node.cid: tree for _, tree in files}
        self.blocks = BlockMap(
            files,
            [released.folder for released in found if released.folder is not None],
            {
                file.cid
                for release in self.releases.versions
                for file in release.manifest.files
                if file.sha256 in release.withdrawn
            },
        )

    def answer(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        """Answer GET (or HEAD: send no body) of a percent-decoded path.

        Names of headers are in lower case.
        """
        kind, _, rest = path.lstrip("/").partition("/")
        if kind == "ipfs":
            return answer(self.blocks, rest, query, headers)
        try:
            if kind == "ipns":
                return self._record_page(rest, query, headers)
            if kind == "routing":
                return self._routing(rest.removeprefix("v1/"), headers)
        except (UsageError, DataError) as error:
            return refusal(400, str(error))
        except MissingError as error:
            return refusal(404, str(error))
        return refusal(404, f"/{path}: nothing is served there")

    # -- /ipns -------------------------------------------------------------------------------

    def _record_page(
        self, name: str, query: Mapping[str, str], headers: Mapping[str, str]
    ) -> Answer:
        if negotiate(query, headers)[0] != RECORD_TYPE:
            raise UsageError("a name is answered with its record: ask for ?format=ipns-record")
        return self._record(name.rstrip("/"))

    def _record(self, name: str) -> Answer:
        """Return the IPNS record of the release key; it is verified by whoever asks."""
        key = self._key()
        if key is None or ipns.key_of(name) != key:
            raise MissingError(f"/ipns/{name[:80]}: no such name here")
        try:
            with (self.releases.folder / RECORD).open("rb") as file:
                data = file.read(ipns.MAX_RECORD + 1)
        except OSError:
            raise MissingError(f"/ipns/{name[:80]}: no record here") from None
        try:
            said = ipns.read_record(data, ipns.name_of(key))
        except DataError as error:
            raise MissingError(str(error)) from None
        return Answer(
            200,
            {
                "content-type": RECORD_TYPE,
                "content-disposition": f'attachment; filename="{ipns.name_of(key)}.ipns-record"',
                "content-length": str(len(data)),
                "cache-control": f"public, max-age={min(int(said.ttl.total_seconds()), MAX_AGE)}",
                "x-content-type-options": "nosniff",
            },
            (data,),
        )

    def _key(self) -> str | None:
        versions = self.releases.versions
        return versions[-1].manifest.key if versions else None

    # -- /routing/v1 -------------------------------------------------------------------------

    def _routing(self, path: str, headers: Mapping[str, str]) -> Answer:
        kind, _, name = path.rstrip("/").partition("/")
        if kind == "providers":
            peers = [self._peer(headers)] if CID.parse(name) in self.blocks else []
            return _listed("Providers", peers, headers)
        if kind == "peers":
            key = self._key()
            known = key is not None and ipns.key_of(name) == key
            return _listed("Peers", [self._peer(headers)] if known else [], headers)
        if kind == "ipns":
            return self._record(name)
        raise MissingError(f"/routing/v1/{path[:80]}: nothing is served there")

    def _peer(self, headers: Mapping[str, str]) -> dict[str, Any]:
        """Describe this gateway as a provider, at the address by which it was asked."""
        key = self._key()
        return {
            "Schema": "peer",
            "ID": ipns.peer_id_of(key) if key else "",
            "Addrs": [address(headers)],
            "Protocols": ["transport-ipfs-gateway-http"],
        }


def address(headers: Mapping[str, str]) -> str:
    """Return the multiaddr of the address a client used, from Host and X-Forwarded-Proto."""
    found = _HOST.fullmatch(headers.get("host", ""))
    if found is None:
        raise UsageError("a request without a proper Host header")
    secure = headers.get("x-forwarded-proto", "http") == "https"
    host, port = found[1], found[2] or ("443" if secure else "80")
    if host.startswith("["):
        kind, host = "ip6", host[1:-1]
    else:
        kind = "ip4" if _IPV4.fullmatch(host) else "dns"
    return f"/{kind}/{host}/tcp/{port}/{'https' if secure else 'http'}"


def _listed(name: str, peers: list[dict[str, Any]], headers: Mapping[str, str]) -> Answer:
    """Return peers as one JSON document, or as lines where the client reads a stream."""
    if "application/x-ndjson" in headers.get("accept", ""):
        kind = "application/x-ndjson"
        body = b"".join(json.dumps(peer).encode() + b"\n" for peer in peers)
    else:
        kind, body = "application/json", json.dumps({name: peers}).encode()
    return Answer(
        200,
        {
            "content-type": kind,
            "content-length": str(len(body)),
            "cache-control": f"public, max-age={MAX_AGE if peers else 15}",
            "vary": "accept, host",
            "x-content-type-options": "nosniff",
        },
        (body,),
    )
