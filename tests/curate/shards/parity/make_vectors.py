"""Make source.tar.xz and vectors.json: what DataComp's own resharder writes of a small folder.

Run once, by hand, with what DataComp pins as far as it touches a byte of the output (img2dataset
1.40.0, albumentations 1.3.0, opencv-python-headless 4.6.0.66, webdataset 0.2.31, pysimdjson
5.0.2; besides numpy 1.26, pyarrow 14, Pillow, Python 3.11), and a checkout of
https://github.com/mlfoundations/datacomp (4a8df19):

    python tests/curate/shards/parity/make_vectors.py CHECKOUT

The version of img2dataset matters: the blurrer of 1.47 leaves sigma to albumentations, and
faces come out three times sharper (by the deviation of what is left of a pattern).

The resharder runs unchanged, with one worker, since its order of shards depends on chance with
more; and with relative paths, so that no path of a machine gets into what it writes. Only the
entry ``cwd`` of its meta.json is dropped.
"""

import base64
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import webdataset
from PIL import Image

HERE = Path(__file__).parent
SHARDS, PER_SHARD, SHARD_SIZE = 3, 8, 5
GREY, TURNED, ODD = 3, 10, 17
"""Samples with a grey image, an image that EXIF turns, members in another order and one more."""

WANTED = [0, 1, 1, 1, 3, 4, 7, 8, 10, 11, 11, 14, 15, 17, 18, 21, 23]
"""Numbers of samples in the subset; twice is two times. One uid more is in no tar."""

FACES = {
    1: [[0.3, 0.2, 0.7, 0.8]],
    2: [[0.1, 0.1, 0.9, 0.9]],  # not in the subset
    3: [[0.25, 0.3, 0.6, 0.6]],
    7: [[0.5, 0.45, 0.95, 0.9], [0.1, 0.1, 0.3, 0.4]],  # the larger says how much
    10: [[0.2, 0.1, 0.5, 0.4]],
    11: [[-0.1, 0.6, 0.4, 1.0]],
    14: [[0.5, 0.5, 0.505, 0.505]],  # less than a pixel
    17: [[0.7, -0.05, 1.1, 0.35]],
}

rng = np.random.RandomState(20230427)  # a stream that numpy promises never to change


def uid_of(number: int) -> str:
    return hashlib.md5(b"sample %d" % number).hexdigest()


def picture(number: int) -> bytes:
    """Return a JPEG with edges for a blur to take away."""
    width, height = 40 + 2 * (number % 9), 32 + 3 * (number % 7)
    blocks = rng.randint(0, 256, (height // 4 + 1, width // 4 + 1, 3)).astype(np.uint8)
    pixels = blocks.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    if number == TURNED:
        exif[0x0112] = 6
    buffer = io.BytesIO()
    image.convert("L" if number == GREY else "RGB").save(buffer, "JPEG", quality=80, exif=exif)
    return buffer.getvalue()


def write_source(folder: Path) -> None:
    """Write tars as img2dataset does, a subset, and face boxes with DataComp's map of them."""
    shards = folder / "shards"
    shards.mkdir()
    for shard in range(SHARDS):
        writer = webdataset.TarWriter(str(shards / f"{shard:08d}.tar"))
        for place in rng.permutation(PER_SHARD):  # they stand as they arrived
            number = shard * PER_SHARD + int(place)
            key, uid, caption = f"{shard:08d}{place:04d}", uid_of(number), f"caption ä {number}"
            meta = {"url": f"https://example.org/{number}.jpg", "caption": caption, "uid": uid,
                    "key": key, "status": "success", "error_message": None}  # fmt: skip
            members = {"jpg": picture(number), "json": json.dumps(meta, indent=4).encode(),
                       "txt": caption.encode()}  # fmt: skip
            if number == ODD:
                for name in ("txt", "seg.png", "JPG", "json"):
                    data = members.get(name.lower(), b"mask")
                    info = tarfile.TarInfo(f"{key}.{name}")
                    info.size = len(data)
                    writer.tarstream.addfile(info, io.BytesIO(data))
            else:
                writer.write({"__key__": key, **members})
        writer.close()
        stats = {"count": PER_SHARD + 1, "successes": PER_SHARD, "failed_to_download": 1}
        (shards / f"{shard:08d}_stats.json").write_text(json.dumps(stats, indent=4))
    halves = [divmod(int(uid_of(n), 16), 1 << 64) for n in [*WANTED, 10**6]]
    np.save(folder / "subset.npy", np.sort(np.array(halves, "u8,u8")))
    numbers = range(SHARDS * PER_SHARD)
    kind = pa.list_(pa.list_(pa.float64()))
    table = {"uid": [uid_of(n) for n in numbers],
             "face_bboxes": pa.array([FACES.get(n, []) for n in numbers], kind)}  # fmt: skip
    pq.write_table(pa.table(table), folder / "faces.parquet")
    tars = [f"shards/{shard:08d}.tar" for shard in range(SHARDS)]
    named = {"0": {"parquet": "faces.parquet", "shards": tars}}
    (folder / "map.json").write_text(json.dumps(named))


def written(folder: Path) -> dict:
    """Return what the resharder wrote: names and digests in order, blurred images whole."""
    tars, images = {}, {}
    for path in sorted(folder.glob("*.tar")):
        members = []
        with tarfile.open(path) as file:
            for info in file:
                data = file.extractfile(info).read()
                assert (info.mode, info.uname, info.gname) == (0o444, "bigdata", "bigdata")
                members.append([info.name, hashlib.sha256(data).hexdigest()])
                if info.name.endswith("-0.webp"):
                    images[info.name] = base64.b64encode(data).decode()
        tars[path.name] = members
    meta = json.loads((folder / "meta.json").read_text())
    del meta["cwd"], meta["blur_time"]
    ids = (folder / "sample_ids.npy").read_bytes()
    return {
        "files": sorted(path.name for path in folder.iterdir()),
        "tars": tars,
        "stats": {path.name: path.read_text() for path in sorted(folder.glob("*_stats.json"))},
        "meta": meta,
        "sample_ids": hashlib.sha256(ids).hexdigest(),
        "images": images,
    }


def reshard(checkout: str, folder: Path, out: str, *options: str) -> dict:
    (folder / out).mkdir()
    script = Path(checkout, "resharder.py").resolve()
    arguments = f"-i shards -o {out} -s subset.npy -j 1 --shard-size {SHARD_SIZE}".split()
    done = subprocess.run(
        [sys.executable, str(script), *arguments, *options],
        cwd=folder, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "ERROR" not in done.stderr, done.stderr
    return written(folder / out)


def main(checkout: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_source(folder)
        with tarfile.open(HERE / "source.tar.xz", "w:xz") as file:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    info = tarfile.TarInfo(str(path.relative_to(folder)))
                    info.size = path.stat().st_size
                    file.addfile(info, io.BytesIO(path.read_bytes()))
        blur = ("--blur-metadata-map", "map.json", "--apply-blur")
        vectors = {
            "plain": reshard(checkout, folder, "plain"),
            "blur": reshard(checkout, folder, "blur", *blur),
        }
    (HERE / "vectors.json").write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
