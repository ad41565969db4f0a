"""Releases on this disk, and real servers of them on this machine."""

import asyncio
import contextlib
import io
import os
import random
import subprocess
import tarfile
import threading

import pytest
import uvicorn
from datacomp.distribution.release import Plan, SigningKey, Source, create_version
from datacomp.distribution.serving import make_app

PIECE = 1 << 20


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def key():
    """The keeper's key."""
    return SigningKey.from_seed(b"k" * 32)


@pytest.fixture
def shard():
    """Return a maker of tars that fill a number of pieces; the same number gives the same."""

    def shard(number, pieces=3):
        chance = random.Random(number)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for sample in range(pieces):
                for name, data in (
                    ("txt", b"caption %d" % sample),
                    ("json", b'{"uid": "%032x"}' % (number << 16 | sample)),
                    ("jpg", chance.randbytes(PIECE - 8192)),
                ):
                    entry = tarfile.TarInfo(f"{number:05d}{sample:04d}.{name}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
        return buffer.getvalue() + bytes(-buffer.tell() % PIECE)

    return shard


@pytest.fixture
def publish(tmp_path, key):
    """Return a maker of releases of files given as a dictionary."""

    def publish(files, version="1", folder="releases", signer=None, **plan):
        source = tmp_path / f"source-{folder}"
        found = []
        for path, data in files.items():
            place = source / path
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists() or place.read_bytes() != data:
                place.unlink(missing_ok=True)
                place.write_bytes(data)
            found.append(Source(path, place))
        create_version(tmp_path / folder, found, Plan("birds", version, **plan), signer or key)
        return tmp_path / folder

    return publish


@pytest.fixture
def files(shard):
    """Four shards and a small file."""
    return {f"{n:05d}.tar": shard(n) for n in range(4)} | {"README.md": b"birds\n"}


@pytest.fixture
def small_disk(tmp_path):
    """Return a maker of a file system of so many bytes, which only root can make."""
    with contextlib.ExitStack() as stack:

        def small_disk(size):
            place = tmp_path / "disk"
            place.mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place]
            if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
                pytest.skip("no file system can be mounted here")
            stack.callback(subprocess.run, ["umount", "--lazy", place], check=True)
            return place

        yield small_disk


@contextlib.contextmanager
def running(app):
    """Run an ASGI application on a free port; yield its address."""
    config = uvicorn.Config(app, port=0, lifespan="off", ws="none", log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            threading.Event().wait(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.force_exit = server.should_exit = True
        thread.join()


class Faulty:
    """An application that misbehaves where ``fault(path, headers)`` says how, else is honest.

    Counts the requests it was asked in ``asked`` and the body bytes it gave in ``given``.
    """

    def __init__(self, app, fault=lambda path, headers: None):
        self.app, self.fault = app, fault
        self.asked, self.given = [], 0

    async def __call__(self, scope, receive, send):
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.asked.append((scope["path"], headers.get("range")))
        fault = self.fault(scope["path"], headers)
        seen = 0

        async def bent(message):
            nonlocal seen
            body = message.get("body", b"")
            if fault is not None and body:
                message = {**message, "body": await fault(bytes(body), seen)}
            seen += len(body)
            self.given += len(message.get("body", b""))
            await send(message)

        if isinstance(fault, tuple):
            status, more = fault
            await send({"type": "http.response.start", "status": status,
                        "headers": [(b"content-length", b"0"), *more]})  # fmt: skip
            await send({"type": "http.response.body"})
            return
        if fault == "no ranges":
            fault = None
            kept = [pair for pair in scope["headers"] if pair[0] != b"range"]
            scope = {**scope, "headers": kept}
        await self.app(scope, receive, bent)


@pytest.fixture
def serving():
    """Return a starter of servers of a folder of releases, honest or not; stopped at the end."""
    with contextlib.ExitStack() as stack:

        def serving(folder, fault=lambda path, headers: None):
            app = Faulty(make_app(folder), fault)
            app.url = stack.enter_context(running(app))
            return app

        yield serving


@pytest.fixture
def flip():
    """Return a fault: one wrong byte at an offset of every shard asked for."""

    def flip(offset, shards=("00001.tar",)):
        def fault(path, headers):
            if not path.endswith(tuple(shards)):
                return None
            first = headers.get("range", "bytes=0-").removeprefix("bytes=").split("-")[0]

            async def bend(body, seen):
                at = offset - int(first) - seen
                if 0 <= at < len(body):
                    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
                return body

            return bend

        return fault

    return flip


@pytest.fixture
def stall():
    """Return a fault: nothing more comes of any shard after a number of bytes."""

    def stall(after, seconds=30.0):
        def fault(path, headers):
            if not path.endswith(".tar"):
                return None

            async def bend(body, seen):
                if seen + len(body) > after:
                    await asyncio.sleep(seconds)
                return body

            return bend

        return fault

    return stall
