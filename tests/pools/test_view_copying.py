"""Samples copied hundreds at a time are, byte for byte, those copied one by one."""

import io
import itertools
import json
import struct
import tarfile

import numpy as np
import pytest
from datacomp.errors import DatacompError, DataError, IntegrityError
from datacomp.pools import tar, view_copying
from datacomp.pools.ranges import LocalRanges, Stamp
from datacomp.pools.tar_matrix import ustar_headers
from datacomp.pools.view_copying import Rows, copies
from datacomp.pools.views import RECORD, read_samples, write_sample
from hypothesis import example, given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("copying")


def packed(files, kind=tarfile.PAX_FORMAT, times=(1.5,)):
    """Return members as Python's tarfile writes them, with nothing at their end."""
    out, time = io.BytesIO(), itertools.cycle(times)
    writer = tarfile.open(fileobj=out, mode="w", format=kind)  # noqa: SIM115
    for name, data in files:
        info = tarfile.TarInfo(name)
        info.size, info.mtime = len(data), next(time)
        writer.addfile(info, io.BytesIO(data))
    return out.getvalue()


def uid_of(number):
    return f"{number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128):032x}"


def sample(number, order=("jpg", "json", "txt"), key=None, size=700, values=None, **how):
    """Return the bytes of a sample with its uid in its json."""
    values = {"uid": uid_of(number), "caption": "c"} if values is None else values
    files = {"json": json.dumps(values).encode(), "txt": b"c"}
    key = f"{number:05d}" if key is None else key
    named = [(f"{key}.{ext}", files.get(ext.lower(), b"\xff" * size)) for ext in order]
    return packed(named, **how)


def view_of(path, ranges):
    """Write ranges, as (number, bytes, copy), into a file; return it and the records of a view."""
    raw, at = b"", 0
    for number, data, copy in ranges:
        uid = bytes.fromhex(uid_of(number))
        high, low = struct.unpack(">QQ", uid)
        raw += RECORD.pack(high, low, 0, at // 512, len(data) // 512, copy)
        at += len(data)
    path.write_bytes(b"".join(data for _, data, _ in ranges))
    file = LocalRanges(str(path))
    file.close()
    return [Stamp(file.place, file.size, file.version)], raw


def slowly(files, raw):
    """Return what samples taken one by one make, or the error."""
    out = io.BytesIO()
    try:
        for found in read_samples(files, raw):
            write_sample(tar.TarWriter(out), found)
    except DatacompError as error:
        return type(error), str(error)
    return out.getvalue()


def fast(files, raw):
    """Return the same of samples taken together, and how many came so."""
    out, together = io.BytesIO(), 0
    try:
        for found in copies(files, raw):
            if isinstance(found, Rows):
                out.write(found.blocks[found.order].tobytes())
                together += found.samples
            else:
                write_sample(tar.TarWriter(out), found)
    except DatacompError as error:
        return (type(error), str(error)), together
    return out.getvalue(), together


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"order": ("json", "txt", "jpg")},
        {"order": ("JPG", "json", "Seg.PNG", "txt")},
        {"order": ("json",)},
        {"kind": tarfile.USTAR_FORMAT, "times": (1,)},
        {"kind": tarfile.GNU_FORMAT, "times": (1,)},
        {"times": (1.5, 1, 1_700_000_000.123456)},
        {"size": 0},
        {"size": 512},
        {"size": 5000},
    ],
)
def test_ordinary_samples_are_copied_together(home, how):
    files, raw = view_of(home / "x", [(n, sample(n, **how), n % 3 * 7) for n in range(40)])
    assert fast(files, raw) == (slowly(files, raw), 40)


def test_a_view_of_tars_of_several_kinds(home):
    kinds = [
        {}, {"order": ("png", "json", "txt")}, {"times": (1,)}, {"order": ("txt", "json", "jpg")},
    ]  # fmt: skip
    ranges = [(n, sample(n, size=97 * n, **kinds[n * n % 7 % 4]), 0) for n in range(60)]
    files, raw = view_of(home / "x", ranges)
    assert fast(files, raw) == (slowly(files, raw), 60)


def test_more_kinds_than_are_known_at_a_time(home):
    orders = list(itertools.permutations(("jpg", "json", "txt", "cls")))
    ranges = [(n, sample(n, order=orders[n % len(orders)]), 0) for n in range(48)]
    files, raw = view_of(home / "x", ranges)
    assert fast(files, raw) == (slowly(files, raw), 2 * view_copying.SHAPES)


@pytest.mark.parametrize("room", [1536, 4096, 20_480, 1 << 20])
def test_batches_of_any_size_and_samples_larger_than_one(home, monkeypatch, room):
    monkeypatch.setattr(view_copying, "ROOM", room)
    sizes = [100, 5000, 20_000, 3, 40_000, 512, 0]
    ranges = [(n, sample(n, size=sizes[n % 7]), n) for n in range(30)]
    files, raw = view_of(home / "x", ranges)
    records = list(RECORD.iter_unpack(raw))
    again = b"".join(RECORD.pack(*one) for one in [*records[::-2], *records[3:9], *records[3:9]])
    for some in (raw, again):
        assert fast(files, some) == (slowly(files, some), len(some) // RECORD.size)


@pytest.mark.parametrize(
    ("odd", "error"),
    [
        (sample(3, values={"uid": uid_of(4)}), IntegrityError),
        (sample(3, values={}), IntegrityError),
        (sample(3, order=("jpg", "txt")), IntegrityError),
        (sample(3)[:-512], DataError),
        (sample(3) + sample(4), DataError),
        (sample(3, key="../x"), DataError),
        (b"", DataError),
        (bytes(512), DataError),
        (packed([("a.jpg", b"1"), ("b.json", uid_of(3).encode())]), DataError),
        (sample(3, key="k" * 120), None),
        (sample(3, key="\u00fc"), None),
        (sample(3, key="./3"), None),
        (sample(3, key="dir/3"), None),
        (sample(3, order=("jpg", "json", "e" * 60)), None),
        (sample(3, key=".3"), DataError),
    ],
)
@pytest.mark.parametrize("place", [0, 3])
def test_what_is_different_is_told_or_copied_as_before(home, odd, error, place):
    ranges = [(n, sample(n), 0) for n in range(10, 16)]
    ranges.insert(place, (3, odd, 1))
    files, raw = view_of(home / "x", ranges)
    found, together = fast(files, raw)
    assert found == slowly(files, raw)
    if error is None:
        assert isinstance(found, bytes)
        assert together == 6
    else:
        assert issubclass(found[0], error)
        assert together == place


SAMPLES = st.fixed_dictionaries(
    {},
    optional={
        "order": st.permutations(["jpg", "json", "txt"]) | st.sampled_from(
            [("JPG", "json"), ("jpg", "txt"), ("json", "a.png", "A.png"), ("png", "json", "txt")]
        ),
        "key": st.sampled_from(["a", "a b", "k" * 90, "k" * 95, "k" * 120, "d/a", "\u00fc", "./a"]),
        "size": st.integers(0, 1600),
        "values": st.sampled_from([{}, {"uid": uid_of(1)}, {"caption": uid_of(2)}]),
        "kind": st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
        "times": st.sampled_from([(1,), (1.5,), (1.5, 1), (1_700_000_000.123456, 2.25)]),
    },
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1) | st.integers(0, (1 << 32) - 1),
                       st.just({}) | SAMPLES), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=2),
)  # fmt: skip
@example([(1, 0, {}), (2, 0, {})], [(1024 + 100, 1)])
@example([(1, 0, {}), (2, 0, {})], [(512 + 9, ord("x"))])
def test_whatever_the_samples_both_ways_agree(home, wanted, damages):
    ranges = [(number, sample(number, **how), copy) for number, copy, how in wanted]
    total = sum(len(data) for _, data, _ in ranges)
    whole = bytearray(b"".join(data for _, data, _ in ranges))
    for place, value in damages:
        whole[place % total] = value
    files, raw = view_of(home / "x", ranges)
    (home / "x").write_bytes(whole)
    status = (home / "x").stat()
    files = [Stamp(str(home / "x"), total, str(status.st_mtime_ns))]
    assert fast(files, raw)[0] == slowly(files, raw)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 255), st.integers(0, 511), st.sampled_from([0, 1, 2, 4, 5, 7]))
def test_no_byte_of_a_header_passes_that_did_not_before(home, value, column, block):
    data = bytearray(sample(2, size=10))
    data[512 * block + column] = value
    if block not in (1, 3, 5):  # its checksum is right nevertheless
        head = data[512 * block : 512 * block + 512]
        if not 148 <= column < 156:
            total = sum(head) - sum(head[148:156]) + 256
            data[512 * block + 148 : 512 * block + 156] = b"%06o\0 " % total
    files, raw = view_of(home / "x", [(1, sample(1), 0), (2, bytes(data), 0), (3, sample(3), 0)])
    assert fast(files, raw)[0] == slowly(files, raw)


def test_a_record_of_a_tar_that_is_not_there(home):
    files, raw = view_of(home / "x", [(1, sample(1), 0)])
    with pytest.raises(DataError, match="names a tar that it does not list"):
        list(copies([], raw))
    (home / "x").write_bytes(b"another")
    assert fast(files, raw)[0] == slowly(files, raw)


@given(st.lists(st.tuples(st.text("azA.-_0", min_size=1, max_size=100), st.integers(0, 8**11 - 1)),
                min_size=1, max_size=9))  # fmt: skip
def test_headers_made_together_are_those_made_one_by_one(files):
    files = [(name, size) for name, size in files if name not in ("..", "")] or [("a", 0)]
    names = np.array([name.encode() for name, _ in files], "S100").view(np.uint8)
    digits = np.array([b"%011o" % size for _, size in files], "S11").view(np.uint8)
    made = ustar_headers(names.reshape(-1, 100), digits.reshape(-1, 11))
    assert made.tobytes() == b"".join(tar.ustar_header(name, size) for name, size in files)
