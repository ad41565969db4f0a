"""An S3 server of its own process, and a proxy before it that throttles or drops connections."""

import http.client
import http.server
import re
import subprocess
import sys
import threading
import urllib.request
from urllib.parse import urlsplit


class Store:
    """An S3 server of its own process, and a client to fill it."""

    def __init__(self):
        command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p"]
        self.process = subprocess.Popen([*command, "0"], stderr=subprocess.PIPE, text=True)
        self.asked = []
        for line in self.process.stderr:
            found = re.search(r"Running on (http://127\.0\.0\.1:\d+)", line)
            if found:
                break
        else:
            raise RuntimeError("the S3 server did not start")
        self.url = found[1]
        self._reader = threading.Thread(target=self._note)
        self._reader.start()

    def _note(self):
        self.asked += (line for line in self.process.stderr if "HTTP/1.1" in line)

    def client(self):
        import boto3

        return boto3.client("s3", endpoint_url=self.url)

    def reset(self):
        """Forget all buckets."""
        if self.process.poll() is None:
            request = urllib.request.Request(f"{self.url}/moto-api/reset", method="POST")
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).close()

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            self._reader.join()
            self.process.stderr.close()


SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)


class Throttle(http.server.ThreadingHTTPServer):
    """Passes requests on to a server, but for those that ``trouble(method, path)`` names.

    Those are answered ``503 SlowDown`` ("throttle"), cut in the middle of the answer ("cut"), or
    not answered at all ("drop"). ``seen`` are all requests, with what became of them.
    """

    daemon_threads = True

    def __init__(self, url):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = urlsplit(url).netloc
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.trouble = lambda method, path: None
        self.seen = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self):
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request, client_address):
        """Say nothing: connections are cut on purpose."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _pass(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server = self.server
        trouble = server.trouble(self.command, self.path)
        server.seen.append((self.command, self.path, trouble))
        if trouble == "drop":
            self.close_connection = True
            return
        if trouble == "throttle":
            self.send_response(503, "Slow Down")
            self.send_header("Content-Length", str(len(SLOW_DOWN)))
            self.send_header("Content-Type", "application/xml")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(SLOW_DOWN)
            return
        connection = http.client.HTTPConnection(server.behind, timeout=30)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        self.send_response(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "server", "date"):
                self.send_header(name, value)
        if self.command != "HEAD" and answer.getheader("Content-Length") is None:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if trouble == "cut" else data)
        if trouble == "cut":
            self.close_connection = True

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self._pass
        raise AttributeError(name)
