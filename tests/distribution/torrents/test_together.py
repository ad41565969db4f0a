"""A mirror and peers share the work: what one has begun, the other goes on with."""

import asyncio

import pytest
from datacomp.distribution.getting import Options, get
from datacomp.distribution.torrents import Net, Seeder

pytest.importorskip("libtorrent")
PIECE = 1 << 20


def options(port, **more):
    return Options(
        lan=True, listen="127.0.0.1:0", peers=(f"127.0.0.1:{port}",), connections=1, **more
    )


def test_a_mirror_goes_on_where_peers_have_got_to(publish, serving, shard, tmp_path):
    files = {"00000.tar": shard(0, 6), "00001.tar": shard(1, 16)}
    folder = publish(files)
    slow = Net("127.0.0.1:0", lan=True, upload_limit=2 * PIECE)
    with Seeder(folder, slow) as seeder:

        async def wait(body, seen):
            while seen >= 5 * PIECE and seeder.status()["uploaded"] < 2 * PIECE:
                await asyncio.sleep(0.05)
            return body

        # The mirror has given the small file when the peer has begun with the large one.
        server = serving(folder, lambda path, _: wait if path.endswith("00000.tar") else None)
        report = get(server.url, tmp_path / "got", options(seeder.port))
    assert report.whole
    assert {path.name: path.read_bytes() for path in (tmp_path / "got").glob("*.tar")} == files
    assert report.channels["http"] > 9 * PIECE, "the file did not change hands"
    assert report.channels["bittorrent"] >= PIECE
    assert report.fetched < report.bytes + 2 * PIECE


def test_peers_go_on_where_a_mirror_has_broken_off(publish, serving, stall, shard, tmp_path):
    files = {"00000.tar": shard(0, 8)}
    folder = publish(files)
    server = serving(folder, stall(5 * PIECE))
    with Seeder(folder, Net("127.0.0.1:0", lan=True)) as seeder:
        report = get(server.url, tmp_path / "got", options(seeder.port, patience=0.5))
    assert report.whole
    assert (tmp_path / "got/00000.tar").read_bytes() == files["00000.tar"]
    assert report.channels["http"] > 3 * PIECE
    assert report.channels["bittorrent"] >= 3 * PIECE
    assert report.fetched < report.bytes + PIECE


def test_a_file_that_nobody_has_signed_comes_from_peers_alone_once_they_take_it(
    publish, serving, stall, shard, tmp_path
):
    files = {"00000.tar": shard(0, 8)}
    folder = publish(files)
    stalls = stall(5 * PIECE)
    server = serving(
        folder,
        lambda path, headers: (404, []) if path.endswith(".json") else stalls(path, headers),
    )
    torrent = folder / "versions/1/birds-1.torrent"
    with Seeder(folder, Net("127.0.0.1:0", lan=True)) as seeder:
        mirror = f"{server.url}versions/1/birds/"
        more = options(seeder.port, patience=0.5, mirrors=(mirror,))
        report = get(str(torrent), tmp_path / "got", more)
    assert (report.whole, report.signed) == (True, False)
    assert (tmp_path / "got/00000.tar").read_bytes() == files["00000.tar"]
    assert report.channels["bittorrent"] == report.bytes


def test_a_mirror_a_gateway_and_peers_at_once(publish, serving, shard, tmp_path):
    files = {f"{number:05d}.tar": shard(number) for number in range(8)}
    folder = publish(files)
    with Seeder(folder, Net("127.0.0.1:0", lan=True)) as seeder:
        mirror, gateway = serving(folder), serving(folder)

        async def wait(body, seen):  # until the others have given something, too
            while seen and not (seeder.status()["uploaded"] and gateway.given):
                await asyncio.sleep(0.05)
            return body

        async def wait_for_peers(body, seen):
            while len(body) > PIECE // 2 and not seeder.status()["uploaded"]:
                await asyncio.sleep(0.05)
            return body

        mirror.fault = lambda path, _: wait if path.endswith(".tar") else None
        gateway.fault = lambda path, _: wait_for_peers if path.startswith("/ipfs/") else None
        report = get(mirror.url, tmp_path / "got", options(seeder.port, gateways=(gateway.url,)))
    assert report.whole
    assert {path.name: path.read_bytes() for path in (tmp_path / "got").glob("*.tar")} == files
    assert set(report.channels) == {"http", "ipfs", "bittorrent"}
    assert all(report.channels.values())
    assert report.fetched < report.bytes + 2 * PIECE
