import hashlib
import os
import random
import tempfile
from pathlib import Path

import pytest
from datacomp.distribution.release.digests import Digests, Record, check_piece_length, read_digests
from datacomp.distribution.release.tail import AT_ONCE, TailPieces
from datacomp.distribution.stretch import Spill
from datacomp.errors import DataError, IntegrityError, MissingError, UsageError
from hypothesis import given, settings
from hypothesis import strategies as st

BLOCK = 16 << 10
PIECE = 4 * BLOCK


def root_of(data):
    """The v2 root straight from BEP 52: leaves up to a power of two, then pair by pair."""
    leaves = [hashlib.sha256(data[i : i + BLOCK]).digest() for i in range(0, len(data), BLOCK)]
    while len(leaves) & (len(leaves) - 1):
        leaves.append(bytes(32))
    while len(leaves) > 1:
        leaves = [
            hashlib.sha256(a + b).digest() for a, b in zip(leaves[::2], leaves[1::2], strict=True)
        ]
    return leaves[0].hex()


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(
        [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 5 * PIECE + 7]
    ),
    st.lists(st.integers(1, 3 * PIECE), max_size=6),
    st.integers(0, 1000),
)
def test_one_pass_gives_what_five_give_however_the_bytes_come(size, cuts, seed):
    data = random.Random(seed).randbytes(size)
    digests, at = Digests(PIECE), 0
    for cut in [*cuts, size]:
        digests.update(memoryview(data[at : at + cut]))
        at += cut
    found = digests.finish()
    pieces = [data[i : i + PIECE] for i in range(0, size, PIECE)]
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert found.size == size
    assert found.pieces == b"".join(hashlib.sha1(piece).digest() for piece in pieces)
    assert found.aligned == (size % PIECE == 0)
    if pieces:
        padded = pieces[-1].ljust(PIECE, b"\0")
        assert found.padded_last == hashlib.sha1(padded).digest()
        assert found.pieces_root == root_of(data)
        assert len(found.layer) == (32 * len(pieces) if len(pieces) > 1 else 0)
    else:
        assert (found.pieces_root, found.layer, found.padded_last) == (None, b"", b"")
    assert found.content == (data if size < BLOCK else b"")
    assert Record.decode(found.encode(), "x") == found


@pytest.mark.parametrize(
    ("size", "cid"),
    [
        (0, "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
        (262_145, "bafkreifspibstbhkrjv6y4amhvxwh6h47p4p7dxyp2lsrep63jhousvnbq"),
        (1_048_577, "bafybeihd4yzq7n5umhjngdum4r6k2to7egxfkf2jz6thvwzf6djus22cmq"),
    ],
)
def test_cids_of_zeros_are_those_of_other_implementations(tmp_path, size, cid):
    (tmp_path / "zeros").write_bytes(bytes(size))
    found = read_digests(tmp_path / "zeros")
    assert (found.cid, found.profile) == (cid, "unixfs-v1-2025")


def test_a_profile_is_remembered(tmp_path):
    (tmp_path / "zeros").write_bytes(bytes(262_145))
    found = read_digests(tmp_path / "zeros", profile="legacy-256k")
    assert found.cid == "bafybeigllfqgfpqydppr6cmv56g7ax4wyhruzswvcefv6j5kj77nzttfki"
    assert len(found.leaves) == 64


def test_padding_counts_and_is_handed_on(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"x" * 1000)
    copy = bytearray()
    found = read_digests(tmp_path / "a.tar", PIECE, pad=True, also=copy.extend)
    assert bytes(copy) == b"x" * 1000 + bytes(PIECE - 1000)
    assert (found.size, found.sha256) == (PIECE, hashlib.sha256(copy).hexdigest())
    assert found.aligned


def test_each_byte_is_read_once(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(os.urandom(3_000_000))
    read = []
    read_digests(path, also=lambda block: read.append(len(block)))
    assert sum(read) == 3_000_000


def test_a_file_that_changes_meanwhile(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(3_000_000))

    def grow(_):
        with path.open("ab") as file:
            file.write(b"more")

    with pytest.raises(IntegrityError, match=r"a: changed while it was read; try again when"):
        read_digests(path, also=grow)


def test_what_is_not_there(tmp_path):
    with pytest.raises(MissingError, match="no such file"):
        read_digests(tmp_path / "a")


@pytest.mark.parametrize("length", [0, 1, 16383, 16385, 3 << 14, 32 << 20, -16384])
def test_piece_lengths_that_torrents_cannot_have(length):
    with pytest.raises(UsageError, match="expected a power of two from 16,384 to 16,777,216"):
        check_piece_length(length)


@given(st.binary(max_size=50))
def test_records_of_strangers(data):
    with pytest.raises(DataError):
        Record.decode(data, "x")


@given(st.lists(st.binary(max_size=100), max_size=8))
def test_pieces_over_several_files(parts):
    data = b"".join(parts)
    pieces = [data[i : i + 64] for i in range(0, len(data), 64)]
    with tempfile.TemporaryDirectory() as folder, Spill(Path(folder)) as spill:
        tail = TailPieces(64, spill)
        for part in parts:
            tail.update(part)
        found = bytes(tail.finish())
    assert found == b"".join(hashlib.sha1(piece).digest() for piece in pieces)


def test_many_pieces_over_several_files_wait_in_a_file(tmp_path):
    data = os.urandom(64 * (AT_ONCE // 20) * 2 + 70)
    with Spill(tmp_path) as spill:
        tail = TailPieces(64, spill, b"before")
        for at in range(0, len(data), 100_000):
            tail.update(data[at : at + 100_000])
        found = tail.finish()
        assert not found.is_held
        assert bytes(found) == b"before" + b"".join(
            hashlib.sha1(data[i : i + 64]).digest() for i in range(0, len(data), 64)
        )


def test_memory_does_not_grow_with_the_file(tmp_path):
    import tracemalloc

    path = Path(tmp_path / "sparse")
    with path.open("wb") as file:
        file.truncate(64 << 20)
    tracemalloc.start()
    read_digests(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 << 20
