"""Fetching a pool: states, retries, the shards, whose folder it is, and that img2dataset did it."""

import hashlib
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from datacomp.curate.fetching import FetchOptions
from datacomp.curate.shards.index import load_index
from datacomp.curate.subset import write_subset
from datacomp.errors import MissingError, StorageError, UsageError
from datacomp.pools import Pool
from datacomp.pools.fetches import available_uids, effective_pool
from datacomp.pools.sources import open_source
from datacomp.pools.uids import to_hex
from PIL import Image


def members(path):
    """Return the members of a tar, in order."""
    with tarfile.open(path) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}


def test_shards_states_and_index(web, urls, urls_pool, fetch, states, tmp_path):
    pool = urls_pool(urls(25, bad=(3, 4)), text=[f"caption {i}" for i in range(24)] + [None])
    report = fetch(pool, tmp_path / "out", per_shard=10)
    assert (report.fetched, report.failed, report.shards) == (23, {"http_404": 2}, 3)
    assert (report.available, report.samples) == (23, 25)
    found = states(pool)
    assert found[f"{web.url}/img/0.jpg"] == ("ok", None, 1)
    assert found[f"{web.url}/gone/3.jpg"] == ("failed", "http_404", 1)
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == [
        ".lock",
        *(f"{i:08d}{end}" for i in range(3) for end in (".parquet", ".tar", "_stats.json")),
        "fetch.json", "index.json", "index.parquet",
    ]  # fmt: skip
    rows = pq.read_table(out / "00000000.parquet").to_pylist()
    assert [row["key"] for row in rows] == [
        f"{i:09d}" for i in range(10)
    ]  # 8 digits of the shard, 1 of the sample
    index = load_index(out)
    assert index is not None
    assert index.samples == 23
    indexed = pq.read_table(out / "index.parquet", columns=["uid"])["uid"].to_pylist()
    with Pool.open(pool, read_only=True) as opened:
        assert sorted(indexed) == to_hex(available_uids(opened))
    sample = members(out / "00000002.tar")
    key = next(iter(sample)).split(".")[0]
    assert list(sample)[:3] == [f"{key}.jpg", f"{key}.json", f"{key}.txt"]
    told = json.loads(sample[f"{key}.json"])
    assert told["caption"] == sample[f"{key}.txt"].decode()
    assert told["status"] == "success"
    stats = json.loads((out / "00000000_stats.json").read_text())
    assert stats["count"] == stats["successes"] + stats["failed_to_download"] == 10


def test_again_fetches_only_what_is_pending(web, urls, urls_pool, fetch, states, tmp_path, made):
    first = urls(12, bad=(2,))
    pool = urls_pool(first)
    fetch(pool, tmp_path / "out", per_shard=5)
    before = made(tmp_path / "out")
    web.asked.clear()
    started = time.monotonic()
    report = fetch(pool, tmp_path / "out", per_shard=5)
    assert (report.tried, report.shards, web.asked) == (0, 0, [])
    assert time.monotonic() - started < 3
    assert made(tmp_path / "out") == before
    # New samples are pending, and go to new shards.
    urls_pool([*first, *(f"{web.url}/img/{i}.jpg" for i in (90, 91))], add=True)
    report = fetch(pool, tmp_path / "out", per_shard=5)
    assert sorted(web.asked) == ["/img/90.jpg", "/img/91.jpg"]
    assert (report.fetched, report.shards, report.available) == (2, 1, 13)
    after = made(tmp_path / "out")
    assert {name: after[name] for name in before if name != "index.parquet"} == {
        name: data for name, data in before.items() if name != "index.parquet"
    }
    assert load_index(tmp_path / "out").samples == 13


def test_retry_by_reason(web, urls, urls_pool, fetch, states, alive, jpeg, tmp_path):
    def busy(handler):  # after which the host is left alone: the last to be answered
        until = time.monotonic() + 1.5
        while len(web.asked) < 4 and time.monotonic() < until:
            time.sleep(0.01)
        handler.answer(503, b"")

    web.routes |= {"/gone/1.jpg": lambda h: h.answer(500, b""), "/gone/2.jpg": busy}
    pool = urls_pool([*urls(4, bad=(0, 1, 2)), "http://x.invalid/1.jpg"])
    report = fetch(pool, tmp_path / "out")
    assert report.failed == {"dns": 1, "http_404": 1, "http_500": 1, "http_503": 1}
    alive(4, jpeg)
    web.asked.clear()
    report = fetch(pool, tmp_path / "out", retry=("5xx", "dns"))
    assert sorted(web.asked) == ["/gone/1.jpg", "/gone/2.jpg"]
    assert (report.fetched, report.failed, report.shards) == (2, {"dns": 1}, 1)
    found = states(pool)
    assert found[f"{web.url}/gone/1.jpg"] == ("ok", None, 2)
    assert found["http://x.invalid/1.jpg"] == ("failed", "dns", 2)
    assert found[f"{web.url}/gone/0.jpg"] == ("failed", "http_404", 1)
    assert fetch(pool, tmp_path / "out", retry=("timeout",)).tried == 0
    assert load_index(tmp_path / "out").samples == 3


def test_nothing_that_answers_makes_an_empty_shard(web, urls, urls_pool, fetch, tmp_path):
    pool = urls_pool(urls(4, bad=range(4)))
    report = fetch(pool, tmp_path / "out", per_shard=2)
    assert (report.fetched, report.available, report.shards) == (0, 0, 2)
    assert members(tmp_path / "out/00000000.tar") == {}
    assert load_index(tmp_path / "out").samples == 0


def test_a_new_url_is_fetched_again(web, urls, urls_pool, fetch, states, tmp_path):
    pool = urls_pool(urls(3, bad=(1,)))
    fetch(pool, tmp_path / "out")
    urls_pool([f"{web.url}/img/{i}.jpg" for i in (0, 51, 2)], add=True)
    assert states(pool)[f"{web.url}/img/51.jpg"] == ("pending", "http_404", 1)
    assert fetch(pool, tmp_path / "out").fetched == 1
    assert states(pool)[f"{web.url}/img/51.jpg"] == ("ok", None, 2)


def test_verify(web, urls, urls_pool, fetch, states, jpeg, tmp_path):
    digests = [hashlib.sha256(jpeg(i)).hexdigest() for i in range(4)]
    digests[1] = "0" * 64  # another image stands there now
    digests[2] = digests[2].upper()
    digests[3] = None
    pool = urls_pool(urls(4), sha256=digests)
    report = fetch(pool, tmp_path / "out", verify="sha256")
    assert (report.fetched, report.failed) == (2, {"hash_mismatch": 1})
    assert states(pool)[f"{web.url}/img/1.jpg"] == ("failed", "hash_mismatch", 1)
    assert states(pool)[f"{web.url}/img/3.jpg"] == (None, None, None)  # nothing to compare with
    found = members(tmp_path / "out/00000000.tar")
    told = [json.loads(data) for name, data in found.items() if name.endswith(".json")]
    assert sorted(one["sha256"] for one in told) == sorted([digests[0], digests[2].lower()])
    assert fetch(pool, tmp_path / "out").fetched == 1  # without --verify it is taken
    other = urls_pool(urls(1), "other")
    with pytest.raises(UsageError, match="records no sha256 to compare with; leave out --verify"):
        fetch(other, tmp_path / "other", verify="sha256")
    assert not (tmp_path / "other" / ".pending").exists()


def test_a_subset(web, urls, urls_pool, fetch, states, tmp_path):
    pool = urls_pool(urls(6))
    with Pool.open(pool) as opened:
        chosen = opened.uids()[::2]
    write_subset(tmp_path / "half.npy", chosen, {})
    report = fetch(pool, tmp_path / "out", subset=tmp_path / "half.npy")
    assert (report.fetched, report.available) == (3, 3)
    with Pool.open(pool) as opened:
        assert to_hex(available_uids(opened)) == to_hex(chosen)
    assert fetch(pool, tmp_path / "out").fetched == 3


def test_the_same_images_as_bare_img2dataset(web, urls, urls_pool, fetch, bare, tmp_path):
    """DataComp's own call, on the same list: images, captions and metadata are the same bytes."""
    boxes = [[[0.1, 0.1, 0.6, 0.7]] if i % 2 else [] for i in range(6)]
    big = io.BytesIO()
    Image.effect_noise((900, 600), 80).convert("RGB").save(big, "PNG")
    web.routes["/big.png"] = lambda h: h.answer(200, big.getvalue(), "image/png")
    pool = urls_pool([*urls(5), f"{web.url}/big.png"], face_bboxes=boxes)
    fetch(pool, tmp_path / "out", timeout=10)
    bare(tmp_path / "pool.parquet", tmp_path / "bare")

    def by_uid(path):
        found = members(path)
        told = {name[:-5]: json.loads(data) for name, data in found.items() if ".json" in name}
        return {
            one.pop("uid"): (found[f"{key}.jpg"], found[f"{key}.txt"], {**one, "key": None})
            for key, one in told.items()
        }

    ours, theirs = by_uid(tmp_path / "out/00000000.tar"), by_uid(tmp_path / "bare/00000000.tar")
    assert len(ours) == 6
    assert ours == theirs
    blurred = next(told for _, _, told in ours.values() if told["face_bboxes"])
    assert blurred["width"] <= 512
    theirs = pq.read_schema(tmp_path / "bare/00000000.parquet")
    assert pq.read_schema(tmp_path / "out/00000000.parquet").equals(theirs)


def test_faces_are_never_passed_through(web, urls, urls_pool, fetch, states, tmp_path):
    noise = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(noise, "PNG")
    for path in ("/img/0.jpg", "/img/4.jpg"):
        web.routes[path] = lambda h: h.answer(200, noise.getvalue(), "image/png")
    boxes = [[[0.0, 0.0, 1.0, 1.0]], None, [[0.1, 0.2]], [[float("nan")] * 4], []]
    pool = urls_pool(urls(5), face_bboxes=boxes)
    fetch(pool, tmp_path / "out")
    assert [reason for _, reason, _ in states(pool).values()] == [
        None, "boxes_unknown", "image_broken", "image_broken", None,
    ]  # fmt: skip
    found = members(tmp_path / "out/00000000.tar")
    told = {json.loads(d)["url"][-5]: n[:-5] for n, d in found.items() if n.endswith(".json")}
    contrast = [np.asarray(Image.open(io.BytesIO(found[f"{told[i]}.jpg"]))).std() for i in "04"]
    assert contrast[0] < contrast[1] / 2
    with pytest.raises(UsageError, match="no column 'faces' of faces to blur"):
        fetch(urls_pool(urls(1), "b"), tmp_path / "b", boxes="faces")
    report = fetch(urls_pool(urls(5), "c", face_bboxes=boxes), tmp_path / "c", boxes=None)
    assert report.fetched == 5


def test_the_same_bytes_whoever_answers_first(web, urls_pool, fetch, tmp_path, made):
    def lazily(handler):
        time.sleep(random.random() * 0.03)
        handler.answer(200, pictures[handler.path], "image/jpeg")

    picture = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(picture, "JPEG")
    pictures = {f"/lazy/{i}.jpg": picture.getvalue() for i in range(24)}
    web.routes |= dict.fromkeys(pictures, lazily)
    pool = [f"{web.url}{path}" for path in pictures]
    results = []
    for name, threads in (("a", 16), ("b", 1)):
        fetch(urls_pool(pool, name), tmp_path / name, per_shard=10, threads=threads)
        results.append(made(tmp_path / name))
    assert results[0] == results[1]
    assert len(results[0]) == 11


# -- whose folder it is ----------------------------------------------------------------------


def test_refusals(web, urls, urls_pool, fetch, tmp_path):
    pool = urls_pool(urls(2))
    fetch(pool, tmp_path / "out")
    with pytest.raises(UsageError, match=r"its images are in .*/out already; fetch there"):
        fetch(pool, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
    other = urls_pool(urls(3), "other")
    with pytest.raises(UsageError, match="holds the images of another pool"):
        fetch(other, tmp_path / "out")
    with pytest.raises(UsageError, match="was fetched with size 512, not 256; keep it"):
        fetch(pool, tmp_path / "out", size=256)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("x")
    with pytest.raises(UsageError, match=r"is not empty \(notes.txt\)"):
        fetch(other, tmp_path / "full")
    assert os.listdir(tmp_path / "full") == ["notes.txt"]
    with pytest.raises(MissingError, match="no such pool"):
        fetch(tmp_path / "none.duckdb", tmp_path / "o2")
    with pytest.raises(UsageError, match="distributor 'slurm': expected one of local"):
        fetch(pool, tmp_path / "out", distributor="slurm")
    with pytest.raises(UsageError, match="--retry 'dsn': no such reason"):
        fetch(pool, tmp_path / "out", retry=("dsn",))
    with pytest.raises(UsageError, match="threads is 0"):
        FetchOptions(threads=0)


def test_pool_and_folder_can_be_moved(web, urls, urls_pool, fetch, tmp_path):
    pool = urls_pool(urls(2))
    fetch(pool, tmp_path / "out")
    (tmp_path / "new").mkdir()
    pool.rename(tmp_path / "new/pool.duckdb")
    (tmp_path / "out").rename(tmp_path / "images")
    report = fetch(tmp_path / "new/pool.duckdb", tmp_path / "images")
    assert (report.tried, report.available) == (0, 2)


def test_a_linked_pool_with_a_uid_twice(web, urls, urls_pool, fetch, tmp_path):
    urls_pool(urls(3), "a")
    folder = tmp_path / "metadata"
    folder.mkdir()
    for name in ("1", "2"):
        (folder / f"{name}.parquet").write_bytes((tmp_path / "a.parquet").read_bytes())
    with Pool.create(tmp_path / "linked.duckdb") as pool:
        pool.add(open_source("commonpool", folder, link=True))
    report = fetch(tmp_path / "linked.duckdb", tmp_path / "out")
    assert report.fetched == 3
    assert load_index(tmp_path / "out").samples == 3
    with Pool.open(tmp_path / "linked.duckdb") as pool:
        chosen = np.unique(pool.uids())[:2]
        found = effective_pool(pool, {"two": chosen, "twice": np.repeat(chosen, 2)}).subsets
    assert [(one.samples, one.available) for one in found.values()] == [(2, 2), (4, 4)]


def test_a_second_fetch_is_told_who_is_there(web, urls, urls_pool, fetch, tmp_path):
    pool = urls_pool(urls(4))
    seen = []

    def nosy(job, rows, processes):
        with pytest.raises(StorageError, match=f"process {os.getpid()} is fetching there; wait"):
            fetch(pool, tmp_path / "out")
        with Pool.open(pool, read_only=True) as opened:  # it can be asked meanwhile
            seen.append(opened.scalar("SELECT count(*) FROM fetches WHERE state = 'pending'"))
        yield from map(job, rows)

    assert fetch(pool, tmp_path / "out", distributor=nosy).fetched == 4
    assert seen == [4]


def test_outcomes_wait_while_another_process_holds_the_pool(
    web, urls, urls_pool, fetch, states, tmp_path, capsys
):
    pool = urls_pool(urls(4))
    hold = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read()"
    )

    def held(job, rows, processes):
        holder = subprocess.Popen([sys.executable, "-c", hold, pool], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE)  # fmt: skip
        holder.stdout.readline()
        yield job(rows[0])
        holder.communicate()
        yield job(rows[1])

    assert fetch(pool, tmp_path / "out", distributor=held, per_shard=2).fetched == 4
    assert {state for state, _, _ in states(pool).values()} == {"ok"}
    assert "what is fetched meanwhile waits beside the shards" in capsys.readouterr().err


@pytest.mark.parametrize(("per_host", "expected"), [(2, 2), (16, 3), (1, 1)])
def test_processes_never_outnumber_the_connections_to_a_host(
    web, urls, urls_pool, fetch, tmp_path, per_host, expected
):
    seen = []

    def distributor(job, rows, processes):
        seen.append((processes, job.shared))
        return (job(row) for row in rows)

    pool = urls_pool(urls(3))
    fetch(pool, tmp_path / "out", distributor, per_shard=1, processes=64, per_host=per_host)
    assert seen == [(expected, expected)]


def test_a_store_is_no_folder(urls_pool, fetch):
    with pytest.raises(UsageError, match=r"s3://bucket/pool: images are fetched to a folder"):
        fetch(urls_pool(["http://x/1"]), "s3://bucket/pool")
