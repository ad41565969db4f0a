"""Names that are keys, and records: believed only when signed, current and not contradicting."""

from datetime import UTC, datetime, timedelta

import pytest
from datacomp.distribution.ipfs import dagcbor, ipns, protobuf
from datacomp.distribution.release import SigningKey
from datacomp.errors import DataError, IntegrityError, UnsafeInputError
from hypothesis import given
from hypothesis import strategies as st

KEY = SigningKey.from_seed(bytes(range(32)))
OTHER = SigningKey.from_seed(bytes(32))
NAME = ipns.name_of(KEY.public)
NOW = datetime(2030, 5, 6, 7, 8, 9, tzinfo=UTC)
VALUE = "/ipfs/bafybeic4cv6hcwodx32abizz7x56fzoxn4n5pjl6nn4yx6tiwe2vzsj54e"
RECORD = ipns.create_record(KEY, VALUE, 7, NOW + timedelta(days=1, microseconds=5))


def signed(key=KEY, prefix=b"ipns-signature:", fields=b"", **changes):
    """Return a record whose signed part is changed; None takes a field out."""
    said = {"Value": VALUE.encode(), "Validity": b"2031-01-01T00:00:00Z", "ValidityType": 0,
            "Sequence": 7, "TTL": 10**9} | changes  # fmt: skip
    data = dagcbor.encode({name: value for name, value in said.items() if value is not None})
    return fields + protobuf.data(8, key.sign(prefix + data)) + protobuf.data(9, data)


def test_a_record_says_what_was_signed():
    record = ipns.read_record(RECORD, NAME, NOW)
    assert record == ipns.Record(
        VALUE, 7, NOW + timedelta(days=1, microseconds=5), timedelta(minutes=5)
    )
    assert ipns.read_record(RECORD, ipns.peer_id_of(KEY.public), NOW) == record
    assert len(RECORD) < 250


def test_a_record_is_the_same_each_time():
    again = ipns.create_record(KEY, VALUE, 7, NOW + timedelta(days=1, microseconds=5))
    assert again == RECORD


@given(st.integers(0, 1 << 62), st.datetimes(datetime(1980, 1, 1), datetime(9000, 1, 1)),
       st.integers(0, 10**9))  # fmt: skip
def test_numbers_and_times_come_back(sequence, expires, seconds):
    expires, ttl = expires.replace(tzinfo=UTC), timedelta(seconds=seconds)
    data = ipns.create_record(KEY, VALUE, sequence, expires, ttl)
    record = ipns.read_record(data, NAME, datetime(1970, 1, 1, tzinfo=UTC))
    assert record == ipns.Record(VALUE, sequence, expires, ttl)


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"", DataError, "not an IPNS record: it has no signature of version 2"),
        (RECORD[:-1], DataError, "not an IPNS record: protobuf field 9 says"),
        (RECORD + bytes(10 << 10), UnsafeInputError, "bytes; at most 10,240"),
        (signed(OTHER), IntegrityError, "the record is not signed by the key of this name"),
        (signed(prefix=b"other:"), IntegrityError, "not signed by the key of this name"),
        (RECORD.replace(b"bafybeic4", b"bafybeic5"), IntegrityError, "not signed by the key"),
        (signed(Value=None), DataError, "its signed part lacks a field"),
        (signed(Sequence=True), DataError, "its signed part lacks a field"),
        (signed(Sequence=-1), DataError, "its validity is of an unknown kind"),
        (signed(ValidityType=1), DataError, "its validity is of an unknown kind"),
        (signed(Validity=b"tomorrow"), DataError, "its path or its time cannot be read"),
        (signed(Validity=b"2031-13-01T00:00:00Z"), DataError, "its time cannot be read"),
        (signed(Value=b"\xff"), DataError, "its path or its time cannot be read"),
        (signed(Validity=b"2029-01-01T00:00:00.123456789Z"), IntegrityError,
         "the record expired 2029-01-01 00:00 UTC; ask for a newer one"),
        (signed(fields=protobuf.data(1, b"/ipfs/bafkqaaa")), IntegrityError,
         "says two different things (Value)"),
        (signed(fields=protobuf.data(1, VALUE.encode()) + protobuf.number(5, 8)), IntegrityError,
         "says two different things (Validity)"),
    ],
)  # fmt: skip
def test_records_that_are_not_believed(data, kind, message):
    with pytest.raises(kind) as found:
        ipns.read_record(data, NAME, NOW)
    assert str(found.value).startswith(f"/ipns/{NAME}: ")
    assert message in str(found.value)


def test_a_record_with_fields_of_version_1_that_agree():
    fields = (
        protobuf.data(1, VALUE.encode())
        + protobuf.data(2, bytes(64))
        + protobuf.data(4, b"2031-01-01T00:00:00Z")
        + protobuf.number(5, 7)
        + protobuf.number(6, 10**9)
    )
    assert ipns.read_record(signed(fields=fields), NAME, NOW).sequence == 7


@given(st.binary(max_size=300))
def test_bytes_of_strangers_are_no_record(data):
    with pytest.raises(DataError):
        ipns.read_record(data, NAME, NOW)


@given(st.integers(0, len(RECORD) - 1), st.integers(0, 7))
def test_no_bit_can_be_flipped(place, bit):
    flipped = bytearray(RECORD)
    flipped[place] ^= 1 << bit
    try:
        record = ipns.read_record(bytes(flipped), NAME, NOW)
    except DataError:
        return
    pytest.fail(f"{record} was believed")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "not a CID"),
        ("bafkqaaa", "a CID, but not the name of a key"),
        ("QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH", "holds only the hash of a key"),
        ("12D3KooW", "not a peer id"),
        ("12D30", "not a peer id: '0' is not of base58"),
        ("16Uiu2HAm4iNGN5Sue7wcmyfVh9PMWZRdbyM1zFiNJXZJV5ps7w7d", "not the name of an Ed25519 key"),
    ],
)  # fmt: skip
def test_what_is_no_name(name, message):
    with pytest.raises(DataError) as found:
        ipns.key_of(name)
    assert message in str(found.value)
    assert "\n" not in str(found.value)
