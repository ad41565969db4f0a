"""Seeding and getting over real BitTorrent sessions on this machine."""

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from datacomp.distribution import bencode
from datacomp.distribution.getting import Options, get
from datacomp.distribution.getting.engine import Engine
from datacomp.distribution.getting.folder import Folder
from datacomp.distribution.release import Releases, Removal, SigningKey
from datacomp.distribution.torrents import Net, Seeder, seed
from datacomp.distribution.torrents.channel import Channel
from datacomp.distribution.torrents.pointer import DhtPointer
from datacomp.distribution.torrents.session import listening, load_torrent, open_session
from datacomp.errors import DataError, MissingError, StorageError, UnsafeInputError, UsageError

lt = pytest.importorskip("libtorrent")
LOCAL = Net("127.0.0.1:0", lan=True)


def options(*ports, **more):
    peers = tuple(f"127.0.0.1:{port}" for port in ports)
    return Options(
        **{"http": False, "lan": True, "listen": "127.0.0.1:0", "peers": peers, "patience": 2.0}
        | more
    )


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".datacomp" not in path.parts
    }


def test_peers_give_a_version(publish, serving, files, tmp_path):
    folder = publish(files)
    server = serving(folder)
    with Seeder(folder, LOCAL) as seeder:
        status = seeder.status()
        assert [(one["version"], one["kind"], one["state"]) for one in status["torrents"]] == [
            ("1", "v1", "seeding"), ("1", "hybrid", "seeding"),
        ]  # fmt: skip
        report = get(server.url, tmp_path / "got", options(seeder.port))
        assert contents(tmp_path / "got") == files
        assert report.channels == {"bittorrent": report.bytes}
        assert report.signed
        assert seeder.status()["uploaded"] >= report.bytes


@pytest.mark.parametrize("kind", ["v1", "hybrid"])
def test_a_torrent_file_is_enough(publish, files, tmp_path, kind):
    files = files | {"a/b.txt": b"deep", "a/empty": b""}
    folder = publish(files)
    manifest = Releases(folder).latest.manifest
    torrent = folder / "versions/1" / manifest.torrents[kind]["file"]
    with Seeder(folder, LOCAL) as seeder:
        report = get(str(torrent), tmp_path / "got", options(seeder.port))
        assert contents(tmp_path / "got") == files
        assert (report.signed, report.whole) == (False, True)
        with (tmp_path / "got/00002.tar").open("r+b") as file:
            file.seek((1 << 20) + 5)
            file.write(b"wrong")
        report = get(str(torrent), tmp_path / "got", options(seeder.port))
        assert contents(tmp_path / "got") == files
        assert report.fetched == 1 << 20


def test_a_torrent_of_one_file_in_no_folder(tmp_path):
    data, length = random.Random(1).randbytes(300_000), 1 << 17
    (tmp_path / "source").mkdir()
    (tmp_path / "source/x").write_bytes(data)
    pieces = b"".join(
        hashlib.sha1(data[at : at + length]).digest() for at in range(0, len(data), length)
    )
    source = torrent(tmp_path, length=len(data), pieces=pieces, **{"piece length": length})
    session = open_session(LOCAL)
    params = load_torrent(Path(source).read_bytes(), source)
    params.save_path = str(tmp_path / "source")
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    session.add_torrent(params)
    port = listening(session, LOCAL)
    get(source, tmp_path / "got", options(port))
    assert contents(tmp_path / "got") == {"x": data}
    with (tmp_path / "got/x").open("r+b") as file:
        file.write(b"wrong")
    report = get(source, tmp_path / "got", options(port))
    assert contents(tmp_path / "got") == {"x": data}
    assert report.fetched == length


def test_a_magnet_is_enough(publish, files, tmp_path):
    folder = publish(files)
    named = Releases(folder).latest.manifest.torrents
    with Seeder(folder, LOCAL) as seeder:
        for number, xt in enumerate(
            (f"btih:{named['v1']['infohash']}", f"btmh:1220{named['hybrid']['infohash_v2']}")
        ):
            got = tmp_path / f"got{number}"
            get(f"magnet:?xt=urn:{xt}", got, options(seeder.port))
            assert contents(got) == files


def test_a_magnet_with_a_web_seed_is_signed(publish, serving, files, tmp_path):
    folder = publish(files)
    server = serving(folder)
    v1 = Releases(folder).latest.manifest.torrents["v1"]["infohash"]
    magnet = f"magnet:?xt=urn:btih:{v1}&ws={server.url}versions/1/"
    report = get(magnet, tmp_path / "got", Options(bittorrent=False))
    assert (report.signed, contents(tmp_path / "got")) == (True, files)
    other = f"magnet:?xt=urn:btih:{'1' * 40}&ws={server.url}versions/1/"
    with pytest.raises(StorageError, match="no peer has answered within"):
        get(other, tmp_path / "other", options(patience=0.1))


@pytest.fixture
def seeded_by_web(publish, serving, files, tmp_path):
    """Return a maker of a release's torrent with one web seed that has no manifest beside it."""
    folder = publish(files)

    def make(kind, fault=lambda path, headers: None):
        def bare(path, headers):
            return (404, []) if path.endswith("/manifest.json") else fault(path, headers)

        server = serving(folder, bare)
        name = f"birds-1{'.hybrid' * (kind == 'hybrid')}.torrent"
        value = bencode.decode((folder / "versions/1" / name).read_bytes(), 1 << 20)
        value[b"url-list"] = ["http://[::1/", f"{server.url}versions/1/"]
        (tmp_path / name).write_bytes(bencode.encode(value))
        return str(tmp_path / name)

    return make


@pytest.mark.parametrize(("kind", "channel"), [("hybrid", "http"), ("v1", "bittorrent")])
def test_web_seeds_of_an_unsigned_torrent_are_enough(seeded_by_web, files, tmp_path, kind, channel):
    torrent = seeded_by_web(kind)
    report = get(torrent, tmp_path / "got", options(http=True))
    assert (report.signed, report.whole) == (False, True)
    assert contents(tmp_path / "got") == files
    assert report.channels[channel] == report.bytes
    report = get(torrent, tmp_path / "none", options(patience=0.2))
    assert set(report.failed) == set(files), "--no-http leaves web seeds out"


def test_web_seeds_of_a_hybrid_torrent_need_no_libtorrent(seeded_by_web, files, tmp_path):
    report = get(seeded_by_web("hybrid"), tmp_path / "got", Options(bittorrent=False))
    assert (report.whole, report.channels) == (True, {"http": report.bytes})
    assert contents(tmp_path / "got") == files


def test_a_torrent_of_small_files_is_proven_by_their_roots(publish, serving, tmp_path):
    small = {"a.txt": b"a", "b/c.txt": bytes(70_000), "empty": b""}
    folder = publish(small)
    server = serving(folder, lambda path, _: (404, []) if path.endswith("manifest.json") else None)
    value = bencode.decode((folder / "versions/1/birds-1.hybrid.torrent").read_bytes(), 1 << 20)
    place = tmp_path / "small.torrent"
    place.write_bytes(bencode.encode(value | {b"url-list": f"{server.url}versions/1"}))
    assert get(str(place), tmp_path / "got", Options(bittorrent=False)).whole
    assert contents(tmp_path / "got") == small


@pytest.mark.parametrize("kind", ["hybrid", "v1"])
def test_a_web_seed_that_lies_is_not_believed(seeded_by_web, files, flip, tmp_path, kind):
    torrent = seeded_by_web(kind, flip(1_500_000))
    report = get(torrent, tmp_path / "got", options(http=True, patience=0.5))
    found = contents(tmp_path / "got")
    assert "00001.tar" in report.failed
    assert found == {name: data for name, data in files.items() if name in found}
    if kind == "hybrid":
        assert list(report.failed) == ["00001.tar"]
        assert "gave 1 wrong block" in report.failed["00001.tar"]


def test_mirror_and_peers_at_once(publish, serving, shard, tmp_path):
    import asyncio

    def fault(path, headers):
        async def slow(body, seen):
            await asyncio.sleep(0.3)
            return body

        return slow if path.endswith(".tar") else None

    files = {f"{n:05d}.tar": shard(n, 4) for n in range(12)}
    folder = publish(files)
    server = serving(folder, fault)
    with Seeder(folder, LOCAL) as seeder:
        both = options(seeder.port, http=True, connections=1)
        report = get(server.url, tmp_path / "got", both)
    assert contents(tmp_path / "got") == files
    assert set(report.channels) == {"http", "bittorrent"}
    assert min(report.channels.values()) > 0


def test_without_a_peer_the_mirror_does_it(publish, serving, files, tmp_path):
    server = serving(publish(files))
    report = get(server.url, tmp_path / "got", options(9, http=True))
    assert contents(tmp_path / "got") == files
    assert report.channels["bittorrent"] == 0


def test_a_file_that_nobody_has_is_an_end(publish, serving, files, tmp_path):
    server = serving(publish(files), lambda path, headers: (404, []) if "2.tar" in path else None)
    report = get(server.url, tmp_path / "got", options(9, http=True, patience=0.3))
    assert list(report.failed) == ["00002.tar"]
    assert "answers 404" in report.failed["00002.tar"]
    assert "gave nothing for" in report.failed["00002.tar"]


def test_what_was_taken_back_is_not_waited_for(publish, serving, files, tmp_path):
    server = serving(publish(files), lambda path, headers: (410, []) if "2.tar" in path else None)
    report = get(server.url, tmp_path / "got", options(9, http=True, patience=20.0))
    assert report.gone == list(report.failed) == ["00002.tar"]
    assert 5 <= report.seconds < 15


def test_a_mirror_that_once_lied_goes_on_where_there_is_no_peer(
    publish, serving, files, flip, tmp_path
):
    server = serving(publish(files), flip(1_500_000))
    report = get(server.url, tmp_path / "got", options(9, http=True, patience=0.3))
    assert list(report.failed) == ["00001.tar"]
    assert "gave 1 wrong block" in report.failed["00001.tar"]


def test_no_peer_at_all_is_an_end(publish, serving, files, tmp_path):
    server = serving(publish(files))
    report = get(server.url, tmp_path / "got", options(9, patience=0.2))
    assert set(report.failed) == set(files)
    assert "gave nothing for" in report.failed["00001.tar"]


def test_a_peer_with_wrong_bytes_spoils_nothing(publish, serving, files, tmp_path):
    folder = publish(files)
    server = serving(folder)
    place = folder / "versions/1/birds/00001.tar"
    data = bytearray(files["00001.tar"])
    data[1_500_000] ^= 1
    place.unlink()
    place.write_bytes(data)
    with Seeder(folder, LOCAL) as seeder:
        report = get(server.url, tmp_path / "got", options(seeder.port, patience=0.5))
    found = contents(tmp_path / "got")
    assert "00001.tar" in report.failed
    assert found == {name: data for name, data in files.items() if name in found}
    place.write_bytes(files["00001.tar"])
    with Seeder(folder, LOCAL) as seeder:
        both = options(seeder.port, http=True)
        assert get(server.url, tmp_path / "got", both).whole
    assert contents(tmp_path / "got") == files


def test_only_new_pieces_come_in_an_update(publish, serving, files, shard, tmp_path):
    folder = publish(files)
    server = serving(folder)
    with Seeder(folder, LOCAL) as seeder:
        get(server.url, tmp_path / "got", options(seeder.port))
        newer = files | {"00004.tar": shard(4, 2)}
        publish(newer, "2")
        assert seeder.look_for_news()
        assert not seeder.look_for_news()
        assert len(seeder.status()["torrents"]) == 4
        report = get(server.url, tmp_path / "got", options(seeder.port, update=True))
    assert contents(tmp_path / "got") == newer
    assert report.fetched == 2 << 20


def test_what_was_taken_back_is_not_given(publish, serving, files, shard, tmp_path):
    folder = publish(files)
    torrent = folder / "versions/1/birds-1.hybrid.torrent"
    with Seeder(folder, LOCAL) as seeder:
        old = Releases(folder).latest.manifest.by_path["00001.tar"]
        removal = Removal("2", 2, "asked for", ("0" * 32,), ((old.path, old.size, old.sha256),))
        publish(files | {"00001.tar": shard(77, 1)}, "2", removal=removal)
        assert seeder.look_for_news()
        missing = {(o["version"], o["kind"]): o["missing_files"] for o in
                   seeder.status()["torrents"]}  # fmt: skip
        assert missing == {("1", "v1"): 1, ("1", "hybrid"): 1, ("2", "v1"): 0, ("2", "hybrid"): 0}
        report = get(str(torrent), tmp_path / "got", options(seeder.port, patience=0.5))
    assert list(report.failed) == ["00001.tar"]
    kept = {name: data for name, data in files.items() if name != "00001.tar"}
    assert contents(tmp_path / "got") == kept


@pytest.mark.parametrize("kind", ["v1", "hybrid"])
def test_files_that_share_pieces_with_what_was_taken_back(publish, shard, tmp_path, kind):
    chance = random.Random(7)
    tars = {f"{n:05d}.tar": shard(n) for n in range(3)}
    files = tars | {f"{n:05d}.parquet": chance.randbytes(1_700_000) for n in range(3)}
    folder = publish(files)
    shutil.copytree(folder, tmp_path / "old")
    old = Releases(folder).latest.manifest.by_path
    taken = ("00001.parquet", "00001.tar")
    named = tuple((old[path].path, old[path].size, old[path].sha256) for path in taken)
    newer = files | {"00001.parquet": chance.randbytes(1_500_000), "00001.tar": shard(77, 2)}
    publish(newer, "2", removal=Removal("2", 2, "asked for", ("0" * 32,), named))
    there = {path: path.stat() for path in (folder / "versions").rglob("*")}
    with Seeder(tmp_path / "old", LOCAL) as before:
        peers = (f"127.0.0.1:{before.port}",)
        with Seeder(folder, LOCAL, peers) as seeder:
            until = time.monotonic() + 10
            while (status := seeder.status())["peers"] < 2 and time.monotonic() < until:
                time.sleep(0.05)
            time.sleep(0.5)  # what is fetched from others is fetched at once
            assert [one["state"] for one in status["torrents"]] == ["finished"] * 2 + [
                "seeding"
            ] * 2
            assert status["peers"] == 2
            assert before.status()["uploaded"] == 0
    with Seeder(folder, LOCAL) as seeder:
        torrent = folder / "versions/1" / f"birds-1{'.hybrid' * (kind == 'hybrid')}.torrent"
        report = get(str(torrent), tmp_path / "got", options(seeder.port, patience=0.5))
    # In a v1 torrent the others have a piece each that they share with the one taken back.
    lost = set(taken) if kind == "hybrid" else {*taken, "00000.parquet", "00002.parquet"}
    assert set(report.failed) == lost
    kept = {name: data for name, data in files.items() if name not in lost}
    assert contents(tmp_path / "got") == kept
    now = {path: path.stat() for path in (folder / "versions").rglob("*")}
    assert now.keys() == there.keys()
    assert all(now[path].st_mtime_ns == there[path].st_mtime_ns for path in now)


def test_a_seed_with_wrong_bytes_writes_nothing(publish, files, tmp_path):
    folder = publish(files)
    shutil.copytree(folder, tmp_path / "whole")
    place = folder / "versions/1/birds/00001.tar"
    wrong = bytearray(files["00001.tar"])
    wrong[1_500_000] ^= 1
    place.unlink()
    place.write_bytes(wrong)
    torrent = folder / "versions/1/birds-1.hybrid.torrent"
    with (
        Seeder(tmp_path / "whole", LOCAL) as whole,
        Seeder(folder, LOCAL, (f"127.0.0.1:{whole.port}",)) as seeder,
    ):
        get(str(torrent), tmp_path / "got", options(seeder.port, patience=0.5))
    assert place.read_bytes() == wrong


def test_a_torrent_of_a_large_release_is_seeded(publish, files, tmp_path):
    # libtorrent's own limits: 10 MB, 2,097,152 pieces.
    folder = publish(files)
    path = folder / "versions/1/birds-1.hybrid.torrent"
    value = bencode.decode(path.read_bytes(), 1 << 20)
    path.write_bytes(bencode.encode(value | {b"comment": bytes(11 << 20)}))
    with Seeder(folder, LOCAL) as seeder:
        assert [one["state"] for one in seeder.status()["torrents"]] == ["seeding", "seeding"]
    many = 2_200_000
    info = {"name": "x", "length": many << 14, "piece length": 1 << 14, "pieces": bytes(20 * many)}
    found = load_torrent(bencode.encode({"info": info}), "x.torrent")
    assert found.ti.num_pieces() == many


def test_what_is_published_while_a_seed_starts_is_news(publish, files, shard, monkeypatch):
    folder = publish(files)

    def open_slowly(net):
        publish(files | {"00004.tar": shard(4, 1)}, "2")
        return open_session(net)

    monkeypatch.setattr(seed, "open_session", open_slowly)
    with Seeder(folder, LOCAL) as seeder:
        assert seeder.look_for_news()
        assert [one["version"] for one in seeder.status()["torrents"]] == ["1", "1", "2", "2"]


def test_counts_outlive_the_process(publish, serving, files, tmp_path):
    folder = publish(files)
    server = serving(folder)
    with Seeder(folder, LOCAL) as seeder:
        report = get(server.url, tmp_path / "got", options(seeder.port))
    with Seeder(folder, LOCAL) as seeder:
        hybrid = seeder.status()["torrents"][1]
        assert (hybrid["uploaded"], hybrid["state"]) == (0, "seeding")
        assert hybrid["uploaded_ever"] >= report.bytes


def test_the_rate_is_limited(publish, serving, shard, tmp_path):
    files = {"00000.tar": shard(0, 3)}
    folder = publish(files)
    server = serving(folder)
    with Seeder(folder, Net("127.0.0.1:0", lan=True, upload_limit=2_000_000)) as seeder:
        report = get(server.url, tmp_path / "got", options(seeder.port, patience=20))
    assert contents(tmp_path / "got") == files
    assert report.seconds > 1.2  # without a limit: half a second


def test_the_command_seeds_and_stops(publish, serving, files, tmp_path):
    folder = publish(files)
    server = serving(folder)
    command = [
        sys.executable, "-m", "datacomp.curate.cli", "seed", str(folder), "--lan",
        "--listen", "127.0.0.1:0", "--every", "0.2", "--json",
    ]  # fmt: skip
    for ending in (signal.SIGKILL, signal.SIGINT):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        status = json.loads(process.stdout.readline())
        assert [one["state"] for one in status["torrents"]] == ["seeding", "seeding"]
        got = tmp_path / f"got{ending}"
        get(server.url, got, options(status["port"]))
        assert contents(got) == files
        process.send_signal(ending)
        rest, _ = process.communicate(timeout=20)
        if ending == signal.SIGINT:
            assert process.returncode == 0
            assert json.loads(rest.splitlines()[-1])["uploaded"] > 0


def test_run_tells_and_ends(publish, files):
    told, stop = [], threading.Event()
    with Seeder(publish(files), LOCAL) as seeder:
        threading.Timer(0.5, stop.set).start()
        seeder.run(stop, told.append, 0.1)
    assert len(told) >= 2
    assert set(told[0]) == {
        "folder", "listen", "port", "seconds", "peers", "uploaded", "upload_rate", "torrents",
        "dht_nodes_with_pointer",
    }  # fmt: skip


# -- the pointer in the DHT -------------------------------------------------------------------


@pytest.fixture
def dht():
    """The port of a node in a DHT of this machine alone."""
    nodes = [open_session(Net("127.0.0.1:0", bootstrap="")) for _ in range(4)]
    while not all(node.is_listening() for node in nodes):
        time.sleep(0.01)
    port = nodes[0].listen_port()
    for node in nodes[1:]:
        node.add_dht_node(("127.0.0.1", port))
    return nodes, port


def test_a_mirror_that_is_behind_is_told_by_the_dht(
    publish, serving, files, shard, tmp_path, dht, key, capfd
):
    _, port = dht
    folder = publish(files)
    shutil.copytree(folder, tmp_path / "stale")
    stale = serving(tmp_path / "stale")
    publish(files | {"00004.tar": shard(4, 1)}, "2")
    stop, told = threading.Event(), []
    net = Net("127.0.0.1:0", bootstrap=f"127.0.0.1:{port}")
    with Seeder(folder, net, key=key) as seeder:
        thread = threading.Thread(target=seeder.run, args=(stop, told.append, 0.1))
        thread.start()
        until = time.monotonic() + 30
        while not (told and told[-1]["dht_nodes_with_pointer"]) and time.monotonic() < until:
            time.sleep(0.05)
        assert told[-1]["dht_nodes_with_pointer"] > 0
        chosen = options(lan=False, bootstrap=net.bootstrap, peers=(f"127.0.0.1:{seeder.port}",))
        report = get(stale.url, tmp_path / "got", chosen)
        stop.set()
        thread.join()
    assert report.whole
    assert "the DHT knows of number 2, this source only of 1 (number 1); it is behind" in (
        capfd.readouterr().err
    )


def test_no_answer_of_the_dht_but_a_newer_one_ends_the_asking(
    publish, files, shard, tmp_path, capfd
):
    publish(files)
    manifest = Releases(publish(files | {"00004.tar": shard(4, 1)}, "2")).latest.manifest
    with Folder(tmp_path / "got") as folder:
        engine = Engine(folder, [], lambda: None, lambda: None, lambda amount: None)
        source = engine.add_source("peers", "bittorrent")
        net = Net("127.0.0.1:0", bootstrap="")
        channel = Channel(engine, source, folder, lambda: b"", net, (), 1.0, manifest)
        channel._compare(DhtPointer(1, "f" * 64, "bafy"))
        channel._compare(DhtPointer(2, manifest.sha256, manifest.root_cid))
        for _ in range(2):
            channel._compare(DhtPointer(3, "f" * 64, "bafy"))
    assert capfd.readouterr().err == (
        "warning: birds: the DHT knows of number 3, this source only of 2 (number 2); "
        "it is behind\n"
    )


def test_another_key_s_pointer_is_not_put(publish, files):
    other = SigningKey.from_seed(b"o" * 32)
    with Seeder(publish(files), Net("127.0.0.1:0", bootstrap=""), key=other) as seeder:
        while not seeder.session.is_dht_running():
            time.sleep(0.01)
        with pytest.raises(UsageError, match="is signed with the key"):
            seeder.point()


# -- hostile ----------------------------------------------------------------------------------


def torrent(tmp_path, **info):
    base = {"name": "x", "piece length": 1 << 20, "pieces": bytes(20)}
    path = tmp_path / "evil.torrent"
    path.write_bytes(bencode.encode({"info": base | info}))
    return str(path)


def test_a_torrent_of_a_huge_file(tmp_path):
    huge = torrent(tmp_path, length=1 << 52)
    with pytest.raises(StorageError, match=r"4,503,599,627,370,496 bytes are still to come, but"):
        get(huge, tmp_path / "got", options())
    with pytest.raises(DataError, match="a file has no size, or an absurd one"):
        get(torrent(tmp_path, length=1 << 60), tmp_path / "got", options())


def test_a_torrent_whose_pieces_do_not_cover_its_files(tmp_path):
    broken = torrent(tmp_path, length=6, pieces=bytes(40))
    report = get(broken, tmp_path / "got", options(9))
    assert list(report.failed) == ["x"]
    assert "not a torrent that can be used: incorrect number of piece hashes" in report.failed["x"]


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"files": [{"length": 1, "path": ["..", "up"]}]}, "is not a plain relative path"),
        ({"files": [{"length": 1, "path": ["a/../../up"]}]}, "a file name holds a slash"),
        ({"files": [{"length": 1, "path": ["A"]}, {"length": 1, "path": ["a"]}]}, "collides with"),
        ({"files": [{"length": 1, "path": ["/etc"]}]}, "holds a slash"),
        ({"name": "../up", "length": 1}, "is not a plain relative path"),
        ({"files": [{"length": -1, "path": ["a"]}]}, "no size, or an absurd one"),
        ({"file tree": {"..": {"": {"length": 0}}}}, "is not a plain relative path"),
        ({"file tree": {"a": {"": {"length": 5}}}}, "has no root"),
        ({"files": []}, "0 files"),
    ],
)
def test_names_that_would_do_harm(tmp_path, info, message):
    with pytest.raises((UnsafeInputError, DataError), match=message):
        get(torrent(tmp_path, **info), tmp_path / "got", options())
    assert contents(tmp_path / "got") == {}


def test_what_is_no_torrent(tmp_path):
    (tmp_path / "no.torrent").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"no\.torrent: not bencoded"):
        get(str(tmp_path / "no.torrent"), tmp_path / "got", options())


def test_a_signed_folder_takes_nothing_unsigned(publish, serving, files, tmp_path):
    folder = publish(files)
    server = serving(folder)
    get(server.url, tmp_path / "got", Options(bittorrent=False))
    from datacomp.errors import IntegrityError

    with pytest.raises(IntegrityError, match="but this source is not signed; use another folder"):
        get(torrent(tmp_path, name="birds", length=6), tmp_path / "got", options())


def test_another_torrent_in_the_same_folder(publish, files, tmp_path):
    folder = publish(files)
    with Seeder(folder, LOCAL) as seeder:
        get(str(folder / "versions/1/birds-1.torrent"), tmp_path / "got", options(seeder.port))
    with pytest.raises(UsageError, match="holds the files of another source; use another folder"):
        get(torrent(tmp_path, length=6), tmp_path / "got", options())


def test_peers_that_are_none(publish, serving, files, tmp_path):
    server = serving(publish(files))
    with pytest.raises(UsageError, match="peer 'nowhere': expected HOST:PORT"):
        get(server.url, tmp_path / "got", Options(http=False, lan=True, peers=("nowhere",),
                                                  listen="127.0.0.1:0"))  # fmt: skip


def test_a_folder_without_releases(tmp_path):
    with pytest.raises(MissingError), Seeder(tmp_path / "none", LOCAL):
        pass


def test_an_address_that_is_taken(publish, files):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        net = Net(f"127.0.0.1:{taken.getsockname()[1]}", lan=True)
        started = time.monotonic()
        with pytest.raises(StorageError, match="cannot listen there"), Seeder(publish(files), net):
            pass
        assert time.monotonic() - started < 10
