"""Asking a web service over HTTP: one question at a time, answers bounded, nothing followed."""

from __future__ import annotations

import base64
import http.client
import ipaddress
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from ...errors import DataError, MissingError, RunError, UnsafeInputError, UsageError

MAX_ANSWER = 16 << 20
TIMEOUT = 600.0
"""Seconds without a byte after which a service is given up; it may have much to write."""


class ServiceError(RunError):
    """A service answered with an error; ``status`` is that of HTTP."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Service:
    """A service at a base URL; user and password in it become basic authentication.

    ``token`` is sent as a bearer token. Raises UsageError for what is no http(s) URL, or for a
    secret that would travel in the clear to another machine.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = TIMEOUT) -> None:
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError:
            raise UsageError(f"{url[:100]!r}: not a URL") from None
        if parts.scheme not in ("http", "https") or not self._host or parts.query or parts.fragment:
            raise UsageError(f"{url[:100]!r}: expected a URL as http://127.0.0.1:5001")
        self.name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        self._secure = parts.scheme == "https"
        self._base = parts.path.rstrip("/")
        self._timeout = timeout
        self._headers = {"User-Agent": "datacomp", "Accept-Encoding": "identity"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        elif parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        if "Authorization" in self._headers and not self._secure and not _is_here(self._host):
            raise UsageError(f"{self.name}: a secret is only sent over https; use https://")

    def ask(
        self,
        method: str,
        path: str,
        query: Iterable[tuple[str, str]] = (),
        body: bytes | Iterable[bytes] | None = None,
        kind: str | None = None,
    ) -> bytes:
        """Return the body of a successful answer, at most MAX_ANSWER bytes.

        Raises MissingError where nobody answers, ServiceError for an error, UnsafeInputError for an
        answer too large.
        """
        target = self._base + quote(path)
        if query := list(query):
            target += "?" + urlencode(query)
        headers = dict(self._headers)
        if kind:
            headers["Content-Type"] = kind
        chunked = body is not None and not isinstance(body, bytes)
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif body is None and method == "POST":
            headers["Content-Length"] = "0"
        make = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = make(self._host, self._port, timeout=self._timeout)
        try:
            connection.request(method, target, body, headers, encode_chunked=chunked)
            answer = connection.getresponse()
            data = answer.read(MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise MissingError(f"{self.name}: does not answer ({reason}); is it up?") from None
        finally:
            connection.close()
        if len(data) > MAX_ANSWER:
            raise UnsafeInputError(f"{self.name}{path}: an answer of over {MAX_ANSWER:,} bytes")
        if not 200 <= answer.status < 300:
            raise ServiceError(
                f"{self.name}{path}: {answer.status} {answer.reason}: {_reason(data)}",
                answer.status,
            )
        return data

    def ask_json(
        self,
        method: str,
        path: str,
        query: Iterable[tuple[str, str]] = (),
        value: Any = None,
    ) -> dict[str, Any]:
        """Ask with JSON, if there is a value, and return the JSON object that is answered."""
        body = None if value is None else json.dumps(value).encode()
        data = self.ask(method, path, query, body, "application/json" if body else None)
        return self.read_json(data, path)

    def read_json(self, data: bytes, path: str) -> dict[str, Any]:
        """Return the JSON object that an answer holds; raises DataError."""
        try:
            found = json.loads(data) if data.strip() else {}
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise DataError(f"{self.name}{path}: answers with something else than a JSON object")
        return found


def _is_here(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reason(data: bytes) -> str:
    """Return what an answer says went wrong, in one line: Kubo's Message, a pinning reason."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, dict):
        error = said.get("error")
        inner = error if isinstance(error, dict) else {}
        said = said.get("Message") or inner.get("details") or inner.get("reason")
    text = str(said) if said else data[:400].decode("utf-8", "replace")
    return " ".join(text.split())[:300] or "no reason given"
