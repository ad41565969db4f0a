"""HTTP with Python alone: connections are kept, redirects followed, busy servers asked again."""

from __future__ import annotations

import itertools
import os
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import DataError, MissingError, StorageError, UnsafeInputError
from ..urls import encode_url, join_url, split_url
from .hub_access import gate_of, hub_headers, is_of_the_hub

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse
    from urllib.parse import SplitResult

TRIES = 4
REDIRECTS = 5
TIMEOUT = 60.0
_CREDENTIALS = ("authorization", "cookie")
IDLE = 16
"""Connections to a server kept for the next request."""

_idle: dict[tuple[str, str], list[HTTPConnection]] = {}
_idle_lock = threading.Lock()


def close_connections() -> None:
    """Close the connections kept for the next request."""
    with _idle_lock:
        for connection in itertools.chain(*_idle.values()):
            connection.close()
        _idle.clear()


# A child must not speak on its parent's connections.
os.register_at_fork(after_in_child=_idle.clear)


def http_get(
    url: str, headers: dict[str, str], limit: int, home: bool = False
) -> tuple[HTTPResponse, bytes, str]:
    """GET a URL, following redirects; return response, at most ``limit`` bytes, final URL.

    With ``home`` one that leads to another site is a DataError.
    A connection that breaks and a server that is busy are tried again, with pauses. The Hub is
    told who asks, if there is a token; no other server is.
    """
    import http.client
    import time

    headers = {**hub_headers(url), **headers}

    trouble = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(0.25 * 2**attempt)
        try:
            response, data, found = _follow(url, headers, limit, home)
        except (OSError, http.client.HTTPException) as error:
            trouble = one_line(error)
            continue
        if response.status not in (429, 500, 502, 503, 504):
            return response, data, found
        trouble = f"the server answered {response.status} {response.reason}"
    raise StorageError(f"{url}: cannot be read: {trouble}; try again later")


def _follow(
    url: str, headers: dict[str, str], limit: int, home: bool
) -> tuple[HTTPResponse, bytes, str]:
    import http.client

    url = encode_url(url)
    for _ in range(REDIRECTS):
        parts = split_url(url)
        connection, target = _connection(parts.scheme, parts.netloc, url)
        done = False
        try:
            connection.request("GET", target, headers={"Accept-Encoding": "identity", **headers})
            response = connection.getresponse()
            data = response.read(limit)
            if len(data) < limit and response.length:
                raise http.client.IncompleteRead(data, response.length)
            done = response.isclosed() and not response.will_close
        finally:
            # What is left unread, or broken, must not be read as the next answer.
            _give_back(connection, parts.scheme, parts.netloc, done)
        moved = response.getheader("Location")
        if response.status not in (301, 302, 303, 307, 308) or moved is None:
            return response, data, url
        try:
            there = split_url(join_url(url, encode_url(moved, "latin-1")))
        except UnsafeInputError:
            raise UnsafeInputError(
                f"{url}: the server sends us to {moved[:200]!r}, which is no HTTP address; refused"
            ) from None
        if home and not _is_same_site(parts, there):
            raise DataError(
                f"{url}: the server sends us to another site ({there.geturl()[:100]}); name that "
                "one with --mirror if you trust it"
            )
        url = there.geturl()
        if (there.scheme, there.netloc) != (parts.scheme, parts.netloc):
            # Another server need not know who asks, nor who listens on the way to it.
            headers = {n: v for n, v in headers.items() if n.lower() not in _CREDENTIALS}
    raise DataError(f"{url}: more than {REDIRECTS} redirects")


def _is_same_site(before: SplitResult, after: SplitResult) -> bool:
    """Tell whether two addresses are of one server, maybe asked over TLS the second time."""
    if before.hostname != after.hostname:
        return False
    ports = {"http": 80, "https": 443}
    first, second = ((one.scheme, one.port or ports[one.scheme]) for one in (before, after))
    return first == second or (first, second) == (("http", 80), ("https", 443))


def _connection(scheme: str, netloc: str, url: str) -> tuple[HTTPConnection, str]:
    """Return a connection to a server, through a proxy if there is one, and what to ask for."""
    import http.client
    import urllib.request

    parts = urlsplit(url)
    path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    proxy = urllib.request.getproxies().get(scheme)
    if proxy and urllib.request.proxy_bypass(parts.hostname or ""):
        proxy = None
    if proxy and scheme == "http":
        path = url.split("#", maxsplit=1)[0]
    with _idle_lock:
        if _idle.get((scheme, netloc)):
            return _idle[scheme, netloc].pop(), path
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection = kind(urlsplit(proxy).netloc if proxy else netloc, timeout=TIMEOUT)
    if proxy and scheme == "https":
        connection.set_tunnel(netloc)
    return connection, path


def _give_back(connection: HTTPConnection, scheme: str, netloc: str, usable: bool) -> None:
    with _idle_lock:
        kept = _idle.setdefault((scheme, netloc), [])
        if usable and len(kept) < IDLE:
            kept.append(connection)
            return
    connection.close()


def refuse_status(response: HTTPResponse, place: str) -> None:
    """Raise MissingError or DataError for an answer that is none."""
    if response.status in (404, 410):
        raise MissingError(f"{place}: no such file ({response.status})")
    if response.status in (401, 403) and is_of_the_hub(place):
        raise MissingError(f"{place}: {gate_of(place)} ({response.status})")
    if response.status >= 300:
        raise DataError(f"{place}: the server answered {response.status} {response.reason}")


def version_of(response: HTTPResponse) -> str:
    """Return what changes when the file does: its ETag, or else its time of change."""
    return response.getheader("ETag") or response.getheader("Last-Modified") or ""


def one_line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
