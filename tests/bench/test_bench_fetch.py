"""Fetching a pool against bare img2dataset, with the same settings, from a server of this machine.

DATACOMP_BENCH_IMAGES says how many images there are (default 5,000), DATACOMP_BENCH_ROUNDS how
often both fetch them (default 3). Whole processes are timed; img2dataset takes longer to start, so
few images flatter ours.
"""

import json
import os
import subprocess
import sys
import time
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.pools import Pool
from datacomp.pools.sources import open_source

IMAGES = int(os.environ.get("DATACOMP_BENCH_IMAGES", "5000"))
ROUNDS = int(os.environ.get("DATACOMP_BENCH_ROUNDS", "3"))
PROCESSES, THREADS = 2, 128

SERVER = """
import asyncio, io, sys
import numpy as np
from PIL import Image

def picture(number):
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8))
    buffer = io.BytesIO()
    small.resize((640, 480), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()

PICTURES = [picture(number) for number in range(64)]

async def answer(reader, writer):
    try:
        first = await reader.readline()
        while (await reader.readline()).strip():
            pass
        data = PICTURES[int(first.split()[1].rpartition(b"/")[2].split(b".")[0]) % 64]
        head = "HTTP/1.1 200 OK\\r\\nContent-Type: image/jpeg\\r\\nContent-Length: %d\\r\\n\\r\\n"
        writer.write((head % len(data)).encode() + data)
        await writer.drain()
    except (OSError, IndexError):
        pass
    finally:
        writer.close()

async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""

BARE = """
import sys
import img2dataset
if __name__ == "__main__":
    img2dataset.download(
        url_list=sys.argv[1], image_size=512, output_folder=sys.argv[2],
        processes_count=int(sys.argv[3]), thread_count=int(sys.argv[4]),
        resize_mode="keep_ratio_largest", resize_only_if_bigger=True, output_format="webdataset",
        input_format="parquet", url_col="url", caption_col="text", bbox_col="face_bboxes",
        save_additional_columns=["uid"], oom_shard_count=8,
        number_sample_per_shard=int(sys.argv[5]),
    )
"""


@pytest.fixture
def metadata(tmp_path):
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as web:
        assert web.stdout is not None
        port = int(web.stdout.readline())
        rng = np.random.default_rng(0)
        columns = {
            "uid": [rng.bytes(16).hex() for _ in range(IMAGES)],
            "url": [f"http://127.0.0.1:{port}/{i}.jpg" for i in range(IMAGES)],
            "text": [f"a photo of number {i}" for i in range(IMAGES)],
            "face_bboxes": [[[0.1, 0.1, 0.3, 0.3]] if i % 4 == 0 else [] for i in range(IMAGES)],
        }
        pq.write_table(pa.table(columns), tmp_path / "metadata.parquet")
        yield tmp_path / "metadata.parquet"
        web.terminate()


@pytest.mark.timeout(0)
def test_fetching(metadata, tmp_path, capsys):
    """In turn, whole processes, start included: datacomp, img2dataset, datacomp, img2dataset."""
    per_shard = -(-IMAGES // 4)
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
    (tmp_path / "bare.py").write_text(BARE)

    def bare(number):
        subprocess.run(
            [sys.executable, tmp_path / "bare.py", metadata, tmp_path / f"bare{number}",
             str(PROCESSES), str(THREADS), str(per_shard)],
            check=True, capture_output=True, env=environment,
        )  # fmt: skip
        stats = (tmp_path / f"bare{number}").glob("*_stats.json")
        return sum(json.loads(path.read_bytes())["successes"] for path in stats)

    def fetch(pool, out):
        done = subprocess.run(
            [sys.executable, "-m", "datacomp.curate.cli", "pool", "fetch", pool, out, "--json",
             "--allow-private", "--processes", str(PROCESSES), "--threads", str(THREADS),
             "--shard-size", str(per_shard)],
            check=True, capture_output=True,
        )  # fmt: skip
        return json.loads(done.stdout)

    times = {"ours": [], "bare": [], "again": []}
    for number in range(ROUNDS):
        pool = tmp_path / f"pool{number}.duckdb"
        with Pool.create(pool) as opened:
            opened.add(open_source("commonpool", metadata))
        out = tmp_path / f"ours{number}"
        for name, run in (
            ("ours", lambda pool=pool, out=out: fetch(pool, out)["fetched"]),
            ("again", lambda pool=pool, out=out: fetch(pool, out)["available"]),
            ("bare", lambda number=number: bare(number)),
        ):
            started = time.perf_counter()
            assert run() == IMAGES
            times[name].append(time.perf_counter() - started)
    ratios = sorted(b / a for a, b in zip(times["ours"], times["bare"], strict=True))
    with capsys.disabled():
        print(
            f"\nfetch {IMAGES:,} images: ours {median(times['ours']):.1f} s, bare img2dataset "
            f"{median(times['bare']):.1f} s, ratio {median(ratios):.2f} ({ratios[0]:.2f} to "
            f"{ratios[-1]:.2f}); again when all is there: {median(times['again']):.1f} s"
        )
