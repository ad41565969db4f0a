"""A socket to serve on, and the address it is reached at."""

from __future__ import annotations

import socket

from ...errors import StorageError


def listen(host: str, port: int, backlog: int) -> socket.socket:
    """Return a listening socket; port 0 means any free one. Raises StorageError if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(backlog)
    except OSError as error:
        listening.close()
        raise StorageError(
            f"cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}; choose "
            "another --host or --port"
        ) from None
    return listening


def address_of(listening: socket.socket, host: str) -> str:
    """Return the URL of what is served on a socket."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}/"
