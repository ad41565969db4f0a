"""Mirrors that fail, lie or dawdle, beside a good one or alone."""

import contextlib
import re
import shutil

import pytest
from datacomp.distribution.getting import get

from .conftest import HTTP, by_source, contents, options


def pair(serving, folder, fault):
    """Return an honest server, a faulty one, and options that name both."""
    good, bad = serving(folder), serving(folder, fault)
    return good, bad, options(mirrors=(bad.url,))


def test_two_mirrors_share_the_work(publish, serving, files, tmp_path):
    good, _, both = pair(serving, publish(files), lambda path, headers: None)
    report = get(good.url, tmp_path / "got", both)
    assert contents(tmp_path / "got") == files
    assert report.fetched == report.bytes
    assert all(one["bytes"] > 0 for one in report.sources)


def test_a_flipped_bit_is_found_named_and_fetched_elsewhere(
    publish, serving, files, flip, tmp_path, capfd
):
    shards = [name for name in files if name.endswith(".tar")]
    good, bad, _ = pair(serving, publish(files), flip(1_500_000, shards))
    # The faulty one is asked first.
    report = get(bad.url, tmp_path / "got", options(mirrors=(good.url,), connections=1))
    assert contents(tmp_path / "got") == files
    assert report.whole
    found = by_source(report)
    assert found[good.url]["standing"] == "used"
    assert found[bad.url]["standing"] == "used only where there is no other"
    assert re.search(r"gave 1 wrong block", found[bad.url]["reasons"][0])
    said = (
        rf"warning: {bad.url}versions/1/birds/ gave 1 wrong block of 0000\d.tar: asked again only"
    )
    assert re.search(rf"{said} for what nobody else has\n", capfd.readouterr().err)
    # Of each file it spoilt one block was fetched again, no more.
    spoilt = len(found[bad.url]["reasons"])
    assert report.fetched == report.bytes + spoilt * (1 << 20)


def test_a_lying_mirror_alone_gives_what_is_right(publish, serving, files, flip, tmp_path):
    server = serving(publish(files), flip(5))
    report = get(server.url, tmp_path / "got", HTTP)
    right = {name: data for name, data in files.items() if name != "00001.tar"}
    assert contents(tmp_path / "got") == right
    assert not report.whole
    assert re.search("gave 1 wrong block", report.failed["00001.tar"])
    assert not (tmp_path / "got/.datacomp/manifest.json").exists()
    server.fault = lambda path, headers: None
    report = get(server.url, tmp_path / "got", HTTP)
    assert (report.whole, report.fetched) == (True, 1 << 20)
    assert contents(tmp_path / "got") == files


@pytest.fixture
def plainly():
    """Return a starter of plain servers of files, which give what is there; stopped at the end."""
    import functools
    import http.server
    import threading

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with contextlib.ExitStack() as stack:

        def plainly(folder):
            handler = functools.partial(Quiet, directory=str(folder))
            server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}/"

        yield plainly


@pytest.mark.parametrize("cut", [-5, 5])
def test_a_shard_of_another_size_on_a_plain_server(publish, serving, plainly, files, tmp_path, cut):
    folder = publish(files)
    shutil.copytree(folder, tmp_path / "copy")
    place = tmp_path / "copy/versions/1/birds/00001.tar"
    place.write_bytes(files["00001.tar"][:cut] if cut < 0 else files["00001.tar"] + b"x" * cut)
    size = len(files["00001.tar"])
    said = f"has {size + cut:,} bytes instead of {size:,}"
    bad = plainly(tmp_path / "copy")
    alone = get(bad, tmp_path / "got", HTTP)
    right = {name: data for name, data in files.items() if name != "00001.tar"}
    assert contents(tmp_path / "got") == right
    assert list(alone.failed) == ["00001.tar"]
    assert alone.failed["00001.tar"].endswith(said)
    assert alone.fetched == sum(map(len, right.values()))
    good = serving(folder)
    report = get(bad, tmp_path / "got", options(mirrors=(good.url,)))
    assert contents(tmp_path / "got") == files
    assert report.whole


def test_our_own_server_lacks_a_truncated_shard(publish, serving, files, tmp_path):
    folder = publish(files)
    shutil.copytree(folder, tmp_path / "copy")
    place = tmp_path / "copy/versions/1/birds/00001.tar"
    place.write_bytes(files["00001.tar"][:-5])
    good, bad = serving(folder), serving(tmp_path / "copy")
    report = get(good.url, tmp_path / "got", options(mirrors=(bad.url,)))
    assert contents(tmp_path / "got") == files
    alone = get(bad.url, tmp_path / "alone", HTTP)
    assert set(alone.failed) <= set(files)
    assert "00001.tar" in alone.failed
    assert "00001.tar" not in contents(tmp_path / "alone")
    assert report.whole


def test_a_silent_mirror_is_left(publish, serving, files, stall, tmp_path):
    good, _, both = pair(serving, publish(files), stall(100_000))
    report = get(good.url, tmp_path / "got", both)
    assert contents(tmp_path / "got") == files
    assert report.seconds < 10


def test_a_silent_mirror_alone_is_an_end(publish, serving, files, stall, tmp_path, monkeypatch):
    monkeypatch.setattr("datacomp.distribution.getting.source.REST", 0.1)
    server = serving(publish(files), stall(100_000))
    report = get(server.url, tmp_path / "got", options(patience=0.3))
    assert set(report.failed) == {name for name in files if name.endswith(".tar")}
    assert report.sources[0]["standing"] == "dropped"
    assert report.sources[0]["reasons"] == ["has been silent for 0.3 s"]
    assert report.seconds < 20


def test_answers_without_ranges(publish, serving, files, tmp_path):
    server = serving(publish(files))
    get(server.url, tmp_path / "got", HTTP)
    with (tmp_path / "got/00002.tar").open("r+b") as file:
        file.seek((1 << 20) + 5)
        file.write(b"wrong")
    server.fault = lambda path, headers: "no ranges"
    report = get(server.url, tmp_path / "got", HTTP)
    assert report.fetched == 1 << 20  # the rest of what came was thrown away
    assert contents(tmp_path / "got") == files


def test_a_mirror_that_lacks_a_file(publish, serving, files, tmp_path):
    def fault(path, headers):
        return (404, []) if path.endswith("00002.tar") else None

    good, bad, both = pair(serving, publish(files), fault)
    report = get(good.url, tmp_path / "got", both)
    assert contents(tmp_path / "got") == files
    assert all(one["standing"] == "used" for one in report.sources)
    alone = get(bad.url, tmp_path / "alone", HTTP)
    assert list(alone.failed) == ["00002.tar"]
    assert alone.failed["00002.tar"].endswith("answers 404")


def test_a_redirect_to_another_site_is_not_followed(publish, serving, files, tmp_path):
    folder = publish(files)
    good = serving(folder)

    def fault(path, headers):
        return (302, [(b"location", (good.url + path[1:]).encode())]) if "birds/" in path else None

    bad = serving(folder, fault)
    report = get(bad.url, tmp_path / "got", HTTP)
    assert set(report.failed) == set(files)
    assert report.sources[0]["standing"] == "dropped"
    assert "sends us to another site" in report.sources[0]["reasons"][0]
    assert not any("birds/" in path for path, _ in good.asked)
    report = get(bad.url, tmp_path / "got", options(mirrors=(good.url,)))
    assert contents(tmp_path / "got") == files


def test_a_busy_mirror_is_asked_again(publish, serving, files, tmp_path, monkeypatch):
    monkeypatch.setattr("datacomp.distribution.getting.source.REST", 0.1)
    left = [2]

    def fault(path, headers):
        if path.endswith("README.md") and left[0]:
            left[0] -= 1
            return 503, []
        return None

    server = serving(publish(files), fault)
    report = get(server.url, tmp_path / "got", HTTP)
    assert report.whole
    assert report.sources[0]["reasons"] == ["answers 503 Service Unavailable"]


def test_a_slow_mirror_hands_over_at_the_end(publish, serving, shard, tmp_path):
    import asyncio

    def fault(path, headers):
        async def slow(body, seen):
            await asyncio.sleep(1.0)
            return body

        return slow if path.endswith(".tar") else None

    files = {f"{n:05d}.tar": shard(n, 12) for n in range(2)}
    good, bad, _ = pair(serving, publish(files), fault)
    report = get(good.url, tmp_path / "got", options(mirrors=(bad.url,), connections=1, patience=8))
    assert contents(tmp_path / "got") == files
    assert report.seconds < 10
    assert all(one["standing"] == "used" for one in report.sources)


@pytest.mark.parametrize("path", ["", "versions/1/manifest.json"])
def test_any_mirror_can_tell_of_the_version(publish, serving, files, tmp_path, path, capfd):
    good = serving(publish(files))
    dead = "http://127.0.0.1:9/"
    report = get(dead + path, tmp_path / "got", options(mirrors=(good.url,)))
    assert contents(tmp_path / "got") == files
    assert report.whole
    assert f"try again later; going on with {good.url}" in capfd.readouterr().err


def test_a_stale_mirror_is_named_and_another_asked(publish, serving, files, shard, tmp_path, capfd):
    folder = publish(files)
    shutil.copytree(folder, tmp_path / "old")
    server, stale = serving(folder), serving(tmp_path / "old")
    newer = files | {"00004.tar": shard(4, 1)}
    publish(newer, "2")
    get(server.url, tmp_path / "got", HTTP)
    report = get(stale.url, tmp_path / "got", options(mirrors=(server.url,), rehash=True))
    assert (report.version, contents(tmp_path / "got")) == ("2", newer)
    assert "older than 2 (number 2) seen before; refused; going on with" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("moved", "reason"),
    [
        (b"http://[x", "sends us to 'http://[x', which is no address"),
        ("/é/".encode(), "sends us round in circles"),
        (b"/\xff x", "sends us round in circles"),
        (b"http://h:99999999/", "sends us to another site"),
        (b"http://h..h/", "sends us to another site"),
    ],
)
def test_a_mirror_that_sends_us_to_no_address(publish, serving, files, tmp_path, moved, reason):
    good, bad, both = pair(
        serving, publish(files), lambda path, headers: (302, [(b"location", moved)])
    )
    report = get(good.url, tmp_path / "got", both)
    assert contents(tmp_path / "got") == files
    found = by_source(report)[bad.url]
    assert found["standing"] == "dropped"
    assert found["reasons"][0].startswith(reason)


def test_a_redirect_keeps_the_bytes_of_an_address(publish, serving, files, tmp_path):
    name = "ü.txt".encode()

    def fault(path, headers):
        moved = b"/versions/1/birds/" + name
        return (302, [(b"location", moved)]) if path.endswith("a.txt") else None

    server = serving(publish({"a.txt": b"same", name.decode(): b"same"}), fault)
    # Files with the same bytes are fetched once: of the two, the first.
    assert get(server.url, tmp_path / "got", HTTP).whole
    assert ("/versions/1/birds/ü.txt", None) in server.asked


def test_mirrors_that_are_no_addresses_are_passed_over(publish, serving, files, tmp_path, capfd):
    mirrors = ("http://[x/", "http://h..h/")
    server = serving(publish(files, mirrors=mirrors))
    report = get(server.url, tmp_path / "got", HTTP)
    assert contents(tmp_path / "got") == files
    assert report.whole
    assert [one["standing"] for one in report.sources] == ["used", "dropped", "dropped"]
    assert "not an HTTP address; refused: dropped" in capfd.readouterr().err


def test_a_first_server_that_answers_nonsense_is_left_for_a_mirror(
    publish, serving, files, tmp_path, capfd
):
    folder = publish(files)
    good = serving(folder)
    bad = serving(folder, lambda path, headers: (200, []))
    report = get(bad.url, tmp_path / "got", options(mirrors=(good.url,)))
    assert report.whole
    assert "not a signed pointer to a release; going on with" in capfd.readouterr().err
