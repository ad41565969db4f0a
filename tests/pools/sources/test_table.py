import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.errors import DataError, MissingError, UsageError
from datacomp.pools import Pool
from datacomp.pools.sources import open_source
from datacomp.pools.uids import from_hex, to_hex, uid_of_url
from hypothesis import given, settings
from hypothesis import strategies as st

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.fixture
def pool(tmp_path):
    with Pool.create(tmp_path / "pool.duckdb") as pool:
        yield pool


def rows(pool, what="url, text"):
    return pool.sql(f"SELECT {what} FROM samples ORDER BY url, text").fetchall()


def aside(pool):
    return pool.sql("SELECT item, reason FROM set_aside ORDER BY ALL").fetchall()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(TEXT.filter(bool), TEXT), min_size=1, max_size=5, unique=True))
def test_uids_are_those_of_url_and_caption(pairs):
    import duckdb
    from datacomp.pools.sources.table import _uid_sql

    with duckdb.connect() as connection:
        connection.register("t", pa.table({"a": [a for a, _ in pairs], "b": [b for _, b in pairs]}))
        found = connection.execute(
            f"SELECT printf('%032x', {_uid_sql('a', 'b')}) FROM t"
        ).fetchall()
    assert [row[0] for row in found] == [uid_of_url(url, text) for url, text in pairs]


def test_uids_of_the_table_are_kept_and_the_others_made(tmp_path, pool):
    given_uid = "0123456789abcdef" * 2
    table = pa.table({
        "url": ["a", "b", "c"], "text": ["A", None, "C"],
        "uid": [given_uid, None, "not a uid"],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "t.parquet")
    assert pool.add(open_source("parquet", tmp_path / "t.parquet")).added == 3
    expected = [given_uid, uid_of_url("b", ""), uid_of_url("c", "C")]
    assert sorted(to_hex(pool.uids())) == sorted(expected)
    assert rows(pool) == [("a", "A"), ("b", ""), ("c", "C")]
    assert pool.digest() == pool.digest()
    assert from_hex(sorted(expected)).tolist() == pool.uids().tolist()


def test_commonpools_columns_come_along_and_bytes_do_not(tmp_path, pool):
    table = pa.table({
        "url": ["u"], "TEXT": ["t"], "original_width": [640.0], "original_height": ["480"],
        "Clip_Score": [0.25], "rowid": [7], "_x": [1], "a b": [1],
        "image": [b"\x89PNG"], "boxes": [[[0.1, 0.2]]], "truth": ["clean"],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "t.parquet")
    pool.add(open_source("parquet", tmp_path / "t.parquet"))
    extra = set(pool.columns()) - {
        "uid",
        "url",
        "text",
        "sha256",
        "source",
        "shard",
        "offset",
        "length",
    }
    assert extra == {
        "clip_score", "width", "height", "original_width", "original_height", "boxes", "truth",
    }  # fmt: skip
    assert rows(pool, "width, height, original_width") == [(640, 480, 640.0)]


def test_captions_that_look_like_numbers_stay_text(tmp_path, pool):
    (tmp_path / "t.csv").write_text("url,text,n\nhttp://a,007,1\nhttp://b,1.50,2\nhttp://c,,3\n")
    pool.add(open_source("csv", tmp_path / "t.csv"))
    assert rows(pool, "url, text, n") == [
        ("http://a", "007", 1), ("http://b", "1.50", 2), ("http://c", "", 3),
    ]  # fmt: skip


def test_broken_lines_are_set_aside_by_number(tmp_path, pool):
    (tmp_path / "t.csv").write_bytes(
        b"url,text,n\nhttp://a,one,1\nhttp://b,caf\xe9,2\nhttp://c,three,3,4\n"
        b'http://d,"two\nlines",5\n,no url,6\nhttp://e,"a ""b"", c",7\n'
    )
    report = pool.add(open_source("csv", tmp_path / "t.csv"))
    assert report.set_aside == {"caption_not_utf8": 1, "line_broken": 1, "no_url": 1}
    assert aside(pool) == [
        ("no url", "no_url"),
        ("t.csv:3", "caption_not_utf8"),
        ("t.csv:4", "line_broken"),
    ]
    assert rows(pool) == [("http://a", "one"), ("http://d", "two\nlines"), ("http://e", 'a "b", c')]
    (tmp_path / "u.csv").write_text("url,text\nhttp://z,fine\n")
    assert pool.add(open_source("csv", tmp_path / "u.csv")).set_aside == {}


def test_a_caption_of_megabytes_is_set_aside(tmp_path, pool):
    table = pa.table({"url": ["long", "short"], "text": ["x" * 2_000_000, "y"]})
    pq.write_table(table, tmp_path / "t.parquet")
    assert pool.add(open_source("parquet", tmp_path / "t.parquet")).set_aside == {
        "caption_too_long": 1
    }
    assert aside(pool) == [("long", "caption_too_long")]


def test_a_text_that_is_not_utf8_costs_its_row_of_a_parquet_file(tmp_path, pool, spoil):
    path = tmp_path / "t.parquet"
    table = {"url": list("abcd"), "text": list("ABCD"), "note": list("wxyz"), "width": [1, 2, 3, 4]}
    pq.write_table(pa.table(table), path)
    spoil(path, "text", 1)
    spoil(path, "note", 2)
    report = pool.add(open_source("parquet", path))
    assert (report.added, report.set_aside) == (2, {"caption_not_utf8": 1, "value_not_utf8": 1})
    assert rows(pool, "url, text, note, width") == [("a", "A", "w", 1), ("d", "D", "z", 4)]
    assert aside(pool) == [
        ("t.parquet: row 2", "caption_not_utf8"), ("t.parquet: row 3", "value_not_utf8"),
    ]  # fmt: skip


def test_one_bad_file_does_not_stop_the_others(tmp_path, pool):
    folder = tmp_path / "tables"
    folder.mkdir()
    for i in range(3):
        pq.write_table(
            pa.table({"url": [f"u{i}", "shared"], "text": ["t", "s"], "n": [i / 2 if i else 7, 1]}),
            folder / f"{i}.parquet", compression="none",
        )  # fmt: skip
    whole = (folder / "1.parquet").read_bytes()
    (folder / "1.parquet").write_bytes(whole[: len(whole) // 2])
    (folder / "2.parquet").write_bytes(whole.replace(b"shared", b"\xff\xfeared"))
    (folder / "3.parquet").symlink_to(tmp_path / "outside.parquet")
    pq.write_table(pa.table({"url": ["secret"], "text": ["t"]}), tmp_path / "outside.parquet")
    pq.write_table(pa.table({"link": ["u"]}), folder / "4.parquet")
    report = pool.add(open_source("parquet", folder))
    assert report.set_aside == {"file_broken": 2, "outside_root": 1, "value_not_utf8": 1}
    assert [item for item, _ in aside(pool)] == [
        "1.parquet", "2.parquet: row 2", "3.parquet", "4.parquet",
    ]  # fmt: skip
    assert rows(pool) == [("shared", "s"), ("u0", "t"), ("u1", "t")]


def test_columns_are_widened_so_that_no_value_is_rounded(tmp_path, pool):
    for i, values in enumerate(([1, 2], [0.5, 1.5], ["many", "few"])):
        pq.write_table(
            pa.table({"url": [f"{i}a", f"{i}b"], "text": ["", ""], "n": values}),
            tmp_path / f"{i}.parquet",
        )
        pool.add(open_source("parquet", tmp_path / f"{i}.parquet"))
        kind = ("BIGINT", "DOUBLE", "VARCHAR")[i]
        assert pool.columns()["n"] == kind
    assert [row[0] for row in rows(pool, "n")] == ["1.0", "2.0", "0.5", "1.5", "many", "few"]


def test_names_that_are_patterns_or_partitions_mean_only_themselves(tmp_path, pool):
    folder = tmp_path / "year=1999"
    folder.mkdir()
    for name in ("a[1].csv", "a*.csv", "a1.csv", "a?.csv"):
        (folder / name).write_text(f"url,text\n{name},t\n")
    pool.add(open_source("csv", folder / "a*.csv"))
    assert rows(pool) == [("a*.csv", "t")]
    pool.add(open_source("csv", folder))
    assert [url for url, _ in rows(pool)] == ["a*.csv", "a1.csv", "a?.csv", "a[1].csv"]
    assert "year" not in pool.columns()


@pytest.mark.parametrize(
    ("header", "options", "error", "message"),
    [
        ("link,text", {}, DataError, "{}: no url column (looked for url, URL, image_url); "
         "name it with --option url_column=NAME; there are: link, text"),
        ("url,title", {}, DataError, "{}: no caption column (looked for text, caption, TEXT, alt); "
         "name it with --option text_column=NAME; there are: url, title"),
        ("url,title", {"text_column": "titel"}, UsageError,
         "{}: no column 'titel' (did you mean 'title'?); there are: url, title"),
    ],
)  # fmt: skip
def test_missing_columns_are_one_clear_line(tmp_path, pool, header, options, error, message):
    path = tmp_path / "t.csv"
    path.write_text(f"{header}\nhttp://a,b\n")
    with pytest.raises(error) as caught:
        pool.add(open_source("csv", path, **options))
    assert str(caught.value) == message.format(path)
    assert pool.info()["sources"] == []


def test_columns_can_be_chosen(tmp_path, pool):
    (tmp_path / "t.tsv").write_text('my url\tte"xt\nhttp://a\thello, you\n')
    options = {"url_column": "my url", "text_column": 'te"xt'}
    pool.add(open_source("csv", tmp_path / "t.tsv", **options))
    assert rows(pool) == [("http://a", "hello, you")]


def test_csv_and_tsv_files_of_a_folder_are_read_in_order(tmp_path, pool):
    folder = tmp_path / "tables"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.tsv").write_text("url\ttext\thits\nhttp://b\tone, two; three|four\t3\n")
    (folder / "A.CSV").write_text("url,text\nhttp://a,tab\there\nhttp://a,tab\there\n")
    (folder / "sub" / "c.TSV").write_text('url\ttext\nhttp://c\t"a ""quoted"" one"\n')
    (folder / ".hidden.csv").write_text("url,text\nhttp://hidden,x\n")
    (folder / "notes.txt").write_text("url,text\nhttp://notes,x\n")
    assert pool.add(open_source("csv", folder)).added == 3
    assert rows(pool, "url, text, hits") == [
        ("http://a", "tab\there", None), ("http://b", "one, two; three|four", 3),
        ("http://c", 'a "quoted" one', None),
    ]  # fmt: skip


def test_the_order_of_a_long_table_is_that_of_its_rows(tmp_path, pool):
    numbers = list(range(200_000))
    table = pa.table({"url": [f"u{i}" for i in numbers], "text": [""] * len(numbers),
                      "uid": [f"{i % 100_000:032x}" for i in numbers], "n": numbers})  # fmt: skip
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=10_000)
    report = pool.add(open_source("parquet", tmp_path / "t.parquet"))
    assert (report.added, report.duplicates) == (100_000, 100_000)
    assert pool.sql("SELECT min(n), max(n), sum(n) FROM samples").fetchall() == [
        (0, 99_999, sum(range(100_000)))
    ]
    wrong = "SELECT count(*) FROM set_aside WHERE substr(item, 2)::INT - substr(detail, 9)::INT"
    assert pool.scalar(wrong + " <> 100000") == 0


def test_rejected_lines_are_counted_for_their_own_file(tmp_path, pool):
    (tmp_path / "a.csv").write_text("url,title\nhttp://a,x\nhttp://b,x,y,z\n")
    (tmp_path / "b.csv").write_text("url,text\nhttp://c,x\n")
    report = pool.add(open_source("csv", tmp_path))
    assert report.set_aside == {"file_broken": 1}
    assert aside(pool) == [("a.csv", "file_broken")]


def test_rows_without_url_and_caption_are_named_by_number(tmp_path, pool):
    table = pa.table({"url": ["u", None, ""], "text": ["t", None, "a caption"]})
    pq.write_table(table, tmp_path / "t.parquet")
    assert pool.add(open_source("parquet", tmp_path / "t.parquet")).set_aside == {"no_url": 2}
    assert aside(pool) == [("a caption", "no_url"), ("t.parquet: row 2", "no_url")]


def test_nothing_to_read_is_one_clear_line(tmp_path, pool):
    with pytest.raises(MissingError) as caught:
        pool.add(open_source("parquet", tmp_path / "none"))
    assert str(caught.value) == f"{tmp_path / 'none'}: no such file or folder"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        pool.add(open_source("csv", tmp_path / "empty"))
    assert str(caught.value) == f"{tmp_path / 'empty'}: no .csv or .tsv files found"
    (tmp_path / "b.parquet").write_bytes(os.urandom(500))
    with pytest.raises(DataError) as caught:
        pool.add(open_source("parquet", tmp_path / "b.parquet"))
    assert str(caught.value).startswith(f"{tmp_path / 'b.parquet'}: ")
    assert "\n" not in str(caught.value)


def test_a_table_with_a_pair_twice_counts_the_same_every_time(tmp_path, pool):
    (tmp_path / "t.csv").write_text("url,text\nhttp://a,x\nhttp://a,x\nhttp://b,x\n")
    source = open_source("csv", tmp_path / "t.csv")
    first, second = pool.add(source), pool.add(source)
    assert (first.added, first.unchanged, first.duplicates) == (2, 0, 1)
    assert (second.added, second.unchanged, second.duplicates) == (0, 2, 1)


def test_one_unclosed_quote_costs_one_line(tmp_path):
    lines = ["url,caption,width"]
    lines += [f'http://x/{i},"a ""caption"", number {i}",{i}' for i in range(50)]
    (tmp_path / "a.csv").write_text("\n".join([*lines, 'http://x/last,"an unclosed quote,1', ""]))
    with Pool.create(tmp_path / "pool.duckdb") as pool:
        report = pool.add(open_source("csv", tmp_path / "a.csv"))
        assert (report.added, report.set_aside) == (50, {"line_broken": 1})
        assert pool.scalar("SELECT text FROM samples WHERE width = 7") == 'a "caption", number 7'


def test_a_text_that_is_not_utf8_costs_its_line_of_a_csv_file(tmp_path, pool, aside):
    (tmp_path / "t.csv").write_bytes(
        b"url,text,other\nhttp://a/1,ok,x\nhttp://a/2,b\xff\xfed,x\nhttp://a/3,fine,c\xff\n"
        b"http://a/4,x,y,z\nhttp://a/5,b\xff,c\xff\n"
    )
    report = pool.add(open_source("csv", tmp_path / "t.csv"))
    assert report.added == 1
    assert aside(pool, "item, reason, detail") == [
        ("t.csv:3", "caption_not_utf8", "INVALID ENCODING"),
        ("t.csv:4", "value_not_utf8", "INVALID ENCODING"),
        ("t.csv:5", "line_broken", "TOO MANY COLUMNS"),
        ("t.csv:6", "caption_not_utf8", "INVALID ENCODING"),
    ]
