"""The status of a seed as a page: for a browser on this machine or in this network."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ...errors import StorageError, UsageError

REFRESH_SECONDS = 5
REQUEST_SECONDS = 5
MAX_THREADS = 32
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
}
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; }
div { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .35rem .7rem; border-bottom: 1px solid #8885;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td ul { margin: 0; padding: 0; list-style: none; text-align: left; white-space: normal; }
"""


class StatusPage:
    """Serves what ``tell`` was last given: ``/`` for people, ``/status.json`` for machines.

    A context manager. ``listen`` is ``HOST:PORT``; port 0 is any free one, told in ``address``.
    Raises UsageError for an address that is none, StorageError for one that is taken.
    """

    def __init__(self, listen: str) -> None:
        host, _, port = listen.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535 or ":" in host:
            raise UsageError(f"--status {listen!r}: expected HOST:PORT")
        self._status: dict[str, Any] = {}
        try:
            self._server = _Server((host, int(port)), _handler(lambda: self._status))
        except OSError as error:
            raise StorageError(
                f"cannot listen on {listen}: {(error.strerror or str(error)).lower()}; choose "
                "another --status"
            ) from None
        self.address = f"http://{host}:{self._server.server_address[1]}/"

    def __enter__(self) -> StatusPage:
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def tell(self, status: dict[str, Any]) -> None:
        """Show another status from now on."""
        self._status = status


class _Server(ThreadingHTTPServer):
    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a request in a thread of its own, unless there are too many."""
        if threading.active_count() > MAX_THREADS:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)


def _handler(status: Callable[[], dict[str, Any]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_SECONDS
        server_version, sys_version = "datacomp", ""

        def do_GET(self) -> None:
            if self.path == "/":
                self._answer("text/html; charset=utf-8", render(status()))
            elif self.path == "/status.json":
                self._answer("application/json", json.dumps(status()) + "\n")
            else:
                self.send_error(404)

        def _answer(self, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(200)
            for name, value in {"Content-Type": kind, **_HEADERS}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing of requests."""

    return Handler


def render(status: dict[str, Any]) -> str:
    """Return the page of a status, as ``Seeder.status`` returns it."""
    names = ("version", "torrent", "peers", "MB given", "MB given ever", "MB/s", "state")
    head = "".join(f"<th scope=col>{name}</th>" for name in names)
    torrents = status.get("torrents", [])
    rows = "".join(_row(one) for one in torrents)
    told = (
        f"Port {status.get('port', '-')}: {status.get('peers', 0):,} peers, "
        f"{status.get('uploaded', 0) / 1e6:,.1f} MB given in {status.get('seconds', 0):,.0f} s, "
        f"{status.get('upload_rate', 0) / 1e6:,.2f} MB/s now."
    )
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f"<meta http-equiv=refresh content={REFRESH_SECONDS}>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>Seeding</title><style>{_STYLE}</style></head><body>"
        f"<h1>Seeding {escape(str(status.get('folder', '')))}</h1><p>{told}</p>"
        f"<div><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        "<p><a href='/status.json'>status.json</a></p></body></html>\n"
    )


def _row(one: dict[str, Any]) -> str:
    state = str(one["state"])
    if one["missing_files"]:
        count = one["missing_files"]
        state += f", {count:,} file{'' if count == 1 else 's'} not there"
    state = escape(state)
    if one["errors"]:
        state += f"<ul>{''.join(f'<li>{escape(error)}</li>' for error in one['errors'])}</ul>"
    cells = [
        escape(one["version"]), escape(one["kind"]), f"{one['peers']:,}",
        f"{one['uploaded'] / 1e6:,.1f}", f"{one['uploaded_ever'] / 1e6:,.1f}",
        f"{one['upload_rate'] / 1e6:,.2f}", state,
    ]  # fmt: skip
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
