"""Send a submission to a leaderboard's server."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import re
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...errors import DataError, MissingError, RunError, UnsafeInputError, UsageError

TOKEN_VARIABLE = "DATACOMP_TOKEN"
_MAX_ANSWER = 1 << 20
_SECONDS = 300


def read_token(file: Path | None, variable: str = TOKEN_VARIABLE) -> str:
    """Return the token from a file, or else from the environment; MissingError without one."""
    if file is None:
        token = os.environ.get(variable, "")
    elif not file.is_file():
        raise MissingError(f"{file}: no such file; put the server's token into it")
    else:
        with file.open(encoding="utf-8", errors="replace") as opened:
            token = opened.read(4096)
    if not re.fullmatch(r"[\x21-\x7e]{8,512}", token.strip()):
        where = file or f"the environment's {variable}"
        raise MissingError(f"{where}: holds no token; give one with --token-file FILE")
    return token.strip()


def upload(url: str, archive: Path, token: str) -> dict[str, Any]:
    """Post a tar to ``URL/api/submissions``; return the server's answer.

    Raises UnsafeInputError rather than send a token unencrypted to another machine, DataError for
    a submission the server refuses, with its reasons, RunError if it cannot be reached.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise UsageError(f"{url}: not the address of a server")
    if parts.scheme == "http" and not _is_here(parts.hostname):
        raise UnsafeInputError(f"{url}: a token is not sent without encryption; use https://")
    connection = (
        http.client.HTTPSConnection(parts.hostname, parts.port, timeout=_SECONDS,
                                    context=ssl.create_default_context())
        if parts.scheme == "https"
        else http.client.HTTPConnection(parts.hostname, parts.port, timeout=_SECONDS)
    )  # fmt: skip
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/x-tar",
        "Content-Length": str(archive.stat().st_size),
    }
    try:
        with archive.open("rb") as body:
            connection.request("POST", f"{parts.path.rstrip('/')}/api/submissions", body, headers)
            response = connection.getresponse()
            status, data = response.status, response.read(_MAX_ANSWER + 1)
    except (OSError, http.client.HTTPException) as error:
        raise RunError(
            f"{url}: cannot be reached: {str(error)[:200] or type(error).__name__}"
        ) from None
    finally:
        connection.close()
    answer = _parse(url, status, data)
    if status not in (200, 201):
        raise DataError(f"{url}: {_reasons(status, answer)}")
    answer["page"] = url.rstrip("/") + str(answer.get("page", ""))
    return answer


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parse(url: str, status: int, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data) if len(data) <= _MAX_ANSWER else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise DataError(f"{url}: answered {status}, but not as a leaderboard does")
    return value


def _reasons(status: int, answer: dict[str, Any]) -> str:
    """Return a server's reasons as one printable line."""
    text = str(answer.get("error", f"answered {status}"))[:1000]
    return "".join(c if c.isprintable() else " " for c in text)
