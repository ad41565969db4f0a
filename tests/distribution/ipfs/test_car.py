"""CARs: what is written is read, and nothing of a stranger is believed."""

import contextlib
import io

import pytest
from datacomp.distribution.ipfs import car, dagcbor, varint
from datacomp.distribution.ipfs.cid import CID
from datacomp.errors import DataError, IntegrityError, UnsafeInputError
from hypothesis import given
from hypothesis import strategies as st

from .conftest import name

ROOT = CID.parse("bafybeic4cv6hcwodx32abizz7x56fzoxn4n5pjl6nn4yx6tiwe2vzsj54e")
HELLO = CID.parse(name(b"hello").cid)
HEAD = car.header([ROOT])


def read(data, **options):
    reader = car.Reader(io.BytesIO(data), "x.car", **options)
    return reader.roots, list(reader)


class Trickle(io.RawIOBase):
    """A file that gives one byte at a time, as a network may."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def read(self, size=-1):
        part = self.data[self.at : self.at + min(size, 1)]
        self.at += len(part)
        return part


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_a_car_is_read_as_it_was_written(contents):
    blocks = [(CID.parse(name(data).cid), data) for data in contents]
    data = b"".join(car.write([ROOT], blocks))
    assert read(data) == ((ROOT,), blocks)
    reader = car.Reader(Trickle(data), "x.car")
    assert list(reader) == blocks


def test_the_head_of_a_car_is_as_the_specification_has_it():
    assert HEAD.hex() == (
        "3aa265726f6f747381d82a58250001701220" + ROOT.digest.hex() + "6776657273696f6e01"
    )


def test_version_2_is_read_from_its_inner_car():
    inner = b"".join(car.write([ROOT], [(HELLO, b"hello")]))
    start = 11 + 40 + 7
    fixed = bytes(16) + start.to_bytes(8, "little") + len(inner).to_bytes(8, "little") + bytes(8)
    data = b"\x0a\xa1gversion\x02" + fixed + bytes(7) + inner + b"an index follows"
    assert read(data) == ((ROOT,), [(HELLO, b"hello")])
    broken = data.replace(start.to_bytes(8, "little"), (3).to_bytes(8, "little"))
    with pytest.raises(DataError, match="its data would begin in its header"):
        read(broken)
    endless = data.replace(start.to_bytes(8, "little"), (1 << 62).to_bytes(8, "little"))
    with pytest.raises(DataError, match="cut off in the header"):
        read(endless)


def head(value):
    data = dagcbor.encode(value)
    return varint.encode(len(data)) + data


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"", DataError, "x.car: not a CAR: it is empty"),
        (b"<html>", DataError, "x.car: cut off in the header at byte 6"),
        (b"\x00", DataError, "x.car: not a CAR: the CBOR is cut off"),
        (b"\x80\x80\x04" + bytes(65536), DataError,
         "x.car: not a CAR: 65,535 bytes follow the CBOR value"),
        (varint.encode(1 << 40), UnsafeInputError,
         "x.car: a CAR header of 1,099,511,627,776 bytes; at most 65,536 are accepted"),
        (b"\xff" * 30, DataError,
         "x.car: the length of the header at byte 0: a varint is longer than nine bytes"),
        (head([1]), DataError, "x.car: not a CAR: its header is no map"),
        (head({"version": 3, "roots": []}), DataError, "x.car: not a CAR of version 1 or 2"),
        (head({"version": 1}), DataError, "x.car: not a CAR of version 1 or 2"),
        (head({"version": 1, "roots": [7]}), DataError, "x.car: not a CAR: a root is no CID"),
        (HEAD + b"\x85", DataError,
         "x.car: the length of a block at byte 59: a varint is cut off"),
        (HEAD + b"\x85\x00", DataError,
         "x.car: the length of a block at byte 59: a varint is not in its shortest form"),
        (HEAD + b"\xff" * 30, DataError,
         "x.car: the length of a block at byte 59: a varint is longer than nine bytes"),
        (HEAD + varint.encode(1 << 62), UnsafeInputError,
         "x.car: a block of 4,611,686,018,427,387,904 bytes at byte 59; at most 2,097,152 are "
         "accepted"),
        (HEAD + car.section(HELLO, b"hello")[:-1], DataError,
         "x.car: cut off in a block at byte 100"),
        (HEAD + b"\x03abc", DataError, "x.car: at byte 59: a CID of version 97"),
        (HEAD + b"\x00", DataError, "x.car: at byte 59: a varint is cut off"),
        (HEAD + car.section(HELLO, b"hellO"), IntegrityError,
         f"x.car: at byte 59: {HELLO}: 5 bytes came that are not this block"),
        (HEAD + car.section(HELLO, b"hello") + car.section(ROOT, b""), IntegrityError,
         f"x.car: at byte 101: {ROOT}: 0 bytes came that are not this block"),
    ],
)  # fmt: skip
def test_broken_cars(data, kind, message):
    with pytest.raises(kind) as found:
        read(data)
    assert str(found.value).startswith(message)
    assert "\n" not in str(found.value)


def test_a_block_just_too_large_is_refused():
    data = bytes(1001)
    cid = CID.parse(name(data).cid)
    sent = HEAD + car.section(cid, data)
    assert read(sent, max_block=1001)[1] == [(cid, data)]
    with pytest.raises(UnsafeInputError, match=r"a block of 1,001 bytes at byte 59; at most 1,000"):
        read(sent, max_block=1000)


def test_only_what_is_there_is_asked_for():
    """A header that announces much does not make the reader wait for, or hold, that much."""

    class Counted(io.BytesIO):
        most = 0

        def read(self, size=-1):
            self.most = max(self.most, size)
            return super().read(size)

    file = Counted(varint.encode(1 << 30) + bytes(100))
    with pytest.raises(UnsafeInputError):
        car.Reader(file, "x.car")
    assert file.most == 1


@given(st.binary(max_size=200))
def test_bytes_of_strangers_are_a_car_or_an_error(data):
    for start in (b"", HEAD):
        with contextlib.suppress(DataError):
            read(start + data)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.binary(max_size=9)
    | st.text(max_size=9) | st.just(ROOT) | st.just(CID.parse("bafkqaaa")),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=9,
)  # fmt: skip


@given(values)
def test_cbor_is_read_as_it_was_written(value):
    data = dagcbor.encode(value)
    assert dagcbor.decode(data) == value
    assert dagcbor.encode(dagcbor.decode(data)) == data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "cut off"),
        ("18", "cut off"),
        ("1817", "not in its shortest form"),
        ("190017", "not in its shortest form"),
        ("42ff", "cut off"),
        ("62c328", "not UTF-8"),
        ("9bffffffffffffffff", "cut off"),
        ("9fff", "DAG-CBOR does not have"),
        ("fb3ff0000000000000", "DAG-CBOR does not have"),
        ("f7", "not read here"),
        ("a2616101616102", "stands there twice"),
        ("a10101", "no text"),
        ("d82b4100", "tag 43 that is no link"),
        ("d82a4101", "tag 42 that is no link"),
        ("0000", "1 bytes follow"),
        ("81" * 20 + "00", "nested more than 16 deep"),
    ],
)
def test_broken_cbor(data, message):
    with pytest.raises(DataError, match=message):
        dagcbor.decode(bytes.fromhex(data))


def test_what_dag_cbor_cannot_hold():
    with pytest.raises(ValueError, match="float cannot be written"):
        dagcbor.encode(1.5)
    with pytest.raises(ValueError, match="does not fit"):
        dagcbor.encode(1 << 64)
