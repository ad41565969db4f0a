"""Open strangers' URLs: what img2dataset reads from, put in place of urllib's own opener.

urllib reads as much as it is sent, for as long as that takes, from wherever a redirect leads,
files of this machine included. Here bytes, time, redirects and addresses are bounded, and every
failure is a FetchFailed that says why.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import socket
import ssl
import string
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from .addresses import dial, resolve
from .limits import SMALL_BODY, Deadlines, Hosts, Room, Watched
from .optout import opted_out
from .reasons import FetchFailed

REDIRECTS = 10
PATIENCE = 6
"""A whole answer may take this many times as long as one wait for bytes."""
_PIECE = 1 << 18
_LOCAL_TROUBLE = re.compile(r"Too many open files|Cannot allocate memory")


@dataclass(frozen=True)
class Rules:
    """What may be opened: the largest body in bytes, private addresses, sites that opted out.

    ``user_agent_token`` is the name under which sites can opt out of us alone.
    """

    max_bytes: int
    allow_private: bool = False
    honour_opt_out: bool = True
    user_agent_token: str | None = None


class Opener:
    """Opens requests as ``urllib.request.urlopen`` does, for ``urllib.request.install_opener``."""

    def __init__(self, rules: Rules, deadlines: Deadlines, hosts: Hosts, room: Room) -> None:
        self.rules, self.deadlines, self.hosts, self.room = rules, deadlines, hosts, room
        self._tls = ssl.create_default_context()
        self._proxies = urllib.request.getproxies()

    def open(
        self, request: urllib.request.Request, data: Any = None, timeout: float = 10.0
    ) -> Answer:
        """Return the answer, headers read and body not yet, after following redirects."""
        url = request.full_url
        headers = {**request.headers, "Accept-Encoding": "identity", "Connection": "close"}
        ends = time.monotonic() + PATIENCE * timeout
        for _ in range(REDIRECTS + 1):
            stack = contextlib.ExitStack()
            try:
                answer = self._ask(stack, request.full_url, url, headers, timeout, ends)
            except BaseException:
                stack.close()
                raise
            if isinstance(answer, Answer):
                return answer
            stack.close()
            url = answer
        raise FetchFailed("redirects", f"more than {REDIRECTS}")

    def _ask(
        self, stack: contextlib.ExitStack, first: str, url: str, headers: dict[str, str],
        timeout: float, ends: float,
    ) -> Answer | str:  # fmt: skip
        """Ask one server; return its answer, or where it sends us."""
        parts = _split(url)
        assert parts.hostname is not None
        waiting = time.monotonic()
        stack.enter_context(self.hosts.turn(parts.hostname))
        ends += time.monotonic() - waiting
        watched = stack.enter_context(self.deadlines.watch(ends - time.monotonic()))
        with _told(watched):
            connection, target = self._connect(parts, timeout, watched)
            stack.callback(connection.close)
            connection.request("GET", target, headers=headers)
            response = connection.getresponse()
        stack.callback(response.close)
        if response.status in (301, 302, 303, 307, 308):
            moved = response.getheader("Location")
            if not moved:
                raise FetchFailed("redirects", f"{response.status} without a Location")
            try:
                return urljoin(url, _quoted(moved))
            except ValueError as error:
                raise FetchFailed("redirects", str(error)) from None
        if response.status in (429, 503):
            self.hosts.leave_alone(parts.hostname, response.getheader("Retry-After"))
        if not 200 <= response.status < 300:
            raise FetchFailed(f"http_{response.status}", response.reason)
        if self.rules.honour_opt_out:
            header = opted_out(response.headers, self.rules.user_agent_token)
            if header:
                raise FetchFailed("opted_out", header)
        return Answer(self, stack, response, watched, first)

    def _connect(
        self, parts: SplitResult, timeout: float, watched: Watched
    ) -> tuple[http.client.HTTPConnection, str]:
        """Return an open connection, and what to ask for on it."""
        assert parts.hostname is not None
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        target = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        # Of HTTPConnection only the parts that talk are used: whom to talk to is decided here.
        connection = http.client.HTTPConnection(parts.hostname, port, timeout=timeout)
        proxy = self._proxies.get(parts.scheme)
        if proxy and not urllib.request.proxy_bypass(parts.hostname):
            self._judge_behind_proxy(parts.hostname, port)
            connection = http.client.HTTPConnection(urlsplit(proxy).netloc, timeout=timeout)
            if secure:
                connection.set_tunnel(parts.hostname, port)
            connection.connect()
            watched.socket = connection.sock
            target = target if secure else parts._replace(fragment="").geturl()
        else:
            connection.sock = dial(parts.hostname, port, timeout, self.rules.allow_private)
            watched.socket = connection.sock
        connection.default_port = 443 if secure else 80
        if secure:
            wrapped = self._tls.wrap_socket(
                connection.sock, server_hostname=parts.hostname, do_handshake_on_connect=False
            )
            connection.sock = watched.socket = wrapped
            wrapped.do_handshake()
        return connection, target

    def _judge_behind_proxy(self, host: str, port: int) -> None:
        """Refuse what is private as far as this machine knows; the proxy decides the rest."""
        try:
            resolve(host, port, self.rules.allow_private)
        except FetchFailed as failed:
            if failed.reason != "dns":
                raise


class Answer:
    """An answer whose body is still to be read; a context manager, as urllib's."""

    def __init__(
        self, opener: Opener, stack: contextlib.ExitStack, response: http.client.HTTPResponse,
        watched: Watched, url: str,
    ) -> None:  # fmt: skip
        self._opener, self._stack, self._response = opener, stack, response
        self._watched, self._url = watched, url
        self.headers = response.headers

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._stack.__exit__(*exc_info)

    def read(self) -> bytes:
        """Return the whole body. Raises FetchFailed: too large, too slow, cut short, empty."""
        most, promised = self._opener.rules.max_bytes, self._response.length
        if promised is not None and promised > most:
            raise FetchFailed("too_many_bytes", f"{promised:,} promised, at most {most:,} allowed")
        with _told(self._watched):
            if promised is not None and promised > SMALL_BODY:
                self._make_room(promised)
            body = self._read(most, roomy=promised is not None and promised > SMALL_BODY)
        if self._response.length:
            raise FetchFailed("cut_short", f"{self._response.length:,} bytes are missing")
        if not body:
            raise FetchFailed("empty")
        return body

    def _read(self, most: int, roomy: bool) -> bytes:
        body = io.BytesIO()
        while piece := self._response.read1(_PIECE):
            if body.tell() + len(piece) > most:
                raise FetchFailed("too_many_bytes", f"more than {most:,}")
            if not roomy and body.tell() + len(piece) > SMALL_BODY:
                self._make_room(most)
                roomy = True
            body.write(piece)
        return body.getvalue()

    def _make_room(self, size: int) -> None:
        patience = max(self._watched.until - time.monotonic(), 0)
        self._opener.room.take(self._url, size, patience)
        # What failed is not written, so nobody else would give it back.
        self._stack.push(self._give_back_on_failure)

    def _give_back_on_failure(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._opener.room.give_back(self._url)


def _split(url: str) -> SplitResult:
    """Take a URL apart; raise FetchFailed ``bad_url`` unless it is HTTP."""
    try:
        parts = urlsplit(_quoted(url))
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as error:
        raise FetchFailed("bad_url", str(error)) from None
    if not usable:
        raise FetchFailed("bad_url", url)
    return parts


def _quoted(url: str) -> str:
    """Return a URL with what may not stand in one as percent and hex digits, as browsers do."""
    host_end = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*", url)
    start = host_end.end() if host_end else 0
    return url[:start] + quote(url[start:], safe=string.punctuation)


@contextlib.contextmanager
def _told(watched: Watched) -> Iterator[None]:
    """Turn whatever goes wrong on a connection into a FetchFailed."""
    try:
        yield
    except FetchFailed:
        raise
    except Exception as error:  # noqa: BLE001  what strangers send makes libraries raise anything
        if watched.expired:
            raise FetchFailed("timeout", "took too long altogether") from None
        raise FetchFailed(_reason(error), str(error) or type(error).__name__) from None
    if watched.expired:  # a connection that was cut can look like one that ended
        raise FetchFailed("timeout", "took too long altogether")


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, http.client.IncompleteRead):
        return "cut_short"
    if isinstance(error, ConnectionError | ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return "connection"
    if isinstance(error, ssl.SSLError | ssl.CertificateError):
        return "tls"
    if isinstance(error, http.client.InvalidURL | UnicodeError):
        return "bad_url"
    if isinstance(error, http.client.HTTPException):
        return "bad_answer"
    if isinstance(error, socket.gaierror):
        return "dns"
    if isinstance(error, OSError) and not _LOCAL_TROUBLE.search(str(error)):
        return "connection"
    return "not_fetched"
