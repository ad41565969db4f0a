"""A fetch that is killed, stopped, or finds the disk full goes on, and ends with the same bytes."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
from datacomp.curate.fetching.lists import Lists
from datacomp.errors import DataError, MissingError, RunError, StorageError, UsageError


def test_killed_at_random_points_it_ends_the_same(
    web, urls, urls_pool, fetch, states, made, tmp_path
):
    many = [*urls(15, bad=(5, 6)), f"{web.url}/html.jpg"]
    web.routes["/html.jpg"] = lambda h: h.answer(200, b"<html>", "image/jpeg")
    options = {"per_shard": 4, "threads": 4}
    first = urls_pool(many)
    pools = [shutil.copy(first, tmp_path / f"p{i}.duckdb") for i in range(15)]
    fetch(first, tmp_path / "first", **options)  # imports what a fetch needs
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
        killed = os.waitpid(child, 0)[1] == signal.SIGKILL
        interrupted += killed
        took *= 1 if killed else 0.7  # it is faster than the first one was
        fetch(pool, out, **options)
        assert made(out) == whole
        assert states(pool) == states(pools[-1])
    assert interrupted >= 10


def command(*arguments):
    """Start the command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "datacomp.curate.cli", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_a_killed_parent(web, urls, urls_pool, fetch, states, made, tmp_path, how):
    pool = urls_pool(urls(12))
    fetch(urls_pool(urls(12), "q"), tmp_path / "whole", per_shard=2)
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


def test_an_interrupted_retry_tries_once(web, urls, urls_pool, fetch, states, tmp_path):
    pool = urls_pool(urls(6, bad=range(4)))
    fetch(pool, tmp_path / "out", per_shard=2)
    with pytest.raises(KeyboardInterrupt):
        fetch(pool, tmp_path / "out", breaks_after_one, per_shard=2, retry=("404",))
    fetch(pool, tmp_path / "out", per_shard=2, retry=("404",))
    assert sorted(attempts for _, _, attempts in states(pool).values()) == [1, 1, 2, 2, 2, 2]


def breaks_after_one(job, rows, processes):
    """A distributor that is interrupted after the first shard."""
    yield job(rows[0])
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("begun", "resumed", "told"),
    [
        ({}, {"verify": "sha256"}, "without --verify"),
        ({"verify": "sha256"}, {}, "with --verify sha256"),
        ({}, {"per_shard": 1}, "with --shard-size 2"),
        (
            {"min_size": 8},
            {"verify": "sha256", "retry": ("404",)},
            "without --verify and with --min-size 8",
        ),
    ],
)
def test_other_options_wait_until_an_interrupted_fetch_is_done(
    web, urls, urls_pool, fetch, states, made, tmp_path, begun, resumed, told
):
    digests = ["0" * 64] * 6  # other images stand there now
    pool, same = (urls_pool(urls(6), name, sha256=digests) for name in ("pool", "same"))
    begun = {"per_shard": 2} | begun
    fetch(same, tmp_path / "whole", **begun)
    with pytest.raises(KeyboardInterrupt):
        fetch(pool, tmp_path / "out", breaks_after_one, **begun)
    asked = len(web.asked)
    message = rf"2 shards to be fetched {told}; finish them {told}, then fetch as you like$"
    with pytest.raises(UsageError, match=message):
        fetch(pool, tmp_path / "out", **({"per_shard": 2} | resumed))
    assert len(web.asked) == asked
    fetch(pool, tmp_path / "out", **begun, threads=2, timeout=3.0)
    assert made(tmp_path / "out") == made(tmp_path / "whole")
    assert states(pool) == states(same)
    verified = "verify" in begun
    assert {reason for _, reason, _ in states(pool).values()} == (
        {"hash_mismatch"} if verified else {None}
    )


def test_killed_before_the_lists_are_cleared(
    web, urls, urls_pool, fetch, states, tmp_path, monkeypatch
):
    def killed(lists):
        if lists.request() is not None:
            raise KeyboardInterrupt

    def fetch_killed(**options):
        with monkeypatch.context() as patched:
            patched.setattr(Lists, "clear", killed)
            with pytest.raises(KeyboardInterrupt):
                fetch(pool, out, **options)

    pool, out = urls_pool(urls(3, bad=(1,))), tmp_path / "out"
    fetch_killed()
    assert fetch(pool, out).tried == 0
    assert not (out / ".pending").exists()
    fetch_killed(retry=("404",))
    assert fetch(pool, out, retry=("404",)).tried == 0  # that one was done
    fetch_killed(retry=("404",))
    urls_pool([*urls(3, bad=(1,)), f"{web.url}/img/90.jpg"], add=True)
    report = fetch(pool, out)
    assert (report.fetched, report.available) == (1, 3)
    assert states(pool)[f"{web.url}/gone/1.jpg"] == ("failed", "http_404", 3)


def test_lists_without_their_request_are_told(web, urls, urls_pool, fetch, tmp_path):
    pool, out = urls_pool(urls(4)), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        fetch(pool, out, breaks_after_one, per_shard=2)
    (out / ".pending/request.json").write_text("[]")
    with pytest.raises(DataError, match=r"request\.json: damaged; choose another folder"):
        fetch(pool, out, per_shard=2)
    (out / ".pending/request.json").unlink()
    with pytest.raises(MissingError, match=r"request\.json: no such file"):
        fetch(pool, out, per_shard=2)


def test_a_full_disk_is_one_line_and_the_fetch_goes_on_later(
    web, urls, urls_pool, fetch, made, tmp_path, capfd
):
    pool = urls_pool(urls(60))
    fetch(urls_pool(urls(60), "q"), tmp_path / "whole")
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


def test_a_shard_that_fails_is_named(web, urls, urls_pool, fetch, tmp_path):
    pool = urls_pool(urls(6))

    def fails(job, rows, processes):
        yield job(rows[0])
        (tmp_path / "out/.pending/00000001.error").write_text("the machine is gone")

    with pytest.raises(RunError, match=r"2 shards could not be fetched \(the machine is gone\)"):
        fetch(pool, tmp_path / "out", per_shard=2, distributor=fails)
    assert fetch(pool, tmp_path / "out", per_shard=2).fetched == 4
