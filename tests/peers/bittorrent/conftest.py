"""A tracker for other clients."""

import http.server
import socket
import struct
import threading

import pytest
from datacomp.distribution.bencode import encode


@pytest.fixture
def tracker():
    """A tracker (BEP 3, BEP 23) that tells everyone of the ports in ``tracker.peers``."""

    class Tracker(http.server.BaseHTTPRequestHandler):
        peers: list[int] = []  # noqa: RUF012

        def do_GET(self):
            address = socket.inet_aton("127.0.0.1")
            told = b"".join(address + struct.pack(">H", port) for port in self.peers)
            body = encode({"interval": 60, "peers": told})
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tracker) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        Tracker.url = f"http://127.0.0.1:{server.server_address[1]}/announce"
        yield Tracker
        server.shutdown()
        thread.join()
