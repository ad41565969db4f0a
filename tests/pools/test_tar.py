"""Tars: ours are read by others, others' are read by us, and hostile ones are refused."""

import io
import tarfile

import pytest
from datacomp.errors import DataError, TruncatedError, UnsafeInputError
from datacomp.pools import tar, tar_headers
from hypothesis import given
from hypothesis import strategies as st

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT}

names = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="/\\."),
    min_size=1,
    max_size=20,
)
files = st.dictionaries(names, st.binary(max_size=1500), max_size=8)


@pytest.fixture
def save(tmp_path):
    def save(data, name="t.tar"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return save


def python_tar(entries, style=tarfile.PAX_FORMAT, **attributes):
    """Return a tar written by Python's tarfile; an entry is (name, data) or a TarInfo."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=style) as file:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                file.addfile(entry)
                continue
            info = tarfile.TarInfo(entry[0])
            info.size = len(entry[1])
            for name, value in attributes.items():
                setattr(info, name, value)
            file.addfile(info, io.BytesIO(entry[1]))
    return buffer.getvalue()


def raw_header(name=b"a.txt", size=b"%011o\0" % 3, kind=b"0", **fields):
    """Return one header with any field as given and the right checksum."""
    block = bytearray(tar.ustar_header("a.txt", 3))
    block[0:100] = name.ljust(100, b"\0")
    block[124:136] = size
    block[156:157] = kind
    for offset, value in fields.items():
        at = int(offset[1:])
        block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def block_of(data):
    return data.ljust(tar.padded(len(data)), b"\0")


def refusal(data):
    """Return why a tar is refused, or None; anything but a DataError is not caught."""
    try:
        list(tar._scan(lambda at, size: data[at : at + size], len(data), "t"))
    except DataError as error:
        return str(error)
    return None


def contents(path):
    with path.open("rb") as file:
        return [(m.name, tar.read_member(file, m)) for m in tar.scan(path)]


# -- with others -----------------------------------------------------------------------------


@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize(
    "name",
    ["a.jpg", "folder/a.jpg", "n" * 99 + "/" + "m" * 95 + ".jpg", "d/" * 60 + "a.jpg", "ä/ö.jpg"],
)
def test_reads_what_python_writes(save, style, name):
    data = python_tar([(name, b"image"), ("b.txt", b"")], FORMATS[style])
    assert contents(save(data)) == [(name, b"image"), ("b.txt", b"")]


@pytest.mark.parametrize("style", ["pax", "gnu"])
def test_reads_names_that_need_an_extended_header(save, style):
    name = "x" * 300 + ".jpg"
    members = list(tar.scan(save(python_tar([("a.txt", b"1"), (name, b"22")], FORMATS[style]))))
    assert [m.name for m in members] == ["a.txt", name]
    assert members[1].start == members[0].end  # the sample begins with its extended header
    assert members[1].data > members[1].start + tar.BLOCK


def test_reads_float_times_as_webdataset_writes_them(save):
    data = python_tar([("a.jpg", b"i"), ("a.txt", b"t")], mtime=1700000000.25)
    (sample,) = tar.samples(save(data))
    assert (sample.key, list(sample.members)) == ("a", ["jpg", "txt"])
    assert sample.start == 0
    assert sample.end == sample.members["txt"].end


def test_reads_a_size_from_a_pax_header(save):
    record = b"12 size=700\n"
    data = (
        raw_header(b"pax", b"%011o\0" % len(record), b"x") + block_of(record)
        + raw_header(b"big.bin", b"00000000000\0") + block_of(b"z" * 700) + tar.END
    )  # fmt: skip
    assert contents(save(data)) == [("big.bin", b"z" * 700)]


def test_reads_base_256_sizes(save):
    data = raw_header(size=b"\x80" + b"\0" * 10 + b"\x03") + block_of(b"abc") + tar.END
    assert contents(save(data)) == [("a.txt", b"abc")]


def test_python_reads_what_we_write(save):
    entries = [("a/b.jpg", b"x" * 513), ("empty.txt", b""), ("p/" * 60 + "long.json", b"{}")]
    path = save(tar.tar_bytes(entries))
    with tarfile.open(path) as file:
        assert [(m.name, file.extractfile(m).read()) for m in file] == entries
        assert {(m.mode, m.mtime, m.uname, m.type) for m in file} == {(0o444, 0, "bigdata", b"0")}
    assert contents(path) == entries


def test_webdataset_reads_what_we_write(save):
    pytest.importorskip("webdataset")
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    entries = [("s1.jpg", b"i1"), ("s1.json", b"{}"), ("d/s2.JPG", b"i2"), ("d/s2.seg.png", b"m")]
    path = save(tar.tar_bytes(entries))
    with path.open("rb") as file:
        stream = [{**item, "__url__": ""} for item in tar_file_iterator(file)]
    theirs = [
        {k: v for k, v in sample.items() if k != "__url__"} for sample in group_by_keys(stream)
    ]
    with path.open("rb") as file:
        ours = [
            {"__key__": s.key, **{e: tar.read_member(file, m) for e, m in s.members.items()}}
            for s in tar.samples(path)
        ]
    assert ours == theirs
    assert [sample["__key__"] for sample in ours] == ["s1", "d/s2"]


@given(files)
def test_round_trip(entries):
    data = tar.tar_bytes(list(entries.items()))
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        assert {m.name: file.extractfile(m).read() for m in file} == entries
    window = io.BytesIO(data)
    members = list(tar._scan(lambda at, size: window.getbuffer()[at : at + size].tobytes(),
                             len(data), "t"))  # fmt: skip
    assert {m.name: data[m.data : m.data + m.size] for m in members} == entries


@given(files, st.sampled_from(sorted(FORMATS)))
def test_python_tars_of_every_format_are_read_alike(entries, style):
    data = python_tar(list(entries.items()), FORMATS[style])
    members = tar._scan(lambda at, size: data[at : at + size], len(data), "t")
    assert {m.name: data[m.data : m.data + m.size] for m in members} == entries


@given(st.binary(max_size=3000))
def test_noise_is_refused_in_one_line(noise):
    with pytest.raises(DataError) as caught:
        list(tar._scan(lambda at, size: noise[at : at + size], len(noise), "t"))
    assert "\n" not in str(caught.value)


@given(st.data())
def test_a_damaged_tar_never_raises_anything_else(data):
    good = tar.tar_bytes([("a.jpg", b"x" * 600), ("a.txt", b"caption")])
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([data.draw(st.integers(0, 255))]) + good[at + 1 :]
    message = refusal(bad)
    assert message is None or message.startswith("t: ")


# -- samples ---------------------------------------------------------------------------------


def test_a_sample_is_one_range_that_stands_alone(save):
    data = python_tar([("a.jpg", b"1" * 600), ("a.txt", b"x"), ("b.jpg", b"2")], mtime=0.5)
    path = save(data)
    for sample in tar.samples(path):
        alone = data[sample.start : sample.end]
        with tarfile.open(fileobj=io.BytesIO(alone + tar.END)) as file:
            assert [m.name for m in file] == [f"{sample.key}.{e}" for e in sample.members]
        again = tar.parse_sample(alone, "range")
        assert again.key == sample.key
        assert again.members["jpg"].data == sample.members["jpg"].data - sample.start


def test_parse_sample_wants_exactly_one():
    data = tar.tar_bytes([("a.jpg", b""), ("b.jpg", b"")])
    with pytest.raises(DataError) as caught:
        tar.parse_sample(data, "r")
    assert str(caught.value) == "r: 2 samples in a range that should hold one"


def test_samples_in_reads_data_through_the_same_window(save):
    path = save(tar.tar_bytes([("a.jpg", b"image"), ("a.json", b"{}"), ("b.jpg", b"second")]))
    with path.open("rb") as file:
        window = tar.Window(file.fileno())
        found = [
            (s.key, window(s.members["jpg"].data, s.members["jpg"].size))
            for s in tar.samples_in(window, "t")
        ]
    assert found == [("a", b"image"), ("b", b"second")]


@pytest.mark.parametrize(
    ("name", "key", "extension"),
    [
        ("a.jpg", "a", "jpg"),
        ("d.1/a.JPG", "d.1/a", "jpg"),
        ("a.seg.png", "a", "seg.png"),
        ("README", "README", ""),
        (".DS_Store", ".DS_Store", ""),
        ("d/._a.jpg", "d/._a.jpg", ""),
    ],
)
def test_split_key(name, key, extension):
    assert tar.split_key(name) == (key, extension)


def test_files_without_extension_and_hidden_files_belong_to_no_sample(save):
    path = save(tar.tar_bytes([("README", b"hi"), ("a.jpg", b"1"), ("._a.jpg", b"mac")]))
    assert [(s.key, list(s.members)) for s in tar.samples(path)] == [("a", ["jpg"])]


def test_interleaved_samples_are_refused(save):
    path = save(tar.tar_bytes([("a.jpg", b""), ("b.jpg", b""), ("a.txt", b"")]))
    with pytest.raises(DataError) as caught:
        list(tar.samples(path))
    assert str(caught.value) == (
        f"{path}: members of 'a' are interleaved with other samples; "
        "repack the tar so that they are neighbours"
    )


def test_a_member_that_stands_there_twice_is_refused(save):
    path = save(tar.tar_bytes([("a.jpg", b"1"), ("a.JPG", b"2")]))
    with pytest.raises(DataError, match=r"member 'a.JPG' stands there twice$"):
        list(tar.samples(path))


# -- hostile ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["../a.jpg", "/etc/passwd", "a/../../b.jpg", "a\\b.jpg", ".//etc/passwd", "..", "./../x"],
)
@pytest.mark.parametrize("style", FORMATS)
def test_names_that_leave_the_root_are_refused(save, name, style):
    path = save(python_tar([("ok.jpg", b"1"), (name, b"2")], FORMATS[style]))
    with pytest.raises(UnsafeInputError, match="would leave its folder; the tar is refused"):
        list(tar.scan(path))


def test_a_folder_outside_the_root_is_refused(save):
    info = tarfile.TarInfo("../evil")
    info.type = tarfile.DIRTYPE
    with pytest.raises(UnsafeInputError, match="would leave its folder"):
        list(tar.scan(save(python_tar([info]))))


def test_a_long_name_hidden_in_an_extended_header_is_checked(save):
    for style in ("pax", "gnu"):
        path = save(python_tar([("../" * 40 + "x" * 100, b"")], FORMATS[style]))
        with pytest.raises(UnsafeInputError, match="would leave its folder"):
            list(tar.scan(path))


def test_a_nul_in_a_pax_path_is_refused(save):
    record = b"18 path=ok.jpg\0../\n"
    record = b"%d" % len(record) + record[2:]
    data = raw_header(b"pax", b"%011o\0" % len(record), b"x") + block_of(record)
    path = save(data + raw_header() + block_of(b"abc") + tar.END)
    with pytest.raises(UnsafeInputError, match="would leave its folder"):
        list(tar.scan(path))


def test_a_member_without_a_name_is_refused(save):
    path = save(raw_header(b"") + block_of(b"abc") + tar.END)
    with pytest.raises(UnsafeInputError, match="a member without a name"):
        list(tar.scan(path))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(save, kind):
    info = tarfile.TarInfo("a.jpg")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(UnsafeInputError, match=r"'a.jpg' is a link or device; the tar is refused"):
        list(tar.scan(save(python_tar([info]))))


def test_sparse_members_are_refused(save):
    path = save(raw_header(kind=b"S") + block_of(b"abc") + tar.END)
    with pytest.raises(UnsafeInputError, match="is a link or device"):
        list(tar.scan(path))
    record = b"22 GNU.sparse.major=1\n"
    data = raw_header(b"pax", b"%011o\0" % len(record), b"x") + block_of(record)
    path = save(data + raw_header() + block_of(b"abc") + tar.END)
    with pytest.raises(UnsafeInputError, match="sparse member at byte 0 is refused"):
        list(tar.scan(path))


def test_a_huge_extended_header_is_refused_without_reading_it(save):
    path = save(raw_header(size=b"77777777777\0", kind=b"x"))
    with pytest.raises(UnsafeInputError, match=r"extended header of 8,589,934,591 bytes at 0$"):
        list(tar.scan(path))


def test_a_huge_member_is_refused(save, monkeypatch):
    monkeypatch.setattr(tar, "MAX_MEMBER_BYTES", 100)
    with pytest.raises(UnsafeInputError, match=r"member 'a.bin' has 101 bytes$"):
        list(tar.scan(save(tar.tar_bytes([("a.bin", b"x" * 101)]))))


def test_a_global_header_that_renames_is_refused(save):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", pax_headers={"path": "x"}) as file:
        file.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(UnsafeInputError, match="global header at byte 0 renames or resizes"):
        list(tar.scan(save(buffer.getvalue())))


def test_a_harmless_global_header_is_read_over(save):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", pax_headers={"comment": "git"}) as file:
        file.addfile(tarfile.TarInfo("a.jpg"))
    assert contents(save(buffer.getvalue())) == [("a.jpg", b"")]


@pytest.mark.parametrize("size", [b"\xff" * 12, b"-0000000001\0", b"0000000009\0\0"])
def test_negative_and_odd_sizes_are_refused(save, size):
    path = save(raw_header(size=size) + block_of(b"abc") + tar.END)
    with pytest.raises(DataError) as caught:
        list(tar.scan(path))
    assert str(caught.value) == f"{path}: not a tar header at byte 0; the file is damaged"


@pytest.mark.parametrize("value", ["-1", "1e3", "²", "9" * 5000, ""])
def test_odd_pax_sizes_are_refused(save, value):
    body = b" size=" + value.encode() + b"\n"
    length = next(n for n in range(len(body), len(body) + 9) if n == len(body) + len(str(n)))
    record = str(length).encode() + body
    data = raw_header(b"pax", b"%011o\0" % len(record), b"x") + block_of(record)
    with pytest.raises(DataError, match=r"bad PAX size at byte 0$"):
        list(tar.scan(save(data + raw_header() + block_of(b"abc") + tar.END)))


@pytest.mark.parametrize(
    "record", [b"99 path=a\n", b"x path=a\n", b"0 path=a\n", b"9 path=a", b"10 path=aa", b"nothing"]
)
def test_broken_pax_records_are_refused(save, record):
    data = raw_header(b"pax", b"%011o\0" % len(record), b"x") + block_of(record)
    with pytest.raises(DataError, match=r"broken PAX header at byte 0$"):
        list(tar.scan(save(data + raw_header() + block_of(b"abc") + tar.END)))


def test_a_folder_that_carries_data_is_refused(save):
    path = save(raw_header(b"d/", kind=b"5") + block_of(b"abc") + tar.END)
    with pytest.raises(UnsafeInputError, match="folder 'd/' with data is refused"):
        list(tar.scan(path))


def test_old_style_folders_are_folders(save):
    data = raw_header(b"d/", b"00000000000\0", b"\0") + raw_header() + block_of(b"abc")
    path = save(data + tar.END)
    assert contents(path) == [("a.txt", b"abc")]


# -- broken ----------------------------------------------------------------------------------


def test_truncation_is_found_wherever_it_strikes(save):
    data = python_tar([("a.jpg", b"x" * 700), ("b" * 150 + ".txt", b"y" * 10)], mtime=0.5)
    members = list(tar.scan(save(data)))
    for cut in range(0, members[1].end + 1, 64):
        path = save(data[:cut])
        with pytest.raises(TruncatedError, match=f"truncated at byte {cut}"):
            list(tar.scan(path))
    assert len(list(tar.scan(save(data[: members[1].end + tar.BLOCK])))) == 2  # one block will do


def test_a_tar_cut_between_two_members_is_truncated(save):
    data = python_tar([("a.jpg", b"x"), ("b.jpg", b"y"), ("b.txt", b"z")])
    members = list(tar.scan(save(data)))
    path = save(data[: members[1].end])
    found = []
    with pytest.raises(TruncatedError) as caught:
        found += tar.samples(path)
    assert str(caught.value) == (
        f"{path}: truncated at byte {members[1].end}, where a tar does not end; "
        "fetch or build it again"
    )
    found = tar.samples(path)
    assert next(found).key == "a"  # the last one begun may have had more members
    with pytest.raises(TruncatedError):
        next(found)


def test_keys_whose_members_are_apart_are_named(save):
    names = ["a.jpg", "b.jpg", "a.txt", "c.jpg", "a.json", "b.txt", "d.jpg"]
    data = python_tar([(name, b"x") for name in names])
    with pytest.raises(DataError, match="members of 'a' are interleaved with other samples"):
        list(tar.samples(save(data)))
    torn = set()
    window = tar.Window(lambda at, size: data[at : at + size], total=len(data))
    found = [sample.key for sample in tar.samples_in(window, "t", torn=torn)]
    assert (found, torn) == (["a", "b", "c", "d"], {"a", "b"})


def test_the_member_of_an_extended_header_may_not_be_missing(save):
    data = python_tar([("a.jpg", b"x"), ("b" * 150 + ".txt", b"y")], tarfile.GNU_FORMAT)
    first, second = tar.scan(save(data))
    header_only = data[: second.data - tar.BLOCK]
    assert first.end < len(header_only)
    with pytest.raises(DataError, match="truncated at byte"):
        list(tar.scan(save(header_only)))
    with pytest.raises(DataError, match="an extended header at byte 1024 has no member"):
        list(tar.scan(save(header_only + tar.END)))


def test_an_empty_file_is_truncated(save):
    path = save(b"")
    with pytest.raises(DataError) as caught:
        list(tar.scan(path))
    assert str(caught.value) == f"{path}: truncated at byte 0; fetch or build it again"


def test_a_flipped_bit_in_a_header_is_found(save):
    data = bytearray(tar.tar_bytes([("a.jpg", b"x")]))
    data[3] ^= 1
    with pytest.raises(DataError, match="not a tar header at byte 0; the file is damaged"):
        list(tar.scan(save(bytes(data))))


def test_a_name_that_is_not_utf8_is_refused(save):
    path = save(raw_header(b"\xff.jpg") + block_of(b"abc") + tar.END)
    with pytest.raises(DataError, match=r"a name at byte 0 is not UTF-8$"):
        list(tar.scan(path))


# -- the writer ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../a", "/a", "a\0b", "", "x" * 101, "x" * 160 + "/a"])
def test_the_writer_refuses_names_it_could_not_read_back(name):
    with pytest.raises(DataError):
        tar.tar_bytes([(name, b"")])


def test_the_writer_says_where_data_starts():
    buffer = io.BytesIO()
    writer = tar.TarWriter(buffer)
    starts = [writer.add("a.jpg", b"x" * 600), writer.add("b.jpg", memoryview(b"yy"))]
    writer.close()
    data = buffer.getvalue()
    assert [data[at : at + 2] for at in starts] == [b"xx", b"yy"]
    assert writer.offset == len(data) == 512 + 1024 + 512 + 512 + 1024


def test_the_adler_sum_is_the_sum():
    for block in (b"\xff" * 512, b"\0" * 512, bytes(range(256)) * 2):
        assert tar_headers.byte_sum(block) == sum(block)


# -- the fast way through an ordinary sample -------------------------------------------------


def slowly(data):
    found = list(tar._group(tar._scan(lambda at, size: data[at : at + size], len(data), "t"), "t"))
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("key", ["a", "k" * 90, "k" * 120, "dir/a", "\u00fc", "./a"])
def test_a_sample_is_parsed_alike_fast_and_slowly(kind, key):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as file:
        for extension, data in (("JPG", b"x" * 1000), ("json", b"{}"), ("seg.png", b"")):
            info = tarfile.TarInfo(f"{key}.{extension}")
            info.size, info.mtime = len(data), 1.5 if kind == tarfile.PAX_FORMAT else 1
            try:
                file.addfile(info, io.BytesIO(data))
            except ValueError:  # a name that this format cannot hold
                return
    whole = list(tar._group(tar._scan(window_on(buffer), len(buffer.getvalue()), "t"), "t"))
    data = buffer.getvalue()[whole[0].start : whole[0].end]
    assert tar.parse_sample(data, "t") == slowly(data)
    fast = tar.plain_sample(memoryview(data))
    assert fast in (None, slowly(data))
    assert (fast is not None) == (key in ("a", "k" * 90))


def window_on(buffer):
    return lambda at, size: buffer.getvalue()[at : at + size]


@given(st.integers(0, 2047), st.integers(0, 255))
def test_a_damaged_sample_is_never_parsed_otherwise_than_slowly(place, value):
    data = bytearray(tar.tar_bytes([("a.jpg", b"x" * 600), ("a.txt", b"y")])[:-1024])
    data[place % len(data)] = value
    fast = tar.plain_sample(memoryview(bytes(data)))
    if fast is not None:
        assert fast == slowly(bytes(data))


def test_headers_known_already_are_read_as_carefully(monkeypatch):
    """Damage anywhere is told in the same words, and found by the same members before it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as writer:
        for number in range(3):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size, info.mtime = 5, 1_700_000_000.25
            writer.addfile(info, io.BytesIO(b"image"))
    whole = file.getvalue()[: 3 * 4 * tar.BLOCK + 2 * tar.BLOCK]
    found = list(tar._scan(window_on(io.BytesIO(whole)), len(whole), "t"))
    assert [member.start // tar.BLOCK for member in found] == [0, 4, 8]

    def outcome(data, known):
        monkeypatch.setattr(tar, "MAX_KNOWN", known)
        found = []
        try:
            found += tar._scan(window_on(io.BytesIO(data)), len(data), "t")
        except DataError as error:
            found.append((type(error), str(error)))
        return found

    second = 4 * tar.BLOCK
    for at in [
        *range(second, second + tar.BLOCK, 7),
        *range(second + tar.BLOCK, second + 3 * tar.BLOCK),
    ]:
        data = bytearray(whole)
        data[at] ^= 0x11
        assert outcome(bytes(data), 64) == outcome(bytes(data), 0)
    for end in range(0, len(whole), 256):
        assert outcome(whole[:end], 64) == outcome(whole[:end], 0)
