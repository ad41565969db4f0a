"""A mirror: an HTTP server that has the files of a release, and all that it may do wrong."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from ...errors import MissingError, UnsafeInputError
from ...urls import encode_url, join_url, split_url
from .trouble import Consequence, SourceTrouble

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.client import HTTPConnection, HTTPResponse

CHUNK = 256 << 10
PATIENCE = 20.0
"""Seconds in which a server must say something worth having."""
SLOWEST = 1024
"""Bytes a second below which a server counts as stalled."""
REDIRECTS = 5
GONE = "answers 410: its keeper has taken it back"
_CONTENT_RANGE = re.compile(r"bytes (\d{1,16})-(\d{1,16})/(\d{1,16}|\*)")
_LENGTH = re.compile(r"\d{1,16}")
_ASK_AGAIN = (408, 425, 429, 500, 502, 503, 504)


def address(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an HTTP URL; UnsafeInputError for any other."""
    parts = split_url(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname or "", port


class Mirror:
    """Files below one base URL, one connection at a time; each thread has a mirror of its own."""

    channel = "http"

    def __init__(self, base: str, patience: float = PATIENCE, exact: bool = False) -> None:
        self.base = base if exact or base.endswith("/") else f"{base}/"
        self.patience = patience
        self._home = address(self.base)
        self._connection: HTTPConnection | None = None
        self._socket: socket.socket | None = None

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def abort(self) -> None:
        """Break off what another thread is reading."""
        if self._socket is not None:
            with contextlib.suppress(OSError):  # closed already
                self._socket.shutdown(socket.SHUT_RDWR)

    def small(self, path: str, limit: int, query: str = "") -> bytes:
        """Return a whole small file; MissingError, UnsafeInputError (too large), SourceTrouble."""
        url = (join_url(self.base, quote(path)) if path else self.base) + query
        response = self._ask(url, {})
        if response.status in (404, 410):
            self.close()
            raise MissingError(f"{url}: no such file ({response.status})")
        self._refuse_status(response, url)
        data = b"".join(self._chunks(response, limit + 1))
        if len(data) > limit:
            raise UnsafeInputError(f"{url}: larger than {limit:,} bytes; refused")
        if response.length:
            raise SourceTrouble("broke off", Consequence.RETRY)
        return data

    def read(self, path: str, size: int, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes ``start`` to ``end`` of a file that must be of ``size`` bytes.

        A server that answers with the whole file is read up to there. Raises SourceTrouble.
        """
        url = join_url(self.base, quote(path))
        # The last byte of a span is named only where it is not the file's: a plain "to the end"
        # is what every server understands.
        part = {"Range": f"bytes={start}-{'' if end == size else end - 1}"}
        response = self._ask(url, part if (start, end) != (0, size) else {})
        if response.status in (404, 410):
            self.close()
            said = GONE if response.status == 410 else f"answers {response.status}"
            raise SourceTrouble(said, Consequence.SKIP)
        self._refuse_status(response, url)
        skip = 0
        if response.status == 206:
            found = _CONTENT_RANGE.fullmatch(response.getheader("Content-Range", ""))
            if found is None or (int(found[1]), int(found[2]) + 1) != (start, end):
                self._refuse("answers with other ranges than asked for", Consequence.DROP)
            total = found[3]  # pyright: ignore[reportOptionalSubscript]
            there = size if total == "*" else int(total)
        else:
            length = response.getheader("Content-Length", "")
            there = int(length) if _LENGTH.fullmatch(length) else size
            skip = start
        if there != size:
            self._refuse(f"has {there:,} bytes instead of {size:,}", Consequence.SKIP)
        for chunk in self._chunks(response, skip + end - start):
            if skip >= len(chunk):
                skip -= len(chunk)
                continue
            yield chunk[skip:] if skip else chunk
            skip = 0

    def _chunks(self, response: HTTPResponse, limit: int) -> Iterator[bytes]:
        """Yield what the server sends, up to ``limit`` bytes; one that trickles has stalled."""
        left, window, got = limit, time.monotonic(), 0
        finished = False
        try:
            while left > 0:
                chunk = response.read1(min(CHUNK, left))
                if not chunk:
                    finished = True
                    break
                left -= len(chunk)
                got += len(chunk)
                now = time.monotonic()
                if now - window > self.patience:
                    if got < SLOWEST * self.patience:
                        raise SourceTrouble("has stalled", Consequence.RETRY)
                    window, got = now, 0
                yield chunk
            finished = finished or response.length in (0, None)
        except TimeoutError:
            raise SourceTrouble(
                f"has been silent for {self.patience:g} s", Consequence.RETRY
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise SourceTrouble(f"broke off ({one_line(error)})", Consequence.RETRY) from None
        finally:
            # What is left unread must not be taken for the next answer.
            if not (finished and response.isclosed() and not response.will_close):
                self.close()

    def _ask(self, url: str, headers: dict[str, str]) -> HTTPResponse:
        for _ in range(REDIRECTS + 1):
            url = encode_url(url)
            parts = split_url(url)
            target = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
            try:
                response = self._send(target, url, headers)
            except TimeoutError:
                self.close()
                raise SourceTrouble(
                    f"has been silent for {self.patience:g} s", Consequence.RETRY
                ) from None
            except (OSError, http.client.HTTPException) as error:
                self.close()
                raise SourceTrouble(
                    f"cannot be reached ({one_line(error)})", Consequence.RETRY
                ) from None
            except ValueError as error:  # what they said makes no sense to Python's library
                self.close()
                raise SourceTrouble(
                    f"cannot be understood ({one_line(error)})", Consequence.DROP
                ) from None
            moved = response.getheader("Location")
            if response.status not in (301, 302, 303, 307, 308) or moved is None:
                return response
            self.close()
            try:
                url = join_url(url, encode_url(moved, "latin-1"))
            except UnsafeInputError:
                raise SourceTrouble(
                    f"sends us to {moved[:100]!r}, which is no address", Consequence.DROP
                ) from None
            # Whoever runs a mirror does not choose which other machines we talk to.
            if not self._at_home(url):
                raise SourceTrouble(
                    f"sends us to another site ({url[:100]}); name that one with --mirror if you "
                    "trust it", Consequence.DROP,
                )  # fmt: skip
        raise SourceTrouble("sends us round in circles", Consequence.DROP)

    def _at_home(self, url: str) -> bool:
        try:
            scheme, host, port = address(url)
        except UnsafeInputError:
            return False
        if (scheme, host, port) == self._home:
            return True
        upgraded = (scheme, host) == ("https", self._home[1]) and self._home[0] == "http"
        if upgraded and port == 443 and self._home[2] == 80:
            self._home = (scheme, host, port)
            return True
        return False

    def _send(self, target: str, url: str, headers: dict[str, str]) -> HTTPResponse:
        headers = {"Accept-Encoding": "identity", "User-Agent": "datacomp", **headers}
        kept = self._connection is not None
        try:
            return self._send_once(target, url, headers)
        except (ConnectionError, http.client.RemoteDisconnected):
            if not kept:
                raise
        self.close()  # the server had closed the connection it kept for us
        return self._send_once(target, url, headers)

    def _send_once(self, target: str, url: str, headers: dict[str, str]) -> HTTPResponse:
        connection, through_proxy = self._connected()
        connection.request("GET", url if through_proxy else target, headers=headers)
        self._socket = connection.sock
        return connection.getresponse()

    def _connected(self) -> tuple[HTTPConnection, bool]:
        """Return the connection, through a proxy if there is one, and whether to ask it by URL."""
        import urllib.request

        scheme, host, port = self._home
        proxy = urllib.request.getproxies().get(scheme)
        if proxy and urllib.request.proxy_bypass(host):
            proxy = None
        if self._connection is None:
            kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
            if proxy:
                self._connection = kind(urlsplit(proxy).netloc, timeout=self.patience)
                if scheme == "https":
                    self._connection.set_tunnel(host, port)
            else:
                self._connection = kind(host, port, timeout=self.patience)
        return self._connection, bool(proxy) and scheme == "http"

    def _refuse_status(self, response: HTTPResponse, url: str) -> None:
        if response.status in (200, 206):
            return
        again = response.status in _ASK_AGAIN
        self._refuse(
            f"answers {response.status} {response.reason}",
            Consequence.RETRY if again else Consequence.DROP,
        )

    def _refuse(self, what: str, consequence: Consequence) -> None:
        self.close()
        raise SourceTrouble(what, consequence)


def one_line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split())[:120] or type(error).__name__
