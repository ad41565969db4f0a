"""A server on this machine that speaks the Hub's protocol: datasets, their trees, their files."""

import contextlib
import hashlib
import http.server
import json
import threading
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "a" * 40


class HubHandler(http.server.BaseHTTPRequestHandler):
    """Serves ``repositories``: {name: {revision: {path: bytes}}}, large files as LFS has them.

    Files of LFS are sent elsewhere (``/elsewhere/...`` under another name of this machine), as the
    Hub does. ``gated`` names need the token; ``breaks`` cuts so many answers in the middle;
    ``asked`` notes path, range and credentials of every request.
    """

    protocol_version = "HTTP/1.1"
    address: str
    elsewhere: str
    repositories: dict[str, dict[str, dict[str, bytes]]]
    licences: dict[str, str]
    gated: set[str]
    lying: dict[str, bytes]
    asked: list[tuple[str, str | None, str | None]]
    breaks: int
    page: int
    slow: float

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        threading.Event().wait(self.slow)
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        type(self).asked.append(
            (path, self.headers.get("Range"), self.headers.get("Authorization"))
        )
        if path.startswith("/api/datasets/"):
            self.api(path.removeprefix("/api/datasets/"), parse_qs(parts.query))
        elif path.startswith("/datasets/"):
            self.resolve(path.removeprefix("/datasets/"))
        elif path.startswith("/elsewhere/"):
            digest = path.removeprefix("/elsewhere/")
            self.data(next(data for data in self.blobs() if sha256(data) == digest))
        else:
            self.answer(404, b"{}")

    def blobs(self):
        for revisions in self.repositories.values():
            for files in revisions.values():
                yield from files.values()

    def api(self, rest, query):
        owner, name, *words = rest.split("/")
        repository = f"{owner}/{name}"
        if repository not in self.repositories:
            self.answer(404, b"{}", **{"X-Error-Code": "RepoNotFound"})
            return
        if repository in self.gated and self.headers.get("Authorization") != "Bearer hf_token":
            self.answer(403, b"{}", **{"X-Error-Code": "GatedRepo"})
            return
        revision = "/".join(words[1:]) or "main"
        revision = self.by_commit(repository, revision)
        if revision not in self.repositories[repository]:
            self.answer(404, b"{}", **{"X-Error-Code": "RevisionNotFound"})
            return
        files = self.repositories[repository][revision]
        if not words or words[0] == "revision":
            licence = self.licences.get(repository)
            self.json({
                "id": repository, "sha": commit_of(repository, revision), "tags": [],
                "siblings": [], **({"cardData": {"license": licence}} if licence else {}),
            })  # fmt: skip
            return
        listed = [entry(path, data) for path, data in sorted(files.items())]
        start = int(query.get("cursor", ["0"])[0])
        more = {}
        if start + self.page < len(listed):
            url = (
                f"{self.address}{self.path.split('?')[0]}?recursive=true&cursor={start + self.page}"
            )
            more = {"Link": f'<{url}>; rel="next"'}
        self.json(listed[start : start + self.page], **more)

    def by_commit(self, repository, revision):
        for known in self.repositories[repository]:
            if revision == commit_of(repository, known):
                return known
        return revision

    def resolve(self, rest):
        repository, _, tail = rest.partition("/resolve/")
        commit, _, path = tail.partition("/")
        if repository in self.gated and self.headers.get("Authorization") != "Bearer hf_token":
            self.answer(403, b"{}", **{"X-Error-Code": "GatedRepo"})
            return
        data = self.repositories[repository][self.by_commit(repository, commit)][path]
        if is_large(path):
            self.answer(302, b"", Location=f"{self.elsewhere}/elsewhere/{sha256(data)}")
        else:
            self.data(data)

    def data(self, data):
        data = self.lying.get(sha256(data), data)
        asked = self.headers.get("Range")
        if asked is None:
            self.answer(200, data)
            return
        first, last = map(int, asked.removeprefix("bytes=").split("-"))
        part = data[first : last + 1]
        where = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
        self.answer(206, part, **{"Content-Range": where})

    def json(self, value, **headers):
        self.answer(
            200, json.dumps(value).encode(), **{"Content-Type": "application/json"} | headers
        )

    def answer(self, status, data, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            if type(self).breaks and status == 206 and len(data) > 1:
                type(self).breaks -= 1
                self.close_connection = True
                data = data[: len(data) // 2]
            self.wfile.write(data)

    def log_message(self, *_):
        pass


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def commit_of(repository, revision):
    return hashlib.sha1(f"{repository} {revision}".encode()).hexdigest()


def is_large(path):
    return not path.endswith(".txt")


def entry(path, data):
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    found = {"type": "file", "path": path, "size": len(data), "oid": blob}
    if is_large(path):
        found["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 130}
    return found


@contextlib.contextmanager
def serving(monkeypatch):
    """Serve, and let huggingface_hub take it for the Hub."""
    import huggingface_hub.constants  # noqa: F401

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    handler = type("Own", (HubHandler,), {
        "repositories": {}, "licences": {}, "gated": set(), "lying": {}, "asked": [],
        "breaks": 0, "page": 3, "slow": 0.0,
    })  # fmt: skip
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        port = server.server_address[1]
        handler.address = f"http://127.0.0.1:{port}"
        handler.elsewhere = f"http://localhost:{port}"
        constants = "huggingface_hub.constants"
        monkeypatch.setattr(f"{constants}.ENDPOINT", handler.address)
        template = handler.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
        try:
            yield handler
        finally:
            server.shutdown()
            thread.join()
