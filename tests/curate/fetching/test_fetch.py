"""Fetching a pool: states, resuming, retries, the shards, and that img2dataset did it."""

import hashlib
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tarfile
import textwrap
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from datacomp.curate.engine import EngineChoice, open_engine
from datacomp.curate.fetching import FetchOptions
from datacomp.curate.shards.index import load_index
from datacomp.curate.subset import write_subset
from datacomp.errors import DataError, MissingError, RunError, StorageError, UsageError
from datacomp.pools import Pool
from datacomp.pools.fetches import available_uids, effective_pool
from datacomp.pools.sources import open_source
from datacomp.pools.uids import digest_of_uids, to_hex
from PIL import Image

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # else Ray makes a token in the home
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def members(path):
    """Return the members of a tar, in order."""
    with tarfile.open(path) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}


def urls(web, count, bad=()):
    return [f"{web.url}/{'gone' if i in bad else 'img'}/{i}.jpg" for i in range(count)]


@pytest.fixture
def alive(web):
    """The server, with what was dead alive again."""

    def alive(count, jpeg):
        web.routes |= {
            f"/gone/{i}.jpg": lambda h, i=i: h.answer(200, jpeg(i), "image/jpeg")
            for i in range(count)
        }

    return alive


def test_shards_states_and_index(web, urls_pool, fetch, states, tmp_path):
    pool = urls_pool(urls(web, 25, bad=(3, 4)), text=[f"caption {i}" for i in range(24)] + [None])
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


def test_again_fetches_only_what_is_pending(web, urls_pool, fetch, states, tmp_path, made):
    first = urls(web, 12, bad=(2,))
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


def test_retry_by_reason(web, urls_pool, fetch, states, alive, jpeg, tmp_path):
    web.routes |= {
        "/gone/1.jpg": lambda h: h.answer(500, b""), "/gone/2.jpg": lambda h: h.answer(503, b""),
    }  # fmt: skip
    pool = urls_pool([*urls(web, 4, bad=(0, 1, 2)), "http://x.invalid/1.jpg"])
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


def test_nothing_that_answers_makes_an_empty_shard(web, urls_pool, fetch, tmp_path):
    pool = urls_pool(urls(web, 4, bad=range(4)))
    report = fetch(pool, tmp_path / "out", per_shard=2)
    assert (report.fetched, report.available, report.shards) == (0, 0, 2)
    assert members(tmp_path / "out/00000000.tar") == {}
    assert load_index(tmp_path / "out").samples == 0


def test_a_new_url_is_fetched_again(web, urls_pool, fetch, states, tmp_path):
    pool = urls_pool(urls(web, 3, bad=(1,)))
    fetch(pool, tmp_path / "out")
    urls_pool([f"{web.url}/img/{i}.jpg" for i in (0, 51, 2)], add=True)
    assert states(pool)[f"{web.url}/img/51.jpg"] == ("pending", "http_404", 1)
    assert fetch(pool, tmp_path / "out").fetched == 1
    assert states(pool)[f"{web.url}/img/51.jpg"] == ("ok", None, 2)


def test_verify(web, urls_pool, fetch, states, jpeg, tmp_path):
    digests = [hashlib.sha256(jpeg(i)).hexdigest() for i in range(4)]
    digests[1] = "0" * 64  # another image stands there now
    digests[2] = digests[2].upper()
    digests[3] = None
    pool = urls_pool(urls(web, 4), sha256=digests)
    report = fetch(pool, tmp_path / "out", verify="sha256")
    assert (report.fetched, report.failed) == (2, {"hash_mismatch": 1})
    assert states(pool)[f"{web.url}/img/1.jpg"] == ("failed", "hash_mismatch", 1)
    assert states(pool)[f"{web.url}/img/3.jpg"] == (None, None, None)  # nothing to compare with
    found = members(tmp_path / "out/00000000.tar")
    told = [json.loads(data) for name, data in found.items() if name.endswith(".json")]
    assert sorted(one["sha256"] for one in told) == sorted([digests[0], digests[2].lower()])
    assert fetch(pool, tmp_path / "out").fetched == 1  # without --verify it is taken
    other = urls_pool(urls(web, 1), "other")
    with pytest.raises(UsageError, match="records no sha256 to compare with; leave out --verify"):
        fetch(other, tmp_path / "other", verify="sha256")
    assert not (tmp_path / "other" / ".pending").exists()


def test_a_subset(web, urls_pool, fetch, states, tmp_path):
    pool = urls_pool(urls(web, 6))
    with Pool.open(pool) as opened:
        chosen = opened.uids()[::2]
    write_subset(tmp_path / "half.npy", chosen, {})
    report = fetch(pool, tmp_path / "out", subset=tmp_path / "half.npy")
    assert (report.fetched, report.available) == (3, 3)
    with Pool.open(pool) as opened:
        assert to_hex(available_uids(opened)) == to_hex(chosen)
    assert fetch(pool, tmp_path / "out").fetched == 3


BARE = """
import sys
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


def test_the_same_images_as_bare_img2dataset(web, urls_pool, fetch, bare, tmp_path):
    """DataComp's own call, on the same list: images, captions and metadata are the same bytes."""
    boxes = [[[0.1, 0.1, 0.6, 0.7]] if i % 2 else [] for i in range(6)]
    big = io.BytesIO()
    Image.effect_noise((900, 600), 80).convert("RGB").save(big, "PNG")
    web.routes["/big.png"] = lambda h: h.answer(200, big.getvalue(), "image/png")
    pool = urls_pool([*urls(web, 5), f"{web.url}/big.png"], face_bboxes=boxes)
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


def test_faces_are_never_passed_through(web, urls_pool, fetch, states, tmp_path):
    noise = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(noise, "PNG")
    for path in ("/img/0.jpg", "/img/4.jpg"):
        web.routes[path] = lambda h: h.answer(200, noise.getvalue(), "image/png")
    boxes = [[[0.0, 0.0, 1.0, 1.0]], None, [[0.1, 0.2]], [[float("nan")] * 4], []]
    pool = urls_pool(urls(web, 5), face_bboxes=boxes)
    fetch(pool, tmp_path / "out")
    assert [reason for _, reason, _ in states(pool).values()] == [
        None, "boxes_unknown", "image_broken", "image_broken", None,
    ]  # fmt: skip
    found = members(tmp_path / "out/00000000.tar")
    told = {json.loads(d)["url"][-5]: n[:-5] for n, d in found.items() if n.endswith(".json")}
    contrast = [np.asarray(Image.open(io.BytesIO(found[f"{told[i]}.jpg"]))).std() for i in "04"]
    assert contrast[0] < contrast[1] / 2
    with pytest.raises(UsageError, match="no column 'faces' of faces to blur"):
        fetch(urls_pool(urls(web, 1), "b"), tmp_path / "b", boxes="faces")
    report = fetch(urls_pool(urls(web, 5), "c", face_bboxes=boxes), tmp_path / "c", boxes=None)
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


def test_refusals(web, urls_pool, fetch, tmp_path):
    pool = urls_pool(urls(web, 2))
    fetch(pool, tmp_path / "out")
    with pytest.raises(UsageError, match=r"its images are in .*/out already; fetch there"):
        fetch(pool, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
    other = urls_pool(urls(web, 3), "other")
    with pytest.raises(UsageError, match="holds the images of another pool"):
        fetch(other, tmp_path / "out")
    with pytest.raises(UsageError, match="was fetched with size 512, not 256; keep it"):
        fetch(pool, tmp_path / "out", size=256)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("x")
    with pytest.raises(UsageError, match=r"is not empty \(notes.txt\)"):
        fetch(other, tmp_path / "full")
    assert os.listdir(tmp_path / "full") == ["notes.txt"]
    with pytest.raises(UsageError, match=r"pool add pool.duckdb .*/out --kind commonpool --link"):
        fetch(tmp_path / "out", tmp_path / "o2")
    with pytest.raises(MissingError, match="no such pool"):
        fetch(tmp_path / "none.duckdb", tmp_path / "o2")
    with pytest.raises(UsageError, match="distributor 'slurm': expected one of local"):
        fetch(pool, tmp_path / "out", distributor="slurm")
    with pytest.raises(UsageError, match="--retry 'dsn': no such reason"):
        fetch(pool, tmp_path / "out", retry=("dsn",))
    with pytest.raises(UsageError, match="threads is 0"):
        FetchOptions(threads=0)


def test_pool_and_folder_can_be_moved(web, urls_pool, fetch, tmp_path):
    pool = urls_pool(urls(web, 2))
    fetch(pool, tmp_path / "out")
    (tmp_path / "new").mkdir()
    pool.rename(tmp_path / "new/pool.duckdb")
    (tmp_path / "out").rename(tmp_path / "images")
    report = fetch(tmp_path / "new/pool.duckdb", tmp_path / "images")
    assert (report.tried, report.available) == (0, 2)


def test_a_linked_pool_with_a_uid_twice(web, urls_pool, fetch, tmp_path):
    urls_pool(urls(web, 3), "a")
    folder = tmp_path / "metadata"
    folder.mkdir()
    for name in ("1", "2"):
        (folder / f"{name}.parquet").write_bytes((tmp_path / "a.parquet").read_bytes())
    with Pool.create(tmp_path / "linked.duckdb") as pool:
        pool.add(open_source("commonpool", folder, link=True))
    report = fetch(tmp_path / "linked.duckdb", tmp_path / "out")
    assert report.fetched == 3
    assert load_index(tmp_path / "out").samples == 3


def test_a_second_fetch_is_told_who_is_there(web, urls_pool, fetch, tmp_path):
    pool = urls_pool(urls(web, 4))
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
    web, urls_pool, fetch, states, tmp_path, capsys
):
    pool = urls_pool(urls(web, 4))
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


# -- interruptions ---------------------------------------------------------------------------


def test_killed_at_random_points_it_ends_the_same(web, urls_pool, fetch, states, made, tmp_path):
    many = [*urls(web, 15, bad=(5, 6)), f"{web.url}/html.jpg"]
    web.routes["/html.jpg"] = lambda h: h.answer(200, b"<html>", "image/jpeg")
    options = {"per_shard": 4, "threads": 4}
    pools = [urls_pool(many, f"p{i}") for i in range(21)]
    started = time.monotonic()
    fetch(pools[-1], tmp_path / "whole", **options)
    took = time.monotonic() - started
    whole = made(tmp_path / "whole")
    chance = random.Random(0)
    interrupted = 0
    for number, pool in enumerate(pools[:-1]):
        out = tmp_path / f"out{number}"
        child = os.fork()
        if not child:
            try:
                fetch(pool, out, **options)
            finally:
                os._exit(0)
        time.sleep(chance.random() * took)
        os.kill(child, signal.SIGKILL)
        interrupted += os.waitpid(child, 0)[1] == signal.SIGKILL
        fetch(pool, out, **options)
        assert made(out) == whole
        assert states(pool) == states(pools[-1])
    assert interrupted >= 15


FETCH = """
    import sys, resource
    from datacomp.curate.cli import main
    {before}
    if __name__ == "__main__":
        main()
"""


def command(*arguments, before=""):
    """Start the command line in a process of its own."""
    body = textwrap.dedent(FETCH).format(before=before)
    return subprocess.Popen(
        [sys.executable, "-c", body, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_a_killed_parent(web, urls_pool, fetch, states, made, tmp_path, how):
    pool = urls_pool(urls(web, 12))
    fetch(urls_pool(urls(web, 12), "q"), tmp_path / "whole", per_shard=2)
    started = []

    def slow(handler):
        started.append(1)
        handler.over.wait(60)

    paths = [f"/img/{i}.jpg" for i in range(4, 12)]
    web.routes |= dict.fromkeys(paths, slow)
    process = command("pool", "fetch", pool, tmp_path / "out", "--allow-private", "--processes", 2,
                      "--shard-size", 2, "--timeout", 60)  # fmt: skip
    until = time.monotonic() + 60
    while len(started) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    assert len(started) >= 2
    asked = time.monotonic()
    process.send_signal(how)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - asked < 10
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert err.endswith("interrupted; run the same command again to go on\n")
    for path in paths:
        del web.routes[path]
    fetch(pool, tmp_path / "out", per_shard=2)
    assert made(tmp_path / "out") == made(tmp_path / "whole")
    assert {state for state, _, _ in states(pool).values()} == {"ok"}


def test_an_interrupted_retry_tries_once(web, urls_pool, fetch, states, tmp_path):
    pool = urls_pool(urls(web, 6, bad=range(4)))
    fetch(pool, tmp_path / "out", per_shard=2)

    def breaks(job, rows, processes):
        yield job(rows[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(pool, tmp_path / "out", per_shard=2, retry=("404",), distributor=breaks)
    fetch(pool, tmp_path / "out", per_shard=2, retry=("404",))
    assert sorted(attempts for _, _, attempts in states(pool).values()) == [1, 1, 2, 2, 2, 2]


def test_a_full_disk_is_one_line_and_the_fetch_goes_on_later(
    web, urls_pool, fetch, made, tmp_path, capfd
):
    pool = urls_pool(urls(web, 60))
    fetch(urls_pool(urls(web, 60), "q"), tmp_path / "whole")
    capfd.readouterr()

    def on_a_small_disk(job, rows, processes):
        # Python ignores SIGXFSZ, so a write beyond the limit fails with EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
        yield from map(job, rows)

    child = os.fork()
    if not child:
        try:
            fetch(pool, tmp_path / "out", distributor=on_a_small_disk)
        except StorageError as error:
            print(error, file=sys.stderr, flush=True)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert capfd.readouterr().err == (
        "the pool has no column face_bboxes: no faces are blurred\n"
        f"cannot write {tmp_path / 'out/00000000.tar'}: "
        "the file would exceed the largest size allowed here\n"
    )
    assert not list((tmp_path / "out").glob("*.tar"))
    assert fetch(pool, tmp_path / "out").fetched == 60
    assert made(tmp_path / "out") == made(tmp_path / "whole")


def test_a_shard_that_fails_is_named(web, urls_pool, fetch, tmp_path):
    pool = urls_pool(urls(web, 6))

    def fails(job, rows, processes):
        yield job(rows[0])
        (tmp_path / "out/.pending/00000001.error").write_text("the machine is gone")

    with pytest.raises(RunError, match=r"2 shards could not be fetched \(the machine is gone\)"):
        fetch(pool, tmp_path / "out", per_shard=2, distributor=fails)
    assert fetch(pool, tmp_path / "out", per_shard=2).fetched == 4


@pytest.mark.parametrize(("per_host", "expected"), [(2, 2), (16, 3), (1, 1)])
def test_processes_never_outnumber_the_connections_to_a_host(
    web, urls_pool, fetch, tmp_path, per_host, expected
):
    seen = []

    def distributor(job, rows, processes):
        seen.append((processes, job.shared))
        return (job(row) for row in rows)

    pool = urls_pool(urls(web, 3))
    fetch(pool, tmp_path / "out", distributor, per_shard=1, processes=64, per_host=per_host)
    assert seen == [(expected, expected)]


def test_on_ray_with_img2datasets_own_distributor(web, urls_pool, fetch, jpeg, made, tmp_path):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    fetch(urls_pool(urls(web, 6), "a"), tmp_path / "a", per_shard=3)

    def counted(handler, number):
        own = type(handler)
        own.open_now += 1
        own.most_open = max(own.most_open, own.open_now)
        time.sleep(0.2)
        own.open_now -= 1
        handler.answer(200, jpeg(number), "image/jpeg")

    web.routes |= {f"/img/{i}.jpg": lambda h, i=i: counted(h, i) for i in range(6)}
    options = {"per_shard": 3, "per_host": 1}  # fewer than there are workers
    with open_engine(EngineChoice("ray", "local", 2)) as engine:
        report = fetch(urls_pool(urls(web, 6), "b"), tmp_path / "b", engine, **options)
    assert (report.fetched, report.shards, web.most_open) == (6, 2, 1)
    assert made(tmp_path / "b") == made(tmp_path / "a")


# -- the effective pool ----------------------------------------------------------------------


def test_the_effective_pool(web, urls_pool, fetch, tmp_path):
    pool = urls_pool([*urls(web, 6, bad=(1, 2)), "http://Other.invalid/1.jpg", None])
    with Pool.open(pool) as opened:
        nothing = effective_pool(opened)
        assert nothing.reasons == {"pending": 7, "no_url": 1}
        assert nothing.total.share == 0
    fetch(pool, tmp_path / "out")
    with Pool.open(pool) as opened:
        half = opened.uids()[:4]
        found = effective_pool(opened, {"half": half, "double": np.repeat(half, 2)})
        available = available_uids(opened)
    assert (found.total.samples, found.total.available) == (8, 4)
    assert found.reasons == {"http_404": 2, "dns": 1, "no_url": 1}
    assert found.digest == digest_of_uids(available)
    in_half = len(set(to_hex(half)) & set(to_hex(available)))
    assert [(one.samples, one.available) for one in found.subsets.values()] == [
        (4, in_half), (8, 2 * in_half),
    ]  # fmt: skip
    assert [(h.host, h.samples, h.available, h.failed, h.most) for h in found.hosts] == [
        ("127.0.0.1", 6, 4, 2, "http_404"), ("other.invalid", 1, 0, 1, "dns"),
    ]  # fmt: skip


def test_hosts_are_cut_out_of_urls_and_counted(urls_pool):
    names = {
        "http://[2001:db8::1]:80/a": "[2001:db8::1]", "http://u:p@[2001:DB8::1]/": "[2001:db8::1]",
        "http://a.org?x=1": "a.org", "http://a.org#b/c": "a.org",
        "http://A.org:8080?u=me@b.org": "a.org",
        "http://me@c.org/x@y": "c.org",
    }  # fmt: skip
    with Pool.open(urls_pool(list(names))) as pool:
        found = effective_pool(pool)
        assert [(one.host, one.samples) for one in found.hosts] == [
            ("a.org", 3), ("[2001:db8::1]", 2), ("c.org", 1),
        ]  # fmt: skip
        few = effective_pool(pool, hosts=1)
    assert ([one.host for one in few.hosts], few.host_count) == (["a.org"], 3)
    assert few.to_dict()["host_count"] == 3


def test_a_pool_that_came_with_images_is_at_hand(pool_of):
    pool = pool_of(uid=[f"{i:032x}" for i in range(4)])
    pool.sql("UPDATE samples SET shard = 'x.tar' WHERE url LIKE '%/1'")
    assert effective_pool(pool).total.available == 1


# -- what somebody else has begun -----------------------------------------------------------


@pytest.fixture
def begun(web, urls_pool, tmp_path, bare):
    """A pool of 25 URLs and the folder of a bare img2dataset, killed in the last of 3 shards."""
    pool = urls_pool(urls(web, 25, bad=(3, 4)), face_bboxes=[[[0.1, 0.1, 0.6, 0.7]]] * 25)
    bare(tmp_path / "pool.parquet", tmp_path / "out", 10)
    (tmp_path / "out/00000002_stats.json").unlink()
    with (tmp_path / "out/00000002.tar").open("r+b") as tar:
        tar.truncate(3_000)
    web.asked.clear()
    return pool


def test_what_img2dataset_has_begun_is_taken_over(web, begun, fetch, states, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="holds what img2dataset itself fetched; --adopt takes"):
        fetch(begun, out)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.name[:8] != "00000002"}
    report = fetch(begun, out, adopt=True)
    assert (report.fetched, report.available, report.failed) == (5, 23, {})
    assert sorted(web.asked) == sorted(f"/img/{i}.jpg" for i in range(20, 25))
    assert {state for state, *_ in states(begun).values()} == {"ok", "failed"}
    assert states(begun)[f"{web.url}/gone/3.jpg"] == ("failed", "http_404", 1)
    assert "took over 2 shards of img2dataset with 20 URLs" in capsys.readouterr().err
    assert (out / "00000002.tar.unfinished").stat().st_size == 3_000
    assert {name: (out / name).read_bytes() for name in before} == before
    assert load_index(out).samples == 23
    again = fetch(begun, out, adopt=True)
    assert (again.tried, again.available) == (0, 23)


def test_what_cannot_be_taken_over_is_told_and_left(begun, urls_pool, fetch, states, tmp_path):
    out = tmp_path / "out"
    there = sorted(path.name for path in out.iterdir())
    stranger = urls_pool(["http://x/1"], "stranger", uid=["f" * 32])
    with pytest.raises(UsageError, match=r"none of its images is of .*stranger.duckdb"):
        fetch(stranger, out, adopt=True)
    table = pq.read_table(out / "00000001.parquet")
    pq.write_table(table.drop_columns(["uid"]), out / "00000001.parquet")
    with pytest.raises(UsageError, match=r"00000001.parquet: no column uid \(img2dataset's save"):
        fetch(begun, out, adopt=True)
    (out / "00000001.parquet").write_bytes(b"PAR1 no parquet")
    with pytest.raises(DataError, match=r"00000001.parquet: "):
        fetch(begun, out, adopt=True)
    (out / "00000001.tar").unlink()
    with pytest.raises(UsageError, match=r"00000001\.tar is missing beside 00000001_stats.json"):
        fetch(begun, out, adopt=True)
    assert sorted(p.name for p in out.iterdir() if p.name != ".lock") == [
        name for name in there if name != "00000001.tar"
    ]
    assert set(states(begun).values()) == {(None, None, None)}


def test_a_store_is_no_folder(urls_pool, fetch):
    with pytest.raises(UsageError, match=r"s3://bucket/pool: images are fetched to a folder"):
        fetch(urls_pool(["http://x/1"]), "s3://bucket/pool")
