import json

import pytest
from datacomp.errors import DataError, MissingError
from datacomp.pools import Pool
from datacomp.pools.sources import Record, SetAside, open_source
from datacomp.pools.uids import uid_of_url


def read(path):
    return list(open_source("jsonl", path).records())


def test_lines_become_records(tmp_path):
    given = "0123456789abcdef" * 2
    lines = [
        {"url": "http://a", "caption": "2020-01-01 00:00", "uid": given, "width": 3, "height": -1,
         "Score": 0.5, "tags": ["x"], "sha256": "ab"},
        {"URL": "http://b", "TEXT": "\u00e9\n", "width": "640", "uid": "not one", "sha256": 7},
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    assert read(tmp_path / "a.jsonl") == read(tmp_path) == [
        Record(given, "http://a", "2020-01-01 00:00", 3, None, "ab", extra={"score": 0.5},
               item="a.jsonl:1"),
        Record(uid_of_url("http://b", "\u00e9"), "http://b", "\u00e9", None, None, None,
               item="a.jsonl:3"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "json_broken"), (b"[1]", "json_broken"), (b"caf\xe9", "json_broken"),
        (b"[" * 100_000, "json_broken"), (b'{"text": "x"}', "no_url"),
        (b'{"url": "", "text": "x"}', "no_url"), (b'{"url": "u", "text": 3}', "no_caption"),
        (b'{"url": "u", "text": "\\ud800"}', "caption_not_utf8"),
        (b'{"url": "u", "text": "' + b"x" * 2_000_000 + b'"}', "json_too_long"),
    ],
)  # fmt: skip
def test_a_bad_line_is_set_aside_by_number(tmp_path, line, reason):
    good = b'{"url": "u", "text": "t"}'
    (tmp_path / "t.jsonl").write_bytes(b"\n".join([good, line, good]))
    first, bad, last = read(tmp_path)
    assert (bad.item, bad.reason) == ("t.jsonl:2", reason)
    assert (first.item, last.item) == ("t.jsonl:1", "t.jsonl:3")


def test_files_that_leave_the_folder_are_not_read(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out.jsonl").write_text('{"url": "secret", "text": "t"}')
    (tmp_path / "in" / "link.jsonl").symlink_to(tmp_path / "out.jsonl")
    assert read(tmp_path / "in") == [
        SetAside("link.jsonl", "outside_root", "a link that leaves the folder")
    ]


def test_nothing_to_read_is_one_clear_line(tmp_path):
    with pytest.raises(MissingError) as caught:
        read(tmp_path / "none")
    assert str(caught.value) == f"{tmp_path / 'none'}: no such file or folder"
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert str(caught.value) == f"{tmp_path}: no .jsonl files found"


def test_the_same_pairs_have_the_same_uids_in_every_kind_of_table(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"url": "http://a", "text": "x"}\n')
    (tmp_path / "a.csv").write_text("url,text\nhttp://a,x\n")
    with Pool.create(tmp_path / "pool.duckdb") as pool:
        assert pool.add(open_source("csv", tmp_path)).added == 1
        assert pool.add(open_source("jsonl", tmp_path)).duplicates == 1
        assert pool.sql("SELECT item, detail FROM set_aside").fetchall() == [
            ("a.jsonl:1", "first: source 1, http://a")
        ]
