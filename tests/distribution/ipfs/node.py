"""A node that keeps blocks and pins, with as much of Kubo's RPC as a push needs.

Real nodes are asked in tests/peers. This one takes the same requests over HTTP, believes no
block that it has not verified, and pins nothing that is not there whole. Beside it stands a
pinning service.
"""

from __future__ import annotations

import contextlib
import io
import json
import threading
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from datacomp.distribution.ipfs import car, dag
from datacomp.distribution.ipfs.cid import CID
from datacomp.errors import DatacompError


class RefusalError(Exception):
    """What Kubo answers with 500 and a message."""


class Node:
    """What a Kubo node has; ``asked`` are its commands in order, ``cars`` what was imported."""

    def __init__(self):
        self.blocks, self.pins, self.records = {}, {}, {}
        self.asked, self.cars = [], []
        self.missing_commands = set()
        self.counts = True
        self.fail = None

    def get(self, cid):
        return self.blocks[cid.digest]

    def collect_garbage(self, spare=()):
        """Remove what no pin holds, as Kubo does; ``spare`` is forgotten about."""
        kept = {cid.digest for root in self.pins for cid, _ in dag.walk(self.get, CID.parse(root))}
        self.blocks = {d: block for d, block in self.blocks.items() if d in kept or d in spare}

    def answer(self, command, query, file):
        """Return what a command answers; ``query`` is a list of pairs."""
        self.asked.append((command, *[value for key, value in query if key == "arg"]))
        arguments = [value for key, value in query if key == "arg"]
        options = dict(query)
        if self.fail == command:
            raise RefusalError("the disk is full")
        if command == "version":
            return {"Version": "0.43.1"}
        if command == "block/stat":
            assert options["offline"] == "true"
            cid = CID.parse(arguments[0])
            if cid.digest not in self.blocks:
                raise RefusalError("ipld: could not find " + str(cid))
            return {"Key": str(cid), "Size": len(self.get(cid))}
        if command == "pin/ls":
            if arguments[0] not in self.pins or options["type"] != "recursive":
                raise RefusalError(f"path '{arguments[0]}' is not pinned")
            return {"Keys": {arguments[0]: {"Type": "recursive"}}}
        if command == "dag/import":
            assert (options["pin-roots"], options["stats"]) == ("false", "true")
            self.cars.append(file)
            reader = car.Reader(io.BytesIO(file), "the CAR")
            count = 0
            for cid, block in reader:
                self.blocks[cid.digest] = block
                count += 1
            stats = {"BlockCount": count, "BlockBytesCount": len(file)}
            return {"Stats": stats} if self.counts else {}
        if command in ("pin/add", "pin/update"):
            assert options["offline"] == "true"
            if command == "pin/update" and arguments[0] not in self.pins:
                raise RefusalError("'from' cid was not recursively pinned already")
            try:
                for _ in dag.walk(self.get, CID.parse(arguments[-1])):
                    pass
            except KeyError:
                raise RefusalError("block was not found locally (offline)") from None
            self.pins[arguments[-1]] = options.get("name")
            if command == "pin/update" and options["unpin"] == "true":
                del self.pins[arguments[0]]
            return {"Pins": arguments}
        if command == "pin/rm":
            del self.pins[arguments[0]]
            return {"Pins": arguments}
        if command in ("name/put", "routing/put"):
            self.records[arguments[0]] = file
            return {"Name": arguments[0]}
        raise KeyError(command)


class PinningBook:
    """What a pinning service has: requests to pin, by id."""

    def __init__(self, token):
        self.token, self.pins, self.asked, self.count = token, {}, [], 0
        self.answer_with = None

    def pin(self, wish):
        self.count += 1
        made = {
            "requestid": f"r{self.count}", "status": "queued", "created": "2030-01-01T00:00:00Z",
            "pin": wish, "delegates": ["/dns/pins.example.org/tcp/4001"],
        }  # fmt: skip
        self.pins[made["requestid"]] = made
        return made

    def answer(self, method, path, query, body):
        self.asked.append((method, path))
        if self.answer_with is not None:
            return self.answer_with
        options = dict(query)
        _, kind, *rest = path.split("/")
        assert kind == "pins"
        if method == "GET":
            wanted = options["cid"].split(",")
            assert len(wanted) <= 10
            states = options["status"].split(",")
            found = [pin for pin in self.pins.values()
                     if pin["pin"]["cid"] in wanted and pin["status"] in states]  # fmt: skip
            return 200, {"count": len(found), "results": found}
        if method == "POST":
            if rest:
                del self.pins[rest[0]]
            return 202, self.pin(json.loads(body))
        assert method == "DELETE"
        del self.pins[rest[0]]
        return 202, None


@contextlib.contextmanager
def running(there):
    """Serve a Node or a PinningBook on a free port; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format, *args):
            pass

        def body(self):
            if self.headers.get("transfer-encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("content-length", 0)))

        def send(self, status, value):
            data = b"" if value is None else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def form(self, body):
            """Return the one file of a form, as Python's own parser of MIME reads it."""
            if not self.headers.get("content-type", "").startswith("multipart/form-data"):
                return None
            head = f"content-type: {self.headers['content-type']}\r\n\r\n".encode()
            (part,) = BytesParser(policy=HTTP).parsebytes(head + body).iter_parts()
            assert part.get_content_disposition() == "form-data"
            assert part.get_filename()
            return part.get_payload(decode=True)

        def do_POST(self):
            parts = urlsplit(self.path)
            try:
                body = self.body()
            except (ConnectionError, ValueError):  # the client broke off
                self.close_connection = True
                return
            query = parse_qsl(parts.query)
            if isinstance(there, PinningBook):
                if self.headers.get("authorization") != f"Bearer {there.token}":
                    self.send(401, {"error": {"reason": "UNAUTHORIZED", "details": "bad token"}})
                else:
                    self.send(*there.answer(self.command, parts.path, query, body))
                return
            command = parts.path.removeprefix("/api/v0/")
            if command in there.missing_commands:
                self.send(404, None)
                return
            try:
                self.send(200, there.answer(command, query, self.form(body)))
            except (RefusalError, DatacompError) as error:
                self.send(500, {"Message": str(error), "Code": 0, "Type": "error"})

        do_GET = do_DELETE = do_POST  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
