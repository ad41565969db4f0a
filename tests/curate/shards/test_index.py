"""The index: every sample once, unchanged tars unread, trouble counted or refused."""

import io
import json
import os
import random
import subprocess
import sys
import tarfile
import textwrap

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.curate.shards import columns, reading, storage
from datacomp.curate.shards.columns import uid_records
from datacomp.curate.shards.index import ensure_index, index_shards, load_index
from datacomp.curate.shards.selection import choose
from datacomp.curate.shards.wanted import Wanted
from datacomp.durable import sha256_file
from datacomp.errors import DataError, MissingError, UnsafeInputError
from datacomp.pools import ranges
from datacomp.pools.tar import END, tar_bytes
from datacomp.pools.uids import to_hex, uid_of_bytes


def rows(folder):
    return pq.read_table(folder / "index.parquet").to_pylist()


def touch_later(path):
    """Move a file's time on, as a rewrite would."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))


def test_every_sample_has_a_row_that_points_at_it(shards, make):
    report = index_shards(shards, 1)
    assert report.to_dict() == {
        "path": str(shards / "index.parquet"),
        "shards": 3,
        "samples": 21,
        "read": 3,
        "unchanged": 0,
        "bytes_read": report.bytes_read,
        "requests": report.requests,
        "duplicates": 0,
        "duplicate_uids": [],
        "set_aside": {},
        "examples": [],
    }
    found = rows(shards)
    assert sorted(row["uid"] for row in found) == sorted(make.uid_of(n) for n in range(21))
    places = [(row["shard"], row["offset"]) for row in found]
    assert places == sorted(places)
    for row in found:
        data = (shards / row["shard"]).read_bytes()[row["offset"] :][: row["length"]]
        with tarfile.open(fileobj=io.BytesIO(data + END)) as file:
            names = [info.name for info in file]
            assert names == [f"{row['key']}.{e}" for e in ("jpg", "json", "txt")]
            assert json.load(file.extractfile(names[1]))["uid"] == row["uid"]
            for member in row["members"]:
                there = file.extractfile(f"{row['key']}.{member['extension']}").read()
                start = member["offset"]
                assert data[start : start + member["size"]] == there


def test_the_columns_are_as_promised(shards):
    index_shards(shards, 1)
    schema = pq.read_schema(shards / "index.parquet")
    assert schema.names == ["uid", "shard", "offset", "length", "key", "members"]
    assert [str(kind) for kind in schema.types] == [
        "string", "string", "int64", "int64", "string",
        "list<element: struct<extension: string not null, offset: int64 not null, "
        "size: int64 not null> not null>",
    ]  # fmt: skip


def test_workers_change_nothing(shards):
    index_shards(shards, 1)
    one = (shards / "index.parquet").read_bytes(), (shards / "index.json").read_bytes()
    for name in ("index.parquet", "index.json"):
        (shards / name).unlink()
    index_shards(shards, 3)
    assert one == ((shards / "index.parquet").read_bytes(), (shards / "index.json").read_bytes())


def test_unchanged_tars_are_not_read_again(shards, make, monkeypatch):
    monkeypatch.setattr(storage, "ROW_GROUP", 5)  # so that rows of one tar stand in two groups
    index_shards(shards, 1)
    before = (shards / "index.parquet").read_bytes()
    report = index_shards(shards, 1)
    assert (report.read, report.unchanged, report.samples) == (0, 3, 21)
    assert (shards / "index.parquet").read_bytes() == before

    make.write_shard(shards, 1, make.members(100))
    make.write_shard(shards, 3, make.members(101))
    report = index_shards(shards, 1)
    assert (report.read, report.unchanged, report.samples) == (2, 2, 16)
    updated = (shards / "index.parquet").read_bytes()
    (shards / "index.json").unlink()
    assert index_shards(shards, 1).read == 4
    assert (shards / "index.parquet").read_bytes() == updated


@pytest.mark.parametrize("seed", range(8))
def test_an_index_brought_up_to_date_is_as_one_made_anew(tmp_path, make, monkeypatch, seed):
    monkeypatch.setattr(storage, "ROW_GROUP", 5)
    dice = random.Random(seed)
    folder = tmp_path / "shards"
    for number in range(1, 12, 2):
        numbers = range(10 * number, 10 * number + dice.randint(1, 4))
        make.write_shard(folder, number, [file for n in numbers for file in make.members(n)])
    index_shards(folder, 1, keep_going=True)
    for number in range(1, 12, 2):
        fate = dice.choice(["stays", "goes", "changes", "is followed"])
        if fate == "goes":
            (folder / f"{number:08d}.tar").unlink()
        elif fate != "stays":
            place = number + (fate == "is followed")
            make.write_shard(folder, place, make.members(200 + number))
    updated = index_shards(folder, 1, keep_going=True)
    first = (folder / "index.parquet").read_bytes()
    (folder / "index.json").unlink()
    fresh = index_shards(folder, 1, keep_going=True)
    assert (folder / "index.parquet").read_bytes() == first
    assert updated.samples == fresh.samples
    assert updated.read + updated.unchanged == fresh.read


def test_a_removed_tar_leaves_the_index(shards):
    index_shards(shards, 1)
    (shards / "00000002.tar").unlink()
    (shards / "00000002_stats.json").unlink()
    report = index_shards(shards, 1)
    assert (report.read, report.samples) == (0, 14)
    assert {row["shard"] for row in rows(shards)} == {"00000000.tar", "00000001.tar"}


def test_a_tar_with_another_time_is_read_again(shards):
    index_shards(shards, 1)
    touch_later(shards / "00000001.tar")
    assert load_index(shards) is None
    assert index_shards(shards, 1).read == 1


@pytest.mark.parametrize("name", ["index.json", "index.parquet"])
def test_a_damaged_index_is_made_anew(shards, name):
    index_shards(shards, 1)
    whole = (shards / name).read_bytes()
    (shards / name).write_bytes(whole[:-3] + b"xyz")
    assert load_index(shards) is None
    assert index_shards(shards, 1).read == 3
    assert (shards / name).read_bytes() == whole


def test_ensure_index_makes_one_and_then_takes_it(shards):
    first = ensure_index(shards, 1)
    stamp = (shards / "index.parquet").stat().st_mtime_ns
    assert first.samples == 21
    assert ensure_index(shards, 1) == first == load_index(shards)
    assert (shards / "index.parquet").stat().st_mtime_ns == stamp
    assert sum(first.scan(("uid",), len)) == 21


def test_a_sample_without_a_uid_gets_the_one_a_pool_would_give(tmp_path, make):
    without = json.dumps({"caption": "other"}).encode()
    bad = json.dumps({"uid": "NOT-A-UID"}).encode()
    make.write_shard(
        tmp_path, 0,
        make.members(1, json=None) + make.members(2, json=without, txt=None)
        + make.members(3, json=bad, txt=b"line\r\n"),
    )  # fmt: skip
    assert index_shards(tmp_path, 1).samples == 3
    assert [row["uid"] for row in rows(tmp_path)] == [
        uid_of_bytes(make.picture(1), b"caption 1"),
        uid_of_bytes(make.picture(2), b"other"),
        uid_of_bytes(make.picture(3), b"line"),
    ]


def test_a_pool_and_the_index_agree_on_uids(tmp_path, make):
    from datacomp.pools import Pool
    from datacomp.pools.sources import open_source

    folder = tmp_path / "s"
    make.write_shard(folder, 0, make.members(1, json=None) + make.members(2))
    index_shards(folder, 1)
    with Pool.create(tmp_path / "p.duckdb") as pool:
        pool.add(open_source("webdataset", folder))
        assert to_hex(pool.uids()) == sorted(row["uid"] for row in rows(folder))


def test_unusable_samples_are_set_aside_and_named(tmp_path, make, run):
    make.write_shard(
        tmp_path, 0,
        make.members(1) + make.members(2, jpg=None) + make.members(3, json=b"{")
        + make.members(4, json=None, txt=None) + make.members(5, json=None, txt=b"\xff"),
    )  # fmt: skip
    report = index_shards(tmp_path, 1)
    assert report.samples == 1
    assert report.set_aside == {
        "no_image": 1, "json_broken": 1, "no_caption": 1, "caption_not_utf8": 1,
    }  # fmt: skip
    assert report.examples[0] == "00000000.tar/000000002: no_image"
    assert index_shards(tmp_path, 1).set_aside == report.set_aside  # also when not read again
    code, out, err = run("shards", "index", tmp_path, "--workers", 1)
    assert (code, err) == (3, "")
    assert out.splitlines()[:2] == [
        f"{tmp_path / 'index.parquet'}: 1 sample in 1 shard (0 read, 1 unchanged)",
        "set aside: 1 caption_not_utf8",
    ]


def test_two_samples_with_one_uid_are_an_error(shards, make, run):
    make.write_shard(shards, 3, make.members(4, key="again") + make.members(50))
    with pytest.raises(DataError) as caught:
        index_shards(shards, 1)
    assert str(caught.value) == (
        f"{shards}: 1 sample has a uid that another one has already "
        f"({make.uid_of(4)} again in 00000003.tar/again); --keep-going keeps the first of each"
    )
    assert not (shards / "index.parquet").exists()
    code, out, err = run("shards", "index", shards, "--workers", 1)
    assert (code, out, err) == (1, "", f"error: {caught.value}\n")


def test_keep_going_keeps_the_first_of_two(shards, make, run):
    make.write_shard(shards, 3, make.members(4, key="again") + make.members(50))
    report = index_shards(shards, 1, keep_going=True)
    assert (report.samples, report.duplicates) == (22, 1)
    assert report.duplicate_uids == [make.uid_of(4)]
    assert "again" not in {row["key"] for row in rows(shards)}
    code, out, _ = run("shards", "index", shards, "--keep-going", "--json", "--workers", 1)
    assert code == 3
    assert json.loads(out)["duplicates"] == 1


def test_the_second_of_two_returns_when_the_first_goes(shards, make):
    make.write_shard(shards, 3, make.members(4, key="again") + make.members(50))
    index_shards(shards, 1, keep_going=True)
    (shards / "00000000.tar").unlink()
    (shards / "00000000_stats.json").unlink()
    report = index_shards(shards, 1, keep_going=True)
    assert (report.read, report.duplicates, report.samples) == (1, 0, 16)
    assert report.set_aside == {"shard_missing": 1}
    assert "again" in {row["key"] for row in rows(shards)}


def test_a_truncated_tar_is_an_error(shards):
    path = shards / "00000001.tar"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=f"^{path}: truncated at byte 5000"):
        index_shards(shards, 1)
    assert not (shards / "index.parquet").exists()


def test_keep_going_keeps_the_whole_samples_of_a_truncated_tar(shards):
    path = shards / "00000001.tar"
    path.write_bytes(path.read_bytes()[:-1500])
    for read in (3, 1):  # a broken tar is read, and counted, every time
        report = index_shards(shards, 1, keep_going=True)
        assert (report.samples, report.read) == (20, read)
        assert report.set_aside == {"shard_broken": 1}
        assert report.examples[0].startswith(f"{path}: truncated at byte ")
    with pytest.raises(DataError, match="truncated"):
        index_shards(shards, 1)


@pytest.mark.parametrize("name", ["../evil.jpg", "/evil.jpg"])
def test_a_tar_that_leaves_its_folder_is_refused_whole(shards, make, name):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for member, data in [*make.members(70), (name, b"x")]:
            info = tarfile.TarInfo(member)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    (shards / "00000003.tar").write_bytes(buffer.getvalue())
    (shards / "00000003_stats.json").write_text('{"successes": 1}')
    with pytest.raises(UnsafeInputError, match="would leave its folder; the tar is refused"):
        index_shards(shards, 2)
    assert index_shards(shards, 1, keep_going=True).samples == 21


def test_a_hole_in_the_numbering_is_an_error_that_can_be_passed(shards, make, run):
    make.write_shard(shards, 5, make.members(70))
    with pytest.raises(DataError) as caught:
        index_shards(shards, 1)
    assert str(caught.value) == (
        f"{shards}: 00000003.tar is missing (a hole in the numbering); --keep-going goes on without"
    )
    report = index_shards(shards, 1, keep_going=True)
    assert (report.samples, report.set_aside) == (22, {"shard_missing": 2})
    code, out, _ = run("shards", "index", shards, "--keep-going")
    assert code == 3
    assert "set aside: 2 shard_missing" in out


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_stats_without_their_tar_are_a_missing_shard(shards, gone):
    (shards / f"0000000{gone}.tar").unlink()
    why = "0000000{gone}_stats.json is there" if gone == 2 else "a hole in the numbering"
    why = why.format(gone=gone)
    with pytest.raises(DataError) as caught:
        index_shards(shards, 1)
    assert str(caught.value) == (
        f"{shards}: 0000000{gone}.tar is missing ({why}); --keep-going goes on without"
    )
    report = index_shards(shards, 1, keep_going=True)
    assert (report.shards, report.samples, report.set_aside) == (2, 14, {"shard_missing": 1})


def test_a_missing_stats_file_is_an_error_that_can_be_passed(shards):
    (shards / "00000001_stats.json").unlink()
    with pytest.raises(DataError, match=r"00000001_stats.json is missing; --keep-going goes on"):
        index_shards(shards, 1)
    assert index_shards(shards, 1, keep_going=True).set_aside == {"stats_missing": 1}
    for path in shards.glob("*_stats.json"):
        path.unlink()
    assert index_shards(shards, 1).complete  # tars of others have none


def test_a_tar_cut_off_between_two_samples_is_noticed(shards):
    index_shards(shards, 1)
    path = shards / "00000002.tar"
    last = rows(shards)[-1]
    path.write_bytes(path.read_bytes()[: last["offset"]] + END)
    with pytest.raises(DataError) as caught:
        index_shards(shards, 1)
    assert str(caught.value) == (
        f"{path}: 6 samples, but 00000002_stats.json says 7; fetch or build it again"
    )
    assert index_shards(shards, 1, keep_going=True).set_aside == {"shard_broken": 1}


def test_a_tar_cut_off_between_two_members_keeps_what_is_known_whole(shards):
    index_shards(shards, 1)
    path = shards / "00000002.tar"
    last = rows(shards)[-1]
    cut = last["offset"] + last["members"][-1]["offset"] - 512  # before the header of the .txt
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError) as caught:
        index_shards(shards, 1)
    assert str(caught.value) == (
        f"{path}: truncated at byte {cut}, where a tar does not end; fetch or build it again"
    )
    report = index_shards(shards, 1, keep_going=True)
    assert (report.samples, report.set_aside) == (20, {"shard_broken": 1})
    assert last["uid"] not in {row["uid"] for row in rows(shards)}


def test_of_an_interleaved_tar_no_half_sample_is_kept(shards, make):
    one, two = make.members(70), make.members(71)
    make.write_shard(shards, 3, [one[0], *two, *one[1:], *make.members(72)])
    with pytest.raises(DataError, match="members of '000000070' are interleaved with other"):
        index_shards(shards, 1)
    report = index_shards(shards, 1, keep_going=True)
    assert (report.samples, report.set_aside) == (23, {"members_apart": 1, "shard_broken": 1})
    assert {row["key"] for row in rows(shards) if row["shard"] == "00000003.tar"} == {
        "000000071", "000000072",
    }  # fmt: skip


def test_a_tar_that_changes_while_it_is_read(shards, monkeypatch):
    done = ranges.LocalRanges.is_changed

    def changes(file):
        if file.place.endswith("00000001.tar"):
            touch_later(shards / "00000001.tar")
        return done(file)

    monkeypatch.setattr(ranges.LocalRanges, "is_changed", changes)
    said = "00000001.tar: changed while it was read; wait until it is finished$"
    with pytest.raises(DataError, match=said):
        index_shards(shards, 1)
    with pytest.raises(DataError, match=said):
        ensure_index(shards, 1)
    index = ensure_index(shards, 1, keep_going=True)
    assert (index.samples, index.set_aside) == (14, {"shard_broken": 1})


def test_all_of_a_long_hole_is_counted_and_remembered(shards, make, run, select, tmp_path):
    make.write_shard(shards, 600, make.members(70))
    report = index_shards(shards, 1, keep_going=True)
    assert (report.set_aside, len(report.examples)) == ({"shard_missing": 597}, 20)
    assert load_index(shards).set_aside == {"shard_missing": 597}
    command = ["shards", "select", shards, select(1), "-o", tmp_path / "view", "--keep-going"]
    code, out, _ = run(*command)
    assert code == 3
    assert "left out of the sources: 597 shard_missing" in out
    (shards / "00000600.tar").unlink()
    (shards / "00000600_stats.json").unlink()
    assert load_index(shards) is None
    (shards / "00000001_stats.json").unlink()
    index_shards(shards, 1, keep_going=True)
    assert load_index(shards).set_aside == {"stats_missing": 1}


def test_the_first_number_is_missing_as_any_other(tmp_path, make):
    make.write_shard(tmp_path, 1, make.members(1))
    (tmp_path / "00000001_stats.json").unlink()
    with pytest.raises(DataError, match=r"00000000\.tar is missing \(a hole in the numbering\)"):
        index_shards(tmp_path, 1)
    (tmp_path / "00000001.tar").rename(tmp_path / "1.tar")
    assert index_shards(tmp_path, 1).complete


def test_a_folder_without_tars(tmp_path):
    with pytest.raises(DataError) as caught:
        index_shards(tmp_path)
    assert str(caught.value) == f"{tmp_path}: no .tar files found"
    with pytest.raises(MissingError) as caught:
        index_shards(tmp_path / "none")
    assert str(caught.value) == f"{tmp_path / 'none'}: no such folder"


def test_hidden_tars_are_not_shards(shards):
    (shards / ".00000009.tar").write_bytes(b"half")
    assert index_shards(shards, 1).shards == 3


def test_a_tar_with_a_line_break_in_its_name_is_refused(shards):
    (shards / "a\nb.tar").write_bytes(tar_bytes([]))
    with pytest.raises(UnsafeInputError, match=r"tar name 'a\\nb.tar' is not printable; rename it"):
        index_shards(shards, 1)


def test_a_tar_of_no_samples_has_no_rows(tmp_path):
    (tmp_path / "0.tar").write_bytes(tar_bytes([]))
    assert index_shards(tmp_path, 1).samples == 0
    assert rows(tmp_path) == []
    assert index_shards(tmp_path, 1).unchanged == 1


def test_uid_records_reads_slices_and_refuses_what_is_no_uid(make):
    text = [make.uid_of(n) for n in range(5)]
    column = pa.chunked_array([text[:2], text[2:]])
    assert to_hex(uid_records(column, "w")) == text
    assert to_hex(uid_records(pa.array(text).slice(1, 3), "w")) == text[1:4]
    assert len(uid_records(pa.array([], pa.string()), "w")) == 0
    for bad in (["x" * 32], ["0" * 31, "0" * 33], [None], ["0" * 30 + "é"], ["0" * 30 + "  "] * 16):
        with pytest.raises(DataError) as caught:
            uid_records(pa.array(bad), "w")
        assert str(caught.value) == "w: its uids are not 32 hex digits each; index again"


def rewritten(shards, change):
    """Change the rows of an index, and make its metadata fit them."""
    table = change(pq.read_table(shards / "index.parquet"))
    pq.write_table(table, shards / "index.parquet")
    metadata = json.loads((shards / "index.json").read_text())
    metadata["index_sha256"] = sha256_file(shards / "index.parquet")
    (shards / "index.json").write_text(json.dumps(metadata))


def with_column(table, name, values):
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(name), pa.array(values, table[name].type))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("uid", lambda rows: [rows[0]["uid"]] * len(rows)),
        ("shard", lambda rows: ["../x.tar"] * len(rows)),
        ("offset", lambda rows: [row["offset"] + 1 for row in rows]),
        ("offset", lambda rows: [row["offset"] - (1 << 40) for row in rows]),
        ("length", lambda rows: [1 << 50 for row in rows]),
    ],
)
def test_an_index_that_cannot_be_is_refused(shards, select, tmp_path, name, values):
    index_shards(shards, 1)
    rewritten(shards, lambda table: with_column(table, name, values(table.to_pylist())))
    with pytest.raises(DataError) as caught:
        choose([load_index(shards)], Wanted.read(select(*range(21)), keep_going=True), tmp_path)
    assert str(caught.value) == f"{shards}: its index is damaged; index again"


def test_an_index_of_other_columns_is_made_again(shards):
    index_shards(shards, 1)
    rewritten(shards, lambda table: table.set_column(2, "offset", table["offset"].cast("int32")))
    assert load_index(shards) is None
    assert index_shards(shards, 1).read == 3


def test_columns_come_back_as_they_were():
    assert columns.text_column(["a", "", "é" * 3]).to_pylist() == ["a", "", "é" * 3]
    assert columns.integer_column([1, -(1 << 40)]).to_pylist() == [1, -(1 << 40)]
    lists = columns.list_column([2, 0, 1], columns.integer_column([5, 6, 7]), pa.list_(pa.int64()))
    assert lists.to_pylist() == [[5, 6], [], [7]]
    assert columns.text_column([]).to_pylist() == []


def test_short_commands_do_not_import_what_takes_long(shards, select, tmp_path):
    """Selecting starts in a third of a second; pandas alone would double that."""
    index_shards(shards, 1)
    script = """
        import sys
        from datacomp.curate.cli import main
        try:
            main()
        finally:
            heavy = {"pandas", "pyarrow.compute", "duckdb", "torch", "multiprocessing.pool"}
            print(sorted(heavy & set(sys.modules)), file=sys.stderr)
    """
    command = ["shards", "select", shards, select(1, 2), "-o", tmp_path / "view"]
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, command)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stderr == "[]\n"


def test_a_tar_that_changes_while_it_is_read_is_an_error(shards, monkeypatch):
    class Growing(ranges.LocalRanges):
        def read_at(self, offset, length):
            with open(self.place, "ab") as file:
                file.write(b"x")
            return super().read_at(offset, length)

    monkeypatch.setattr(reading, "open_ranges", Growing)
    with pytest.raises(DataError) as caught:
        index_shards(shards, 1)
    path = shards / "00000000.tar"
    assert str(caught.value) == f"{path}: changed while it was read; wait until it is finished"
    assert not (shards / "index.parquet").exists()


@pytest.mark.parametrize("keep_going", [False, True])
def test_a_tar_whose_samples_are_all_interleaved_is_told(tmp_path, keep_going):
    files = [(f"{n}.{kind}", b"x") for kind in ("jpg", "json", "txt") for n in range(2)]
    (tmp_path / "00000000.tar").write_bytes(tar_bytes(files))
    if keep_going:
        report = index_shards(tmp_path, 1, keep_going=True)
        assert report.samples == 0
        assert report.set_aside["members_apart"] == 2
        return
    with pytest.raises(DataError, match="members of '0' are interleaved with other samples"):
        index_shards(tmp_path, 1)


def test_of_many_samples_set_aside_some_are_named_and_all_are_counted(tmp_path, make, run):
    files = [file for n in range(300) for file in make.members(n, jpg=None)] + make.members(300)
    make.write_shard(tmp_path, 0, files)
    for _ in range(2):  # also when not read again
        report = index_shards(tmp_path, 1)
        assert (report.samples, report.set_aside) == (1, {"no_image": 300})
        assert report.examples == [f"00000000.tar/{n:09d}: no_image" for n in range(20)]
    assert load_index(tmp_path).set_aside == {"no_image": 300}
    assert (tmp_path / "index.json").stat().st_size < 3000


def test_an_index_too_large_to_be_read_again_is_refused(shards, monkeypatch):
    monkeypatch.setattr(storage, "MAX_METADATA_BYTES", 300)
    for make_it in (index_shards, ensure_index):
        with pytest.raises(DataError, match=r"bytes, over the limit of 300; put the 3 tars into"):
            make_it(shards, 1)
        assert not (shards / "index.json").exists()
