"""Pinning services: others who keep a root and all below it.

https://ipfs.github.io/pinning-services-api-spec
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import DataError, UsageError
from .service import Service

_STATES = ("queued", "pinning", "pinned", "failed")
_REQUEST = re.compile(r"[A-Za-z0-9_~:=+-][A-Za-z0-9._~:=+-]{0,255}")
"""What may stand in a URL that we ask."""
_MULTIADDR = re.compile(r"(/[a-z][a-z0-9-]*(/[^/\s]+)?)+")
_AT_ONCE = 10
"""CIDs that a service must accept in one question."""


@dataclass(frozen=True, slots=True)
class Pin:
    """A request to pin: its id, the CID, and how far it is (queued, pinning, pinned, failed)."""

    request: str
    cid: str
    status: str
    delegates: tuple[str, ...] = ()


class PinningService:
    """A pinning service by its address and the access token of an account."""

    def __init__(self, url: str, token: str) -> None:
        self.service = Service(url, token)

    def find(self, cids: Sequence[str]) -> list[Pin]:
        """Return the pins of some CIDs that have not failed."""
        found: list[Pin] = []
        for start in range(0, len(cids), _AT_ONCE):
            some = cids[start : start + _AT_ONCE]
            query = [("cid", ",".join(some)), ("status", "queued,pinning,pinned"),
                     ("limit", "1000")]  # fmt: skip
            results = self.service.ask_json("GET", "/pins", query).get("results")
            if not isinstance(results, list):
                raise DataError(f"{self.service.name}/pins: answers without results")
            found += [pin for pin in map(self._read, results) if pin.cid in some]
        return found

    def add(self, cid: str, name: str, origins: Sequence[str] = ()) -> Pin:
        """Ask for a CID to be pinned; ``origins`` are multiaddrs where it can be had."""
        return self._read(self.service.ask_json("POST", "/pins", (), _wish(cid, name, origins)))

    def replace(self, request: str, cid: str, name: str, origins: Sequence[str] = ()) -> Pin:
        """Ask for a CID in place of an earlier one, so that what both share stays there."""
        path = f"/pins/{request}"
        return self._read(self.service.ask_json("POST", path, (), _wish(cid, name, origins)))

    def remove(self, request: str) -> None:
        """Remove a pin."""
        self.service.ask("DELETE", f"/pins/{request}")

    def _read(self, said: Any) -> Pin:
        pin = said.get("pin") if isinstance(said, dict) else None
        if (
            not isinstance(pin, dict)
            or not isinstance(said.get("requestid"), str)
            or not _REQUEST.fullmatch(said["requestid"])
            or not isinstance(pin.get("cid"), str)
            or said.get("status") not in _STATES
        ):
            raise DataError(f"{self.service.name}/pins: answers with something else than a pin")
        delegates = said.get("delegates")
        known = delegates if isinstance(delegates, list) else []
        return Pin(said["requestid"], pin["cid"], said["status"], tuple(map(str, known)))


def check_origins(origins: Sequence[str]) -> None:
    """Raise UsageError for what is no multiaddr."""
    for origin in origins:
        if len(origin) > 1000 or not _MULTIADDR.fullmatch(origin):
            raise UsageError(
                f"--origin {origin[:80]!r}: expected a multiaddr, as "
                "/ip4/203.0.113.5/tcp/4001/p2p/12D3..."
            )


def _wish(cid: str, name: str, origins: Sequence[str]) -> dict[str, Any]:
    return {"cid": cid, "name": name[:255], "origins": list(origins)[:20]}
