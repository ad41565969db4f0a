"""Shards: index, select, build and read, each against a peer or a physical limit.

The peer is mlfoundations/datacomp's ``resharder.py``. Name the file in DATACOMP_PEER_RESHARDER
to run against it, and in DATACOMP_PEER_PYTHON an interpreter that has what it imports
(webdataset 0.2.31, cloudpathlib, pysimdjson, img2dataset). DATACOMP_BENCH_SAMPLES says how many
samples of 43 kB there are (default 8,000; 100,000 are 4.3 GB), DATACOMP_BENCH_ROUNDS how often the
peer runs (default 3).
"""

import io
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from datacomp.curate.shards import build_shards, index_shards, select_shards
from datacomp.evaluate.data import find_shards
from datacomp.evaluate.loader import read_shard
from datacomp.pools import tar
from datacomp.pools.uids import UID_DTYPE, from_hex, load_subset, save_subset

SAMPLES = int(os.environ.get("DATACOMP_BENCH_SAMPLES", "8000"))
PER_SHARD = 1000
PEER = os.environ.get("DATACOMP_PEER_RESHARDER")
PEER_PYTHON = os.environ.get("DATACOMP_PEER_PYTHON", sys.executable)
ROUNDS = int(os.environ.get("DATACOMP_BENCH_ROUNDS", "3"))
INDEXED = int(os.environ.get("DATACOMP_BENCH_INDEXED", "2000000"))
pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Shards as img2dataset writes them, PAX headers included, and a subset of 30 %."""
    import webdataset

    folder = tmp_path_factory.mktemp("bench")
    (folder / "shards").mkdir()
    rng = np.random.default_rng(0)
    image = rng.bytes(60_000)
    uids = [rng.bytes(16).hex() for _ in range(SAMPLES)]
    for shard in range(SAMPLES // PER_SHARD):
        path = folder / "shards" / f"{shard:08d}.tar"
        with webdataset.TarWriter(str(path)) as writer:
            for i, uid in enumerate(uids[shard * PER_SHARD : (shard + 1) * PER_SHARD]):
                key = f"{shard:08d}{i:04d}"
                values = {"uid": uid, "caption": "a caption", "key": key, "url": f"http://x/{uid}"}
                size = int(rng.integers(15_000, 60_000))
                writer.write({"__key__": key, "jpg": image[:size], "txt": "a caption",
                              "json": json.dumps(values, indent=4)})  # fmt: skip
        path.with_name(f"{shard:08d}_stats.json").write_text(f'{{"successes": {PER_SHARD}}}')
    save_subset(folder / "s.npy", from_hex([uid for uid in uids if rng.random() < 0.3]))
    index_shards(folder / "shards")
    return folder


def drop_cache(folder):
    """Ask the system to forget the files of a folder, so that the next reading is cold."""
    for path in folder.glob("*.tar"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_all(folder):
    for path in sorted(folder.glob("*.tar")):
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 22):
                pass


@pytest.fixture
def out(tmp_path):
    """Return the name of a folder to write."""
    return tmp_path / "out"


@pytest.fixture
def clear(out):
    """Return what makes room for it: that takes time that is nobody's."""
    return lambda: shutil.rmtree(out, ignore_errors=True)


def peer(source, out):
    """Run the peer's resharder, or skip with what is missing for it."""
    if not PEER:
        pytest.skip("needs DATACOMP_PEER_RESHARDER, the path of the peer's resharder.py")
    out.mkdir()
    command = [PEER_PYTHON, PEER, "-i", source / "shards", "-o", out, "-s", source / "s.npy"]
    subprocess.run([*map(str, command), "-j", "2"], check=True, capture_output=True)
    return sum(json.loads(path.read_text())["successes"] for path in out.glob("*_stats.json"))


def command(verb, source, out):
    arguments = ["-q", "shards", verb, source / "shards", source / "s.npy", "-o", out]
    module = [sys.executable, "-m", "datacomp.curate.cli"]
    subprocess.run([*module, *map(str, arguments)], check=True, capture_output=True)
    return len(load_subset(source / "s.npy"))


@pytest.mark.parametrize("verb", ["build", "select"])
def test_against_the_resharder(source, out, clear, paired, verb):
    def ours():
        return command(verb, source, out)

    def theirs():
        return peer(source, out)

    found = theirs()
    clear()
    assert found == ours()
    paired(f"{verb} 30 % of {SAMPLES:,}", ours, theirs, against="resharder.py", rounds=ROUNDS,
           before=clear)  # fmt: skip


def test_building_cold_against_reading_the_input_once(source, out, clear, paired):
    def ours():
        return build_shards(source / "shards", source / "s.npy", out, workers=2).samples

    def reading():
        read_all(source / "shards")

    def before():
        clear()
        drop_cache(source / "shards")

    assert ours() == len(load_subset(source / "s.npy"))
    paired(f"build 30 % of {SAMPLES:,}, cold", ours, reading, against="reading all input",
           before=before)  # fmt: skip


@pytest.mark.parametrize("parsed", [False, True], ids=["read", "parsed"])
@pytest.mark.parametrize("cold", [False, True], ids=["warm", "cold"])
def test_indexing_against_reading_the_headers(source, paired, cold, parsed):
    """The limit: for each sample one read of what stands between two images, headers and all.

    It must know where the samples lie. ``parsed``: and the json there, since the uid is in it.
    """
    import pyarrow.parquet as pq

    rows = pq.read_table(source / "shards" / "index.parquet").to_pylist()
    places = []
    for row in rows:
        image, values = row["members"][0], row["members"][1]
        assert (image["extension"], values["extension"]) == ("jpg", "json")
        end = row["offset"] + image["offset"] + tar.padded(image["size"])
        at = row["offset"] + values["offset"] - end
        places.append((row["shard"], end, at, at + values["size"], row["uid"]))

    def ours():
        for name in ("index.parquet", "index.json"):
            (source / "shards" / name).unlink(missing_ok=True)
        if cold:
            drop_cache(source / "shards")
        return index_shards(source / "shards").samples

    def headers():
        if cold:
            drop_cache(source / "shards")
        files, found = {}, 0
        for name, offset, begin, end, uid in places:
            if name not in files:
                files[name] = os.open(source / "shards" / name, os.O_RDONLY)
            data = os.pread(files[name], 16 * tar.BLOCK, offset)
            found += not parsed or json.loads(data[begin:end])["uid"] == uid
        for descriptor in files.values():
            os.close(descriptor)
        return found

    assert ours() == headers() == SAMPLES
    label = "cold" if cold else "warm"
    limit = "reads of headers and json" if parsed else "bare reads of headers"
    paired(f"index {SAMPLES:,} samples, {label}", ours, headers, against=limit, rounds=3)


def test_reading_a_view_against_built_shards(source, tmp_path, paired):
    select_shards([source / "shards"], source / "s.npy", tmp_path / "view")
    build_shards(source / "shards", source / "s.npy", tmp_path / "built")

    def read(folder):
        return sum(1 for shard in find_shards(folder).shards for _ in read_shard(shard))

    assert read(tmp_path / "view") == read(tmp_path / "built") > 0
    paired("read a view's samples", lambda: read(tmp_path / "view"),
           lambda: read(tmp_path / "built"), against="built shards")  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A view of half the samples of shards of real JPEG images, and the shards built of it."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    (folder / "shards").mkdir()
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (600, 600, 3), dtype=np.uint8)
    uids = [rng.bytes(16).hex() for _ in range(1200)]
    for shard in range(3):
        with (folder / "shards" / f"{shard:08d}.tar").open("wb") as file:
            writer = tar.TarWriter(file)
            for number in range(shard * 400, shard * 400 + 400):
                left, top = (int(at) for at in rng.integers(0, 300, 2))
                image = io.BytesIO()
                Image.fromarray(noise[top : top + 300, left : left + 300]).save(image, "JPEG")
                writer.add(f"{number:06d}.jpg", image.getvalue())
                writer.add(f"{number:06d}.json", json.dumps({"uid": uids[number]}).encode())
                writer.add(f"{number:06d}.txt", f"caption {number}".encode())
            writer.close()
    save_subset(folder / "s.npy", from_hex(uids[::2]))
    sources = [folder / "shards"]
    select_shards(sources, folder / "s.npy", folder / "view", shard_size=200)
    build_shards(sources, folder / "s.npy", folder / "built", shard_size=200)
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_training_from_a_view_against_built_shards(photos, paired, workers):
    import open_clip
    import torch
    from datacomp.evaluate.loader import training_loader
    from datacomp.evaluate.set_aside import SetAsideLog
    from open_clip.transform import PreprocessCfg, image_transform_v2

    augment = image_transform_v2(PreprocessCfg(size=224), is_train=True)
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    args = SimpleNamespace(
        batch_size=16, world_size=1, rank=0, accum_freq=1, epochs=1, workers=workers,
        train_num_samples=256,
    )  # fmt: skip

    def batches(folder):
        aside = SetAsideLog(photos / "set_aside.jsonl")
        get_data = training_loader([find_shards(photos / folder)], None, 0, None, aside)
        return iter(get_data(args, (augment, None), 0, tokenizer)["train"].dataloader)

    same = zip(batches("view"), batches("built"), strict=True)
    assert all(torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in same)
    paired(f"256 training samples, {workers} workers", lambda: list(batches("view")),
           lambda: list(batches("built")), against="built shards", rounds=3)  # fmt: skip


def test_selecting_from_a_large_index(out, clear, tmp_path_factory, paired):
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("large")
    subset = large_index(folder / "index")
    save_subset(folder / "s.npy", subset)

    def ours():
        report = select_shards([folder / "index"], folder / "s.npy", out)
        return report.samples

    def reading():
        pq.read_table(folder / "index" / "index.parquet", columns=["uid"])
        return len(subset)

    assert ours() == reading()
    paired(f"select {len(subset):,} of {INDEXED:,}", ours, reading, against="reading the uids",
           before=clear)  # fmt: skip
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"most memory of this process: {used:,} MB")


def large_index(folder: Path) -> np.ndarray:
    """Write an index of tars that hold nothing; return 30 % of its uids."""
    import pyarrow as pa
    from datacomp.curate.shards.storage import ShardRecord, TableWriter, save_metadata, schema
    from datacomp.pools.uids import to_hex

    folder.mkdir()
    rng = np.random.default_rng(0)
    records, chosen, per = [], [], 10_000
    members = pa.array([[]] * per, schema().field("members").type)
    with TableWriter(folder / "index.parquet") as writer:
        for number in range(INDEXED // per):
            uids = np.frombuffer(rng.bytes(16 * per), UID_DTYPE)
            chosen.append(uids[rng.random(per) < 0.3])
            length = rng.integers(40, 120, per) * tar.BLOCK
            columns = [to_hex(uids), [f"{number:08d}.tar"] * per,
                       np.cumsum(length) - length, length, [""] * per, members]  # fmt: skip
            writer.write(pa.Table.from_arrays([pa.array(c) for c in columns], schema=schema()))
            path = folder / f"{number:08d}.tar"
            with path.open("wb") as file:
                file.truncate(int(length.sum()))
            stat = path.stat()
            records.append(ShardRecord(path.name, stat.st_size, str(stat.st_mtime_ns), per))
    save_metadata(folder, None, records, {})
    return np.concatenate(chosen)
