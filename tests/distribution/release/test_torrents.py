import hashlib

import libtorrent as lt
import pytest
from datacomp.distribution import bencode
from datacomp.distribution.release.digests import read_digests
from datacomp.distribution.release.tail import TailPieces
from datacomp.distribution.release.torrents import (
    ROOM,
    bound,
    check_fits,
    hybrid_torrent,
    v1_order,
    v1_torrent,
)
from datacomp.distribution.stretch import Spill
from datacomp.errors import UsageError

from .conftest import PIECE, SIZES, write_files


def torrents_of(folder, **more):
    files = [
        (path.relative_to(folder).as_posix(), read_digests(path, PIECE))
        for path in folder.rglob("*")
        if path.is_file()
    ]
    with Spill(folder) as spill:
        tail = TailPieces(PIECE, spill)
        for name, _ in v1_order(files)[1]:
            tail.update((folder / name).read_bytes())
        v1 = v1_torrent(folder.name, PIECE, files, bytes(tail.finish()), **more)
        return v1, hybrid_torrent(folder.name, PIECE, files, **more)


def as_libtorrent_makes_it(folder, torrent, flags):
    """Have libtorrent create a torrent of the same files in the same order."""
    listed = bencode.decode(torrent.data, 1 << 20)[b"info"][b"files"]
    names = [b"/".join(f[b"path"]).decode() for f in listed if b"attr" not in f]
    entries = {entry.filename: entry for entry in lt.list_files(str(folder))}
    made = lt.create_torrent([entries[f"{folder.name}/{name}"] for name in names], PIECE, flags)
    lt.set_piece_hashes(made, str(folder.parent))
    return made.generate()


LAYOUTS = {
    "all": SIZES,
    "aligned": {"a.tar": PIECE, "b.tar": 3 * PIECE},
    "one": {"a.tar": 5},
    "aligned but the last": {"a.tar": 2 * PIECE, "b.txt": 9},
    "small": {"a": 1, "b": 16384, "c": 16385, "d": PIECE - 1},
    "empty ones": {"a": 0, "b": 5, "c": 0, "d": PIECE, "e": 0},
}


@pytest.mark.parametrize("sizes", LAYOUTS.values(), ids=LAYOUTS)
def test_both_torrents_are_byte_for_byte_libtorrents(tmp_path, sizes):
    folder = write_files(tmp_path / "ds", sizes)
    v1, hybrid = torrents_of(folder)
    for torrent, flags in [
        (v1, lt.create_torrent.v1_only),
        (hybrid, lt.create_torrent.canonical_files_no_tail_padding),
    ]:
        ours = bencode.decode(torrent.data, 1 << 20)
        theirs = as_libtorrent_makes_it(folder, torrent, flags)
        assert bencode.encode(ours[b"info"]) == lt.bencode(theirs[b"info"])
        assert ours.get(b"piece layers") == theirs.get(b"piece layers")
        hashes = lt.load_torrent_buffer(torrent.data).ti.info_hashes()
        assert str(hashes.v1) == torrent.v1
        assert (str(hashes.v2) if torrent.v2 else None) == torrent.v2


def test_a_folder_named_as_the_beginning_of_a_file_loads(tmp_path):
    # libtorrent 2.1 sorts these by whole paths and cannot load what it made.
    folder = write_files(tmp_path / "ds", {"sub.txt": 5, "sub/a": PIECE, "sub-b/c": 9})
    _, hybrid = torrents_of(folder)
    layout = lt.load_torrent_buffer(hybrid.data).ti.layout()
    names = [layout.file_path(i) for i in range(layout.num_files())]
    assert [n for n in names if ".pad" not in n] == ["ds/sub/a", "ds/sub-b/c", "ds/sub.txt"]


def test_padded_shards_need_no_pad_files(tmp_path):
    folder = write_files(tmp_path / "ds", {"0.tar": PIECE, "1.tar": 2 * PIECE, "x.txt": 70})
    for torrent in torrents_of(folder):
        assert b".pad" not in torrent.data


def test_aligned_files_come_first_so_their_pieces_stay_theirs(tmp_path):
    first = write_files(tmp_path / "a" / "ds", {"0.tar": PIECE, "0.json": 9})
    second = write_files(tmp_path / "b" / "ds", {"0.tar": PIECE, "0.json": 9, "1.tar": PIECE})
    pieces = [
        bencode.decode(torrents_of(folder)[0].data, 1 << 20)[b"info"][b"pieces"]
        for folder in (first, second)
    ]
    assert pieces[0] == pieces[1][:20] + pieces[1][40:]


def test_libtorrent_finds_the_files_whole(tmp_path):
    folder = write_files(tmp_path / "ds", SIZES)
    settings = {"enable_dht": False, "enable_lsd": False, "listen_interfaces": "127.0.0.1:0"}
    session = lt.session(settings)
    for torrent in torrents_of(folder):
        wanted = lt.load_torrent_buffer(torrent.data)
        wanted.save_path = str(tmp_path)
        handle = session.add_torrent(wanted)
        for _ in range(200):
            if handle.status().is_seeding:
                break
            session.wait_for_alert(50)
            session.pop_alerts()
        assert handle.status().is_seeding
        session.remove_torrent(handle)


def test_mirrors_and_trackers(tmp_path):
    folder = write_files(tmp_path / "ds", {"a.tar": PIECE})
    urls = {"webseeds": ["http://h/v/1/"], "trackers": ["udp://t:1/announce", "http://u/announce"]}
    v1, hybrid = torrents_of(folder, **urls)
    for torrent in (v1, hybrid):
        found = lt.load_torrent_buffer(torrent.data)
        assert found.url_seeds == ["http://h/v/1/"]
        assert found.trackers == urls["trackers"]
    magnet = hybrid.magnet("ds", urls["webseeds"], urls["trackers"])
    parsed = lt.parse_magnet_uri(magnet)
    assert str(parsed.info_hashes.v1) == hybrid.v1
    assert str(parsed.info_hashes.v2) == hybrid.v2
    assert (parsed.name, parsed.url_seeds) == ("ds", ["http://h/v/1/"])
    assert parsed.trackers == urls["trackers"]
    assert hashlib.sha1(
        bencode.encode(bencode.decode(v1.data, 1 << 20)[b"info"])
    ).hexdigest() == v1.v1  # fmt: skip


def test_what_would_be_too_large_to_be_read_is_refused():
    files = [(f"{number:08d}.tar", 1 << 30) for number in range(4_900)]
    check_fits(files, 1 << 20)
    with pytest.raises(UsageError) as caught:
        check_fits(files, 1 << 19)
    assert str(caught.value) == (
        "5,261,334,937,600 bytes in pieces of 524,288 need a torrent of more than 256 MiB, which "
        "'datacomp get' refuses; give --piece-length 1048576, and shards built with --pad 1048576"
    )
    with pytest.raises(UsageError, match=r"get' refuses; publish fewer or smaller files$"):
        check_fits([(f"{number}", 1) for number in range(700_000)], 16 << 20)


def test_what_fits_is_no_larger_than_was_reckoned(tmp_path):
    for sizes in (SIZES, {"a/b/c/d/é" * 3: 5 * PIECE + 1, "z": 9}):
        folder = write_files(tmp_path / str(len(sizes)) / "ds", sizes)
        for torrent in torrents_of(folder):
            assert len(torrent.data) <= bound(list(sizes.items()), PIECE) - ROOM
