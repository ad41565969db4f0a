"""A pool with images, features and hostile captions, and a server of its pages."""

import io
import os
import subprocess
import sys
import urllib.error
import urllib.request
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.pools import Pool
from datacomp.pools.sources import open_source
from PIL import Image

HOSTILE = "<img src=x onerror=alert(1)> & \"'\u202e"
ROWS = 120


def uid_of(number):
    """Return the uid of a sample: digits that differ, as a digest's."""
    return f"{(number + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128):032x}"


def picture_of(number):
    """Return a PNG that only this number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((48 + number, 48), 0).save(buffer, "PNG")
    return buffer.getvalue()


def caption_of(number):
    kinds = ["a red shoe", "Blue SHOES on sale", "eine Straße", "写真 of a cat", "100% off_now"]
    return HOSTILE if number == 5 else "" if number == 6 else f"{kinds[number % 5]} {number}"


@pytest.fixture(scope="session")
def browsed(tmp_path_factory, tiny):
    """Return the path of a pool: DataComp's metadata with images beside them.

    The image of sample 7 is broken, that of sample 8 is not at hand.
    """
    root = tmp_path_factory.mktemp("browse")
    folder = root / "metadata"
    (folder / "pictures").mkdir(parents=True)
    model = tiny(0).load("cpu")
    data = [picture_of(number) for number in range(ROWS)]
    arrays = {
        "tiny_img": model.encode_tensors([model.prepare(one) for one in data]),
        "tiny_txt": model.encode_texts([caption_of(number) for number in range(ROWS)]),
    }
    np.savez(folder / "0.npz", **{name: array.astype("f2") for name, array in arrays.items()})
    numbers = np.arange(ROWS)
    pq.write_table(pa.table({
        "uid": [uid_of(n) for n in numbers.tolist()],
        "url": [HOSTILE if n == 5 else f"https://host{n % 3}.example/{n}.jpg" for n in numbers],
        "text": [caption_of(n) for n in numbers],
        "original_width": 48 + numbers, "original_height": numbers * 0 + 48,
        "clip_l14_similarity_score": (numbers / 400).astype(np.float32),
    }), folder / "0.parquet")  # fmt: skip
    path = root / "pool.duckdb"
    with Pool.create(path) as pool:
        pool.add(open_source("commonpool", folder))
        for number, one in enumerate(data):
            stored = b"broken" if number == 7 else one
            (folder / "pictures" / f"{number}.png").write_bytes(stored)
            if number != 8:
                pool.sql(
                    f"UPDATE samples SET shard = 'pictures/{number}.png', \"offset\" = 0, "
                    f"length = {len(stored)} WHERE metadata_row = {number}"
                )
        table = pool.score_table("aesthetic", "a" * 64, {"type": "FLOAT"})
        pool.write_scores(table, pool.uids()[:100], [i / 10 for i in range(100)])
    return path


class Server:
    """The pages of a pool, from a process of its own."""

    def __init__(self, pool, *options):
        command = [sys.executable, "-m", "datacomp.curate.cli", "pool", "browse", pool,
                   "--port", "0", *options]  # fmt: skip
        environment = {key: v for key, v in os.environ.items() if "proxy" not in key.lower()}
        self.process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:"), self.process.communicate()

    def ask(self, path, data=None, **headers):
        """Return status, headers and body."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, data=data, headers=named)
        try:
            with urllib.request.urlopen(request, timeout=240) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    def page(self, path, data=None):
        """Return status and text of a page, as a person reads it."""
        status, _, body = self.ask(path, data)
        reader = Text()
        reader.feed(body.decode())
        return status, " ".join("".join(reader.parts).split())

    def stop(self):
        """End it as its owner would; return what it wrote to stderr."""
        self.process.terminate()
        _, errors = self.process.communicate(timeout=30)
        assert self.process.returncode == 0
        return errors


class Text(HTMLParser):
    """Collects what is written on a page."""

    def __init__(self):
        super().__init__()
        self.parts = []

    def handle_data(self, data):
        self.parts.append(data)

    def handle_starttag(self, tag, attrs):
        self.parts.append(" ")


@pytest.fixture(scope="session")
def start_browse():
    """Return a starter of servers; all are ended with the tests."""
    started = []

    def start_browse(pool, *options):
        started.append(Server(pool, *options))
        return started[-1]

    yield start_browse
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
            server.process.communicate()


@pytest.fixture(scope="session")
def server(start_browse, browsed, tiny):
    spec = tiny(0)
    return start_browse(
        browsed, "--model", "tiny", "--checkpoint", spec.checkpoint, "--model-config",
        spec.model_config, "--features", "tiny_img", "--device", "cpu", "--seconds", "4",
    )  # fmt: skip


@pytest.fixture(scope="session")
def known():
    """Return how the pool's samples were made: uid, picture and caption by number."""

    class Known:
        rows, hostile = ROWS, HOSTILE
        uid, picture, caption = map(staticmethod, (uid_of, picture_of, caption_of))

    return Known
