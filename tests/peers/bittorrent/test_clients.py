"""aria2 and Transmission, as Debian has them, get our releases."""

import html
import re
import shlex
import shutil
import subprocess
import threading
import time
from urllib.parse import quote
from urllib.request import urlopen

import pytest
from datacomp.distribution.torrents import Net, Seeder

ARIA2 = shutil.which("aria2c")
TRANSMISSION = shutil.which("transmission-cli")
SECONDS = 60

with_aria2 = pytest.mark.skipif(ARIA2 is None, reason="aria2 is not installed")
with_transmission = pytest.mark.skipif(TRANSMISSION is None, reason="Transmission is not installed")


def same(folder, files):
    return all(
        (folder / path).is_file() and (folder / path).read_bytes() == data
        for path, data in files.items()
    )


def aria2(folder, *arguments):
    command = [
        ARIA2, "--no-conf", "--dir", str(folder), "--disable-ipv6", "--interface=127.0.0.1",
        "--seed-time=0", "--enable-dht=false", "--bt-enable-lpd=false", "--quiet",
        "--allow-overwrite=true", "--auto-file-renaming=false", "--file-allocation=none",
        *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, timeout=SECONDS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def transmission(folder, torrent, files):
    """Run Transmission until the files are there; it does not end by itself."""
    home = folder.parent / f"{folder.name}-home"
    process = subprocess.Popen(
        [TRANSMISSION, "--no-uplimit", "-M", "-g", str(home), "-p", "51999", "-w", str(folder),
         str(torrent)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until = time.monotonic() + SECONDS
        while not same(folder / "birds", files):
            assert process.poll() is None
            assert time.monotonic() < until, "Transmission did not get everything in time"
            time.sleep(0.2)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def published(publish, serving, shard):
    """Return files, the folder of their releases and the server that is named as web seed."""
    files = {f"{n:05d}.tar": shard(n) for n in range(4)} | {"README.md": b"birds\n"}
    folder = publish(files, "0")
    server = serving(folder)
    publish(files | {"more.txt": b"more"}, "1", mirrors=(server.url,), trackers=())
    return files | {"more.txt": b"more"}, folder, server


@with_aria2
def test_aria2_gets_the_metalink_from_the_mirror(published, tmp_path):
    files, _, server = published
    aria2(tmp_path / "got", "--follow-torrent=false", f"{server.url}versions/1/birds-1.meta4")
    assert same(tmp_path / "got/birds", files)


@with_aria2
def test_the_line_of_the_page_for_aria2_ends(published, tmp_path):
    files, _, server = published
    page = urlopen(server.url).read().decode()
    line = html.unescape(re.search(r"aria2c [^<]+", page)[0])
    assert line.endswith(f"{server.url}versions/1/birds-1.meta4")
    subprocess.run(shlex.split(line), cwd=tmp_path, check=True, timeout=SECONDS,
                   capture_output=True)  # fmt: skip
    assert same(tmp_path / "birds", files)


@with_aria2
def test_aria2_gets_the_v1_torrent_from_the_web_seed(published, tmp_path):
    files, folder, server = published
    before = server.given
    aria2(tmp_path / "got", str(folder / "versions/1/birds-1.torrent"))
    assert same(tmp_path / "got/birds", files)
    assert server.given - before >= sum(map(len, files.values()))


@with_aria2
def test_aria2_gets_the_v1_torrent_from_our_seed(publish, shard, tmp_path, tracker):
    files = {f"{n:05d}.tar": shard(n) for n in range(4)} | {"README.md": b"birds\n"}
    folder = publish(files, trackers=(tracker.url,))
    with Seeder(folder, Net("127.0.0.1:0", lan=True)) as seeder:
        tracker.peers.append(seeder.port)
        aria2(tmp_path / "got", str(folder / "versions/1/birds-1.torrent"))
        assert same(tmp_path / "got/birds", files)
        assert seeder.status()["uploaded"] >= sum(map(len, files.values()))


@with_transmission
def test_transmission_gets_the_v1_torrent_from_the_web_seed(published, tmp_path):
    files, folder, server = published
    before = server.given
    (tmp_path / "got").mkdir()
    transmission(tmp_path / "got", folder / "versions/1/birds-1.torrent", files)
    assert server.given - before >= sum(map(len, files.values()))


@with_transmission
def test_transmission_gets_the_v1_torrent_from_our_seed(publish, shard, tmp_path):
    files = {f"{n:05d}.tar": shard(n) for n in range(3)}
    folder = publish(files)
    (tmp_path / "got").mkdir()
    with Seeder(folder, Net("127.0.0.1:0", lan=True), ("127.0.0.1:51999",)) as seeder:
        stop = threading.Event()

        def call() -> None:
            # Transmission takes no loopback peer from a tracker: it has to be called.
            while not stop.wait(1.0):
                seeder.call()

        caller = threading.Thread(target=call)
        caller.start()
        try:
            transmission(tmp_path / "got", folder / "versions/1/birds-1.torrent", files)
        finally:
            stop.set()
            caller.join()
        assert seeder.status()["uploaded"] >= sum(map(len, files.values()))


@with_transmission
def test_transmission_reads_the_v1_torrent(published):
    _, folder, server = published
    shown = subprocess.run(
        ["transmission-show", str(folder / "versions/1/birds-1.torrent")],
        capture_output=True, text=True, check=True, timeout=SECONDS,
    ).stdout  # fmt: skip
    assert "birds/00000.tar" in shown
    assert quote(server.url, safe=":/") in shown
