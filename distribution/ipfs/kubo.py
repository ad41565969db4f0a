"""Kubo, the usual IPFS node, by its RPC: import CARs, pin, publish names.

Our own CARs are imported, so the CIDs cannot come out differently than the release says. Nodes
that speak less of the RPC (js-ipfs) are asked in the ways that they know.

https://docs.ipfs.tech/reference/kubo/rpc
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator

from ...errors import DataError, MissingError, RunError
from .cid import CID
from .service import Service, ServiceError

_HERE = ("offline", "true")
"""Kubo shall look on its own disk only: it would search the network for hours."""


class Kubo:
    """A Kubo node by its RPC address, as ``http://127.0.0.1:5001``."""

    def __init__(self, api: str, token: str | None = None) -> None:
        self.service = Service(api, token)

    def version(self) -> str:
        """Return the node's version; raises MissingError where there is none."""
        try:
            return str(self._call("version").get("Version"))
        except ServiceError as error:
            if error.status not in (404, 405):
                raise
            raise MissingError(
                f"{self.service.name}: is no RPC of an IPFS node (answers {error.status}); that "
                "of Kubo is at port 5001, as a rule"
            ) from None

    def has(self, cid: str) -> bool:
        """Tell whether a block is on the node's disk."""
        return self._found("block/stat", [("arg", cid), _HERE])

    def is_pinned(self, cid: str) -> bool:
        """Tell whether a root is pinned with all below it."""
        return self._found("pin/ls", [("arg", cid), ("type", "recursive")])

    def import_car(self, parts: Iterable[bytes], last: str) -> None:
        """Send a CAR as it is made; ``last`` is the CID of its last block.

        Nothing is pinned: a pin is set once all is there. Raises RunError where not all of it was
        taken.
        """
        border = secrets.token_hex(16)
        data = self.service.ask(
            "POST",
            "/api/v0/dag/import",
            [("pin-roots", "false"), ("stats", "true")],
            _multipart(border, parts),
            f"multipart/form-data; boundary={border}",
        )
        whole = False
        for line in data.splitlines():
            said = self.service.read_json(line, "/api/v0/dag/import")
            if "Stats" in said:
                whole = True
            elif said.get("Message") or said.get("Type") == "error":
                raise RunError(f"{self.service.name}: Kubo took no CAR: {json.dumps(said)[:300]}")
        # An error after the first byte of an answer comes as a trailer; then there are no counts.
        # js-ipfs never counts.
        if not whole and not self.has(last):
            raise RunError(f"{self.service.name}: Kubo broke off the import; see its log")

    def pin(self, cid: str, name: str) -> None:
        """Pin a root with all below it, all of which must be there already."""
        self._call("pin/add", [("arg", cid), ("name", name), _HERE])

    def update_pin(self, old: str, new: str, name: str) -> None:
        """Pin ``new``, looking only at what ``old`` (pinned, and kept so) does not have.

        A node that has no such command looks at everything.
        """
        try:
            self._call("pin/update", [("arg", old), ("arg", new), ("unpin", "false"), _HERE])
        except ServiceError as error:
            if error.status != 404:
                raise
            self.pin(new, name)

    def unpin(self, cid: str) -> None:
        """Remove a pin; Kubo's garbage collection then removes what no other pin holds."""
        self._call("pin/rm", [("arg", cid)])

    def put_record(self, name: str, record: bytes) -> bool:
        """Publish a signed IPNS record, in the older way to a Kubo before 0.40.

        Returns False where the node has no command for it.
        """
        for command, key in (("name/put", name), ("routing/put", f"/ipns/{name}")):
            try:
                self._put(command, key, record)
            except ServiceError as error:
                if error.status != 404:
                    raise
            else:
                return True
        return False

    def _put(self, command: str, key: str, record: bytes) -> None:
        border = secrets.token_hex(16)
        query = [("arg", key), ("allow-offline", "true")]
        body = b"".join(_multipart(border, [record]))
        kind = f"multipart/form-data; boundary={border}"
        self.service.ask("POST", f"/api/v0/{command}", query, body, kind)

    def _call(self, command: str, query: Iterable[tuple[str, str]] = ()) -> dict[str, object]:
        return self.service.ask_json("POST", f"/api/v0/{command}", query)

    def _found(self, command: str, query: Iterable[tuple[str, str]]) -> bool:
        """Kubo answers 500 where it does not find something."""
        try:
            self._call(command, query)
        except ServiceError as error:
            if error.status != 500:
                raise
            return False
        return True


def check_root(text: str) -> str:
    """Return a CID as it is written, so that nothing else reaches an RPC; raises DataError."""
    if str(CID.parse(text)) != text:
        raise DataError(f"{text[:80]!r}: not a CID as IPFS writes it")
    return text


def _multipart(border: str, parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a form of one file."""
    yield (
        f'--{border}\r\ncontent-disposition: form-data; name="file"; filename="data"\r\n'
        "content-type: application/octet-stream\r\n\r\n"
    ).encode()
    yield from parts
    yield f"\r\n--{border}--\r\n".encode()
