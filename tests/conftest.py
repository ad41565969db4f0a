"""What several folders of tests share: pictures, pools, models, a web server, the command."""

import contextlib
import http.server
import importlib.util
import io
import json
import os
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.curate.cli import main
from datacomp.pools import Pool
from datacomp.pools import http as http_client
from datacomp.pools.clip_model import ModelSpec
from datacomp.pools.sources import open_source


@pytest.fixture(autouse=True, scope="session")
def _disk_is_not_waited_for():
    """Let tests go on while the disk writes: none of them cuts the power.

    Commands that run as processes of their own, and what kills them, do wait.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def picture():
    """Return a maker of images: the same number gives the same bytes."""
    from PIL import Image

    def picture(number=0, kind="PNG", width=24, height=24):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind)
        return buffer.getvalue()

    return picture


@pytest.fixture
def pool_of(tmp_path):
    """Return a maker of pools from columns; the uid of row i is i in hex."""
    opened = []

    def pool_of(name="pool", **columns):
        rows = len(next(iter(columns.values())))
        columns = {
            "uid": [f"{i:032x}" for i in range(rows)],
            "url": [f"http://x/{i}" for i in range(rows)],
            "text": [f"a caption of number {i}" for i in range(rows)],
        } | columns
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        pool = Pool.create(tmp_path / f"{name}.duckdb")
        opened.append(pool)
        assert pool.add(open_source("parquet", tmp_path / f"{name}.parquet")).added == rows
        return pool

    yield pool_of
    for pool in opened:
        pool.close()


@pytest.fixture
def commonpool():
    """Return a maker of folders in CommonPool's layout; row i of all has uid i and features i."""

    def commonpool(folder, files=2, rows=5, features=("b32_img", "l14_img"), first=0, **columns):
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(files):
            numbers = np.arange(first + number * rows, first + (number + 1) * rows)
            table = {
                "uid": [f"{i:032x}" for i in numbers],
                "url": [f"http://x/{i}" for i in numbers],
                "text": [f"a caption of number {i}" for i in numbers],
                "original_width": numbers + 300,
                "original_height": numbers + 200,
                "clip_b32_similarity_score": (numbers / 1000).astype(np.float32),
                "clip_l14_similarity_score": (numbers / 500).astype(np.float32),
                "face_bboxes": [[[0.0, 0.0, 0.5, 0.5]]] * rows,
                "sha256": [f"{i:064x}" for i in numbers],
            } | {name: list(values[:rows]) for name, values in columns.items()}
            table = {name: values for name, values in table.items() if len(values)}
            pq.write_table(pa.table(table), folder / f"{number:02d}ab.parquet")
            arrays = {
                name: (numbers[:, None] + np.zeros(8 if name[:3] == "b32" else 12)).astype("f2")
                for name in features
            }
            if arrays:
                np.savez(folder / f"{number:02d}ab.npz", **arrays)
        return folder

    return commonpool


@pytest.fixture(scope="session")
def spoil():
    """Return a way to write bytes that are no UTF-8 into one text of a parquet file."""

    def spoil(path, column, row):
        table = pq.read_table(path)
        values = [value.encode() for value in table[column].to_pylist()]
        values[row] = b"b\xff\xfed"
        raw = pa.array(values, pa.binary())
        texts = pa.StringArray.from_buffers(len(raw), *raw.buffers()[1:])
        place = table.schema.get_field_index(column)
        pq.write_table(table.set_column(place, column, texts), path)

    return spoil


@pytest.fixture(scope="session")
def clip_config():
    """Return the configuration of a tiny CLIP."""
    return {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16,
        },
        "text_cfg": {
            "context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1,
        },
    }  # fmt: skip


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, clip_config):
    """Return a maker of tiny random models: the same seed gives the same checkpoint."""
    import open_clip
    import torch

    folder = tmp_path_factory.mktemp("models")
    config = folder / "tiny.json"
    config.write_text(json.dumps(clip_config))

    def make(seed=0):
        path = folder / f"epoch_{seed}.pt"
        if not path.exists():
            torch.manual_seed(seed)
            state = open_clip.CLIP(**clip_config).state_dict()
            named = {f"module.{name}": tensor for name, tensor in state.items()}
            torch.save({"epoch": 1, "name": "tiny", "state_dict": named, "optimizer": {}}, path)
        return ModelSpec("tiny", path, config)

    return make


@pytest.fixture(scope="session")
def tiny_run(tiny):
    """Return a maker of finished runs: a folder with a tiny model and its ``info.json``."""

    def make(folder, seed=0, **more):
        spec = tiny(seed)
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        shutil.copy(spec.checkpoint, folder / "checkpoints" / "epoch_5.pt")
        shutil.copy(spec.model_config, folder / "model_config.json")
        info = {
            "model": "tiny", "model_config": "model_config.json", "seed": seed, "status": "done",
            "checkpoint": "checkpoints/epoch_5.pt",
        }  # fmt: skip
        (folder / "info.json").write_text(json.dumps({**info, **more}))
        return folder

    return make


@pytest.fixture(scope="session")
def write_run():
    """Return the writer of finished runs with results that stands in ``scored_runs.py``."""
    return beside("scored_runs").write_run


def beside(name):
    """Import a module that lies beside this file."""
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def launcher():
    """What starts Python programs that need torch; see ``launcher.py``."""
    launcher = beside("launcher").Launcher()
    yield launcher
    launcher.stop()


@pytest.fixture
def dataset_hub(monkeypatch):
    """A server that speaks the Hub's protocol; see ``hub_server.py``."""
    with beside("hub_server").serving(monkeypatch) as handler:
        yield handler
    http_client.close_connections()


@pytest.fixture(scope="session")
def s3_servers():
    """The one S3 server of all tests, for it starts slowly; a test may stop it."""
    servers = []
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def s3(monkeypatch, s3_servers):
    """An S3 server with the bucket ``bucket``, where s3fs and boto3 look; see ``s3_server.py``.

    Worker processes that were started before do not know of it.
    """
    pytest.importorskip("boto3", reason="needs the s3 extra and moto")
    s3fs = pytest.importorskip("s3fs", reason="needs the s3 extra")
    pytest.importorskip("moto.server", reason="needs moto")
    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    if not s3_servers or s3_servers[-1].process.poll() is not None:
        s3_servers[:] = [beside("s3_server").Store()]
    server = s3_servers[-1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    client = server.client()
    client.create_bucket(Bucket="bucket")
    client.close()
    server.asked.clear()
    try:
        yield server
    finally:
        server.reset()
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def throttle(s3, monkeypatch):
    """A proxy before the S3 server that throttles, cuts and drops what it is told to."""
    proxy = beside("s3_server").Throttle(s3.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    try:
        yield proxy
    finally:
        proxy.close()


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the command line; return exit code, output and errors."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["datacomp", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    return command


class RangeHandler(http.server.BaseHTTPRequestHandler):
    """Answers ranges of a dictionary of files; notes what was asked."""

    protocol_version = "HTTP/1.1"
    files: dict[str, tuple[bytes, str]]
    moves: dict[str, str]
    asked: list[tuple[str, str | None]]
    failures: int
    breaks: int

    def do_GET(self):
        type(self).asked.append((self.path, self.headers.get("Range")))
        if type(self).failures:
            type(self).failures -= 1
            self.answer(503, b"busy")
        elif self.path.startswith("/moved/"):
            self.answer(302, b"", Location="/" + self.path.removeprefix("/moved/"))
        elif self.path in self.moves:
            self.answer(302, b"", Location=self.moves[self.path])
        elif self.path.startswith("/round"):
            self.answer(302, b"", Location=self.path)
        elif self.path not in self.files:
            self.answer(404, b"no")
        else:
            data, tag = self.files[self.path]
            asked = self.headers.get("Range")
            if asked is None or self.path.startswith("/whole"):
                self.answer(200, data, ETag=tag)
                return
            first, last = map(int, asked.removeprefix("bytes=").split("-"))
            part = data[first : last + 1]
            where = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
            self.answer(206, part, ETag=tag, **{"Content-Range": where})

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


@pytest.fixture
def server(monkeypatch):
    """A web server on this machine: ``files[path] = (bytes, tag)``, ``moves[path] = URL``."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    handler = type(
        "Own", (RangeHandler,), {"files": {}, "moves": {}, "asked": [], "failures": 0, "breaks": 0}
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        handler.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield handler
        server.shutdown()
        thread.join()
    http_client.close_connections()
