import tempfile

import libtorrent
import pytest
from datacomp.distribution import bencode
from datacomp.distribution.stretch import Joined, Spill, Stretch
from datacomp.errors import DataError, UnsafeInputError
from hypothesis import given
from hypothesis import strategies as st

values = st.recursive(
    st.integers(-(2**62), 2**62) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.binary(max_size=9), inner),
    max_leaves=20,
)


@given(values)
def test_what_is_encoded_is_decoded(value):
    assert bencode.decode(bencode.encode(value), 1 << 20) == value


@given(st.dictionaries(st.binary(max_size=9), values))
def test_libtorrent_encodes_the_same(value):
    assert bencode.encode(value) == libtorrent.bencode(value)


def scanned(data, limit=1 << 20):
    """Read bytes as a file, long strings and all."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        value, places = bencode.scan(file, limit, "a.torrent")
        return whole(value), {key: bytes(place) for key, place in places.items()}


def whole(value):
    """Take long strings out of the file."""
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return bytes(value) if isinstance(value, Stretch) else value


@given(values, st.integers(0, 3 * bencode.WINDOW))
def test_a_file_is_read_as_bytes_are(value, length):
    value = {b"long": bytes(length), b"other": value}
    found, places = scanned(bencode.encode(value))
    assert found == value
    assert places == {key: bencode.encode(item) for key, item in value.items()}
    located = bencode.locate(bencode.encode(value), 1 << 20)
    assert {key: bytes(place) for key, place in located.items()} == places


@given(st.binary(max_size=60))
def test_a_file_of_a_stranger_has_the_reading_of_its_bytes(data):
    def told(read):
        try:
            return read()
        except DataError as error:
            return str(error)

    expected = told(lambda: bencode.decode(data, 100, "a.torrent"))
    assert told(lambda: scanned(data)[0]) == expected
    located = told(lambda: bencode.locate(data, 100, "a.torrent"))
    assert located == expected if isinstance(expected, str) else isinstance(located, dict)


def test_strings_in_files_are_encoded_as_bytes(tmp_path):
    data = bytes(range(256)) * 3
    with Spill(tmp_path) as spill:
        kept = spill.put(data)
        value = {"a": kept, "b": [Joined([b"x", kept]), 1], "c": bencode.Encoded(b"i5e")}
        expected = bencode.encode({"a": data, "b": [b"x" + data, 1], "c": 5})
        assert bencode.encode(value) == expected
        lazy = bencode.lazily(value)
        assert (len(lazy), bytes(lazy)) == (len(expected), expected)
        assert bencode.encode([lazy]) == b"l" + expected + b"e"


@given(st.binary(max_size=60))
def test_bytes_of_strangers_have_one_reading_or_none(data):
    try:
        value = bencode.decode(data, 1 << 20)
    except DataError:
        return
    assert bencode.encode(value) == data


def test_text_is_utf8_and_keys_are_sorted():
    assert bencode.encode({"b": "é", "a": [1, True]}) == b"d1:ali1ei1ee1:b2:\xc3\xa9e"


def test_what_cannot_be_encoded():
    with pytest.raises(TypeError, match="float cannot be bencoded"):
        bencode.encode({"a": 1.5})


@pytest.mark.parametrize(
    ("data", "at"),
    [
        (b"", 0), (b"i01e", 1), (b"i-0e", 1), (b"i1", 1), (b"ie", 1), (b"5:abc", 0), (b"-1:a", 0),
        (b"l", 1), (b"d1:bi1e1:ai1ee", 7), (b"d1:ai1e1:ai1ee", 7), (b"di1ei1ee", 1),
        (b"i999999999999999999999e", 1), (b"01:a", 0), (b"x", 0),
    ],
)  # fmt: skip
def test_what_is_not_bencoded(data, at):
    with pytest.raises(DataError) as caught:
        bencode.decode(data, 100, "a.torrent")
    assert str(caught.value) == f"a.torrent: not bencoded at byte {at}"


def test_what_follows():
    with pytest.raises(DataError, match=r"^a: 2 bytes follow its end$"):
        bencode.decode(b"i1exx", 100, "a")


def test_bombs():
    with pytest.raises(UnsafeInputError, match=r"^a: nested deeper than 64; refused$"):
        bencode.decode(b"l" * 1000, 10_000, "a")
    with pytest.raises(UnsafeInputError, match=r"^a: larger than 10 bytes; refused$"):
        bencode.decode(b"20:" + bytes(20), 10, "a")
    with pytest.raises(UnsafeInputError, match=r"^a\.torrent: larger than 10 bytes; refused$"):
        scanned(b"20:" + bytes(20), 10)
