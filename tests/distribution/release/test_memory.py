"""What a release takes of memory does not grow with the number of its pieces."""

from datacomp.distribution import bencode
from datacomp.distribution.release import Releases

from .large import COMPARE, CREATE, PIECE, measured, pretend, some

FILES, FEW, MANY = 50, 2, 2000
GROWTH = 5
"""MiB, of which the torrents of MANY have 7, and the hashes of its pieces and blocks 8."""


def test_publishing_and_comparing_take_no_more_for_a_hundred_thousand_pieces(tmp_path):
    peaks = {}
    for pieces in (FEW, MANY):
        folder = tmp_path / str(pieces)
        pretend(folder, FILES, pieces)
        first = measured(CREATE, folder, "1")
        assert (first["read"], first["bytes"]) == (0, FILES * pieces * PIECE)
        (folder / "data/one_more").write_bytes(b"new")
        second = measured(CREATE, folder, "2")
        assert second["read"] == 3
        compared = measured(COMPARE, folder, "1")
        assert compared["faults"] == []
        peaks[pieces] = [found["peak"] for found in (first, second, compared)]
    for few, many in zip(peaks[FEW], peaks[MANY], strict=True):
        assert many < few + GROWTH, peaks
        assert many < 100

    version = Releases(tmp_path / str(MANY) / "releases").version("1")
    torrents = [
        bencode.decode((version.folder / said["file"]).read_bytes(), 1 << 28)
        for said in version.manifest.torrents.values()
    ]
    names = [f"{number:08d}.tar" for number in range(FILES)]
    pieces = b"".join(some(MANY, 20, f"p{name}") for name in names)
    assert [torrent[b"info"][b"pieces"] for torrent in torrents] == [pieces, pieces]
    assert sorted(torrents[1][b"piece layers"].values()) == sorted(
        some(MANY, 32, f"l{name}") for name in names
    )
