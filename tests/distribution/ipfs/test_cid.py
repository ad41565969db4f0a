"""Names of blocks, the bases they are written in, and the numbers inside them."""

import contextlib
import hashlib

import pytest
from datacomp.distribution.ipfs import multibase, varint
from datacomp.distribution.ipfs.cid import CID, DAG_PB, IDENTITY, RAW, SHA2_256
from datacomp.errors import DataError, IntegrityError
from hypothesis import given
from hypothesis import strategies as st

HELLO = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"
EMPTY_V0 = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"

digests = st.binary(min_size=32, max_size=32)
cids = st.one_of(
    st.builds(lambda digest: CID(0, DAG_PB, SHA2_256, digest), digests),
    st.builds(lambda codec, digest: CID(1, codec, SHA2_256, digest),
              st.integers(0, (1 << 63) - 1), digests),
    st.builds(lambda codec, data: CID(1, codec, IDENTITY, data),
              st.sampled_from([RAW, DAG_PB]), st.binary(max_size=128)),
)  # fmt: skip


@given(cids)
def test_a_cid_is_the_same_in_bytes_and_in_text(cid):
    assert CID.from_bytes(cid.to_bytes()) == cid
    assert CID.parse(str(cid)) == cid


@given(digests)
def test_a_cid_is_the_same_in_every_base(digest):
    cid = CID(1, RAW, SHA2_256, digest)
    data = cid.to_bytes()
    texts = [multibase.base32(data), multibase.base32(data).upper(), multibase.base36(data),
             "z" + multibase.base58(data), "f" + data.hex(), "F" + data.hex().upper()]  # fmt: skip
    assert [CID.parse(text) for text in texts] == [cid] * len(texts)


@given(st.binary(max_size=60))
def test_bases_give_back_every_byte(data):
    assert multibase.decode(multibase.base32(data)) == data
    assert multibase.decode(multibase.base36(data)) == data
    assert multibase.from_base58(multibase.base58(data)) == data


def test_known_names():
    assert str(CID(1, RAW, SHA2_256, hashlib.sha256(b"hello world\n").digest())) == HELLO
    empty = CID.parse(EMPTY_V0)
    assert (empty.version, empty.codec) == (0, DAG_PB)
    assert str(empty) == EMPTY_V0
    assert CID.parse("bafkqaaa") == CID(1, RAW, IDENTITY, b"")
    assert CID.parse("uAXASIOOwxEKY_BwUmvv0yJlvuSQnrkHkZJuTTKSVmRt4UrhV").digest == (
        hashlib.sha256(b"").digest()
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "''"),
        ("hello", "'hello': not a CID: not in a base that IPFS uses (b, k, z, f or u)"),
        (HELLO[:-1], "not base32"),
        (HELLO[:-2], "is cut off"),
        (HELLO + "aaaaaaaa", "the wrong length"),
        (HELLO[:20] + HELLO[20:].upper(), "mixes upper and lower case"),
        (HELLO[:-1] + "5", "not base32"),
        ("b" + "a" * 600, "too long for IPFS"),
        ("k" + "0" * 600, "too long for IPFS"),
        (EMPTY_V0[:-1] + "0", "'0' is not of base58"),
        ("z" + EMPTY_V0, "the wrong length"),
        ("f0155122", "not base16"),
        ("f01551203aaaaaa", "a SHA-256 of 3 bytes instead of 32"),
        ("f0155140100", "by the hash function 0x14; only SHA-256 is known"),
        ("f0255122000", "a CID of version 2"),
        ("f01550081" + "01" + "00" * 129, "a CID that holds 129 bytes itself; at most 128"),
        ("f01d5001220", "not in its shortest form"),
        ("u!!", "not base64url"),
    ],
)  # fmt: skip
def test_what_is_no_cid_is_refused(text, message):
    with pytest.raises(DataError) as found:
        CID.parse(text)
    assert message in str(found.value)
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 300


@given(st.binary(max_size=80))
def test_bytes_of_strangers_are_a_cid_or_an_error(data):
    try:
        cid = CID.from_bytes(data)
    except DataError:
        return
    assert cid.to_bytes() == data


@given(st.text(max_size=80))
def test_texts_of_strangers_are_a_cid_or_an_error(text):
    with contextlib.suppress(DataError):
        CID.parse(text)


def test_a_block_is_checked():
    CID.parse(HELLO).check(b"hello world\n")
    CID.parse("bafkqaaa").check(b"")
    message = f"{HELLO}: 12 bytes came that are not this block"
    with pytest.raises(IntegrityError, match=message):
        CID.parse(HELLO).check(b"hello World\n")
    with pytest.raises(IntegrityError):
        CID.parse("bafkqaaa").check(b"x")


@given(st.integers(0, (1 << 63) - 1), st.binary(max_size=5))
def test_varints(number, after):
    data = varint.encode(number)
    assert varint.decode(b"." + data + after, 1) == (number, 1 + len(data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut off"),
        (b"\x80", "cut off"),
        (b"\x80\x00", "not in its shortest form"),
        (b"\xff" * 9, "longer than nine bytes"),
        (b"\xff" * 20, "longer than nine bytes"),
    ],
)
def test_broken_varints(data, message):
    with pytest.raises(DataError, match=message):
        varint.decode(data)


@pytest.mark.parametrize("number", [-1, 1 << 63])
def test_numbers_that_are_no_varint(number):
    with pytest.raises(ValueError, match="does not fit"):
        varint.encode(number)
