"""Blocks of strangers are read or refused, in one line."""

import contextlib

import pytest
from datacomp.distribution.ipfs import dagpb, protobuf
from datacomp.distribution.ipfs.cid import CID
from datacomp.distribution.ipfs.dagpb import Link
from datacomp.errors import DataError
from hypothesis import given
from hypothesis import strategies as st

RAW = CID.parse("bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4").to_bytes()

links = st.lists(st.builds(Link, st.just(RAW), st.binary(max_size=9), st.integers(0, 1 << 40)))


@given(links)
def test_a_folder_is_read_as_it_was_written(found):
    entry = dagpb.decode(dagpb.encode(found, dagpb.DIRECTORY_MESSAGE), "x")
    assert (entry.kind, entry.links) == (dagpb.DIRECTORY, tuple(found))


@given(st.lists(st.integers(0, 1 << 40), max_size=40))
def test_a_file_is_read_as_it_was_written(sizes):
    block = dagpb.encode([Link(RAW, b"", size) for size in sizes], dagpb.file_message(sizes))
    entry = dagpb.decode(block, "x")
    assert (entry.kind, entry.block_sizes, entry.size) == (dagpb.FILE, tuple(sizes), sum(sizes))


@given(st.binary(max_size=300))
def test_a_leaf_is_read_as_it_was_written(data):
    before, after = dagpb.leaf_frame(len(data))
    entry = dagpb.decode(before + data + after, "x")
    assert (entry.kind, entry.content, entry.size) == (dagpb.FILE, data, len(data))


@given(st.binary(max_size=200))
def test_bytes_of_strangers_are_a_block_or_an_error(data):
    with contextlib.suppress(DataError):
        dagpb.decode(data, "x")


def test_packed_sizes_are_read():
    """An encoder may write the sizes of blocks in one field."""
    message = b"\x08\x02\x18\x05" + protobuf.data(4, b"\x02\x03")
    entry = dagpb.decode(dagpb.encode([Link(RAW, b"", 2), Link(RAW, b"", 3)], message), "x")
    assert entry.block_sizes == (2, 3)


LINK = protobuf.data(2, protobuf.data(1, RAW))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (b"", "it holds no data"),
        (LINK, "it holds no data"),
        (protobuf.data(1, b"\x08\x01") + LINK, "field 2 where it does not belong"),
        (protobuf.data(1, b"\x08\x01") * 2, "field 1 where it does not belong"),
        (protobuf.data(3, b""), "field 3 where it does not belong"),
        (protobuf.data(2, b"\x0a\x02\x01\x55") + protobuf.data(1, b"\x08\x01"), "is cut off"),
        (protobuf.data(2, b"") + protobuf.data(1, b"\x08\x01"), "a link without a CID"),
        (protobuf.data(1, b"\x08\x07"), "UnixFS type 7"),
        (protobuf.data(1, b""), "UnixFS type None"),
        (protobuf.data(1, b"\x08\x02\x18\x05"), "its sizes do not fit its links"),
        (LINK + protobuf.data(1, b"\x08\x02"), "its sizes do not fit its links"),
        (LINK + protobuf.data(1, b"\x08\x02\x18\x04\x20\x05"), "its sizes do not fit its links"),
        (protobuf.data(1, b"\x08\x05\x30\x10"), "a folder sharded 16 ways by hash 0x0"),
        (b"\x0a\xff\xff\x03", "says 65,535 bytes, more than there are"),
        (b"\x0d\x00", "of a kind that IPFS does not use (5)"),
        (b"\x0a" + b"\xff" * 12, "a varint is longer than nine bytes"),
    ],
)
def test_broken_blocks(block, message):
    with pytest.raises(DataError) as found:
        dagpb.decode(block, "bafy")
    assert str(found.value).startswith("bafy: not a UnixFS block: ")
    assert message in str(found.value)
