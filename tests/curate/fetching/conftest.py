"""A small internet on this machine: servers, and pools of URLs that lead there."""

import contextlib
import http.server
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.curate.fetching import FetchOptions, fetch_pool
from datacomp.pools import Pool
from datacomp.pools.sources import open_source
from PIL import Image


def picture_of(number=0, size=(64, 48)):
    """Return a JPEG; the same number gives the same bytes."""
    colours = [((number * 37 + i * 50) % 256, (number * 91) % 256, i * 25 % 256) for i in range(9)]
    image = Image.new("RGB", (3, 3))
    image.putdata(colours)
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """``/img/K.jpg`` is image K; other paths are functions of ``routes``."""

    routes: dict
    asked: list
    sent: int
    open_now: int
    most_open: int
    over: threading.Event

    def do_GET(self):
        own = type(self)
        own.asked.append(self.path)
        with contextlib.suppress(OSError):
            if self.path in own.routes:
                own.routes[self.path](self)
            elif self.path.startswith("/img/"):
                number = int(self.path[5:].split(".")[0])
                self.answer(200, picture_of(number), "image/jpeg")
            else:
                self.answer(404, b"no")

    def answer(self, status, data, kind="text/plain", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


@contextlib.contextmanager
def serving(address="127.0.0.1", context=None):
    handler = type("Own", (Handler,), {
        "routes": {}, "asked": [], "sent": 0, "open_now": 0, "most_open": 0,
        "over": threading.Event(),
    })  # fmt: skip
    with Server((address, 0), handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        handler.url = f"http://{address}:{server.server_address[1]}"
        try:
            yield handler
        finally:
            handler.over.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def web(monkeypatch):
    """A web server of this machine: ``web.url``, ``web.routes[path] = function of the handler``."""
    for name in (
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    with serving() as handler:
        yield handler


@pytest.fixture
def jpeg():
    """Return a maker of JPEGs; the same number gives the bytes of ``/img/NUMBER.jpg``."""
    return picture_of


@pytest.fixture
def serve():
    """Return what runs another server, at an address: a context manager."""
    return serving


@pytest.fixture
def urls(web):
    """Return a maker of URLs of the server: images, or nothing for the ``bad`` numbers."""

    def urls(count, bad=()):
        return [f"{web.url}/{'gone' if i in bad else 'img'}/{i}.jpg" for i in range(count)]

    return urls


@pytest.fixture
def urls_pool(tmp_path):
    """Return a maker of pools of URLs; the uid of the i-th is a hash-like number."""

    def urls_pool(urls, name="pool", add=False, **columns):
        count = len(urls)
        columns = {
            "uid": [uid_of(i) for i in range(count)],
            "url": urls,
            "text": [f"caption {i}" for i in range(count)],
        } | columns
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        path = tmp_path / f"{name}.duckdb"
        with Pool.open(path) if add else Pool.create(path) as pool:
            pool.add(open_source("commonpool", tmp_path / f"{name}.parquet"))
        return path

    return urls_pool


def uid_of(number):
    return f"{(number + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128):032x}"


def inline(job, rows, processes):
    """A distributor that does the work here."""
    del processes
    for row in rows:
        yield job(row)


@pytest.fixture
def fetch():
    """Fetch in this process, from this machine, without much patience."""

    def fetch(pool, out, distributor=inline, **options):
        options = {"allow_private": True, "threads": 8, "timeout": 2.0} | options
        return fetch_pool(pool, out, FetchOptions(**options), distributor)

    return fetch


@pytest.fixture
def states():
    """Return (state, reason, attempts) of every URL of a pool, in its order."""

    def states(path):
        with Pool.open(path, read_only=True) as pool:
            rows = pool.sql(
                "SELECT url, fetches.state, reason, attempts FROM samples "
                "LEFT JOIN fetches USING (uid) ORDER BY samples.rowid"
            ).fetchall()
        return {url: tuple(rest) for url, *rest in rows}

    return states


@pytest.fixture
def made():
    """Return the tars, parquet files, stats and index of a folder: name to bytes."""

    def made(out):
        return {
            path.name: path.read_bytes() for path in sorted(Path(out).iterdir())
            if path.is_file() and path.name not in ("index.json", ".lock")
        }  # fmt: skip

    return made


@pytest.fixture
def alive(web):
    """Return a way to let what was dead answer."""

    def alive(count, jpeg):
        web.routes |= {
            f"/gone/{i}.jpg": lambda h, i=i: h.answer(200, jpeg(i), "image/jpeg")
            for i in range(count)
        }

    return alive


# img2dataset starts two processes, each of which would import all of it anew.
BARE = """
import multiprocessing
import sys
fork = multiprocessing.get_context("fork")
multiprocessing.context.SpawnProcess = fork.Process
multiprocessing.get_context = lambda method=None: fork
import img2dataset
if __name__ == "__main__":
    img2dataset.download(
        url_list=sys.argv[1], image_size=512, output_folder=sys.argv[2], processes_count=1,
        thread_count=8, resize_mode="keep_ratio_largest", resize_only_if_bigger=True,
        output_format="webdataset", input_format="parquet", url_col="url", caption_col="text",
        bbox_col="face_bboxes", save_additional_columns=["uid"], oom_shard_count=8,
        number_sample_per_shard=int(sys.argv[3]),
    )
"""


@pytest.fixture
def bare():
    """Run img2dataset itself, as DataComp does, with so many URLs for each shard."""

    def bare(listed, out, per_shard=10_000):
        subprocess.run(
            [sys.executable, "-c", BARE, listed, out, str(per_shard)], check=True,
            capture_output=True, env={**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"},
        )  # fmt: skip

    return bare
