import json
import subprocess
import sys

import pytest
from datacomp.pools import Pool


@pytest.fixture
def photos(tmp_path, picture):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.png").write_bytes(picture(i))
        (folder / f"{i}.txt").write_text(f"caption {i} \x1b[31mred\nsecond line")
    return folder


@pytest.fixture
def path(tmp_path, photos, command):
    path = tmp_path / "pool.duckdb"
    assert command("pool", "add", path, photos, "--kind", "folder")[0] == 0
    return path


def test_create_makes_an_empty_pool_once(tmp_path, command):
    path = tmp_path / "pool.duckdb"
    assert command("pool", "create", path) == (0, f"made {path}\n", "")
    other = tmp_path / "other.duckdb"
    code, out, _ = command("pool", "create", other, "--json")
    assert (code, json.loads(out)) == (0, {"pool": str(other)})
    with Pool.open(path) as pool:
        assert pool.count() == 0
    code, out, err = command("pool", "create", path)
    assert (code, out) == (2, "")
    assert err == f"error: {path} exists already; add to it with 'datacomp pool add {path} ...'\n"


def counted(photos, added, unchanged, changed=0, vanished=0, duplicates=0):
    return (
        f"folder {photos}: {added} added, {unchanged} unchanged, {changed} changed, "
        f"{vanished} vanished, {duplicates} duplicates\n"
    )


def test_add_counts_and_exits_3_when_something_was_set_aside(tmp_path, photos, command):
    path = tmp_path / "pool.duckdb"
    add = ("pool", "add", path, photos, "--kind", "folder")
    assert command(*add) == (0, counted(photos, 3, 0), "")
    (photos / "bad.png").write_bytes(b"x")
    (photos / "bad.txt").write_text("x")
    assert command(*add) == (
        3, counted(photos, 0, 3) + "  set aside: 1 image_broken\n", "",
    )  # fmt: skip
    code, out, _ = command(*add, "--json")
    assert code == 3
    assert json.loads(out) == {
        "source": f"folder {photos}", "added": 0, "unchanged": 3, "changed": 0, "vanished": 0,
        "duplicates": 0, "set_aside": {"image_broken": 1},
    }  # fmt: skip


def test_add_tells_what_changed_vanished_and_is_there_twice(path, photos, picture, command):
    (photos / "0.png").rename(photos / "9.png")
    (photos / "0.txt").rename(photos / "9.txt")
    (photos / "1.png").unlink()
    (photos / "3.png").write_bytes(picture(2))
    (photos / "3.txt").write_bytes((photos / "2.txt").read_bytes())
    assert command("pool", "add", path, photos, "--kind", "folder") == (
        0, counted(photos, 0, 1, 1, 1, 1), "",
    )  # fmt: skip
    sql = "SELECT item, reason FROM set_aside ORDER BY ALL"
    code, out, _ = command("pool", "query", path, sql, "--csv")
    assert (code, out) == (0, "item,reason\n1.png,vanished\n3.png,duplicate_uid\n")


def test_what_is_linked_needs_no_kind(tmp_path, commonpool, command):
    folder = commonpool(tmp_path / "m", clip_l14_similarity_score=[])
    code, out, err = command("pool", "add", tmp_path / "pool.duckdb", folder, "--link", "--json")
    assert err == "kind commonpool, judging by --link\n"
    assert (code, json.loads(out)["source"]) == (0, f"commonpool {folder}")
    assert command("pool", "add", tmp_path / "p", folder, "--link", "--kind", "csv")[0] == 2


@pytest.mark.parametrize("name", ["b.csv", "b.json", "b.jsonl", "b.parquet", "empty"])
def test_a_file_that_is_no_pool_is_told_from_one(tmp_path, command, name):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / name
    path.write_text("" if name == "empty" else '{"url": "http://a/1", "text": "a"}\n')
    if name == "b.parquet":
        pq.write_table(pa.table({"url": ["http://a/1"], "text": ["a"]}), path)
    before = path.read_bytes()
    said = (
        f"error: {path}: not a datacomp pool (no DuckDB file); if it holds samples, add it to "
        f"one: datacomp pool add POOL {path}\n"
    )
    add = ("add", path, path, "--kind", "csv")
    for words in (("info", path), add, ("fetch", path, tmp_path / "out")):
        assert command("pool", *words) == (1, "", said)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("{tmp}", "--kind", "photos"), 2, "unknown kind of source 'photos'; there are: "),
        (("{tmp}/none", "--kind", "folder"), 1, "{tmp}/none: no such folder\n"),
        (("{tmp}", "--kind", "glyphs", "--option", "samples"), 2,
         "--option 'samples': expected NAME=VALUE\n"),
        (("{tmp}", "--kind", "glyphs", "--option", "samples=x"), 2,
         "source glyphs: option samples is 'x', expected int\n"),
    ],
)  # fmt: skip
def test_add_says_in_one_line_what_is_wrong(tmp_path, command, arguments, code, message):
    found = command("pool", "add", tmp_path / "p", *(a.format(tmp=tmp_path) for a in arguments))
    assert (found[0], found[1]) == (code, "")
    assert found[2].startswith("error: " + message.format(tmp=tmp_path))
    assert found[2].count("\n") == 1


def test_info_tells_what_is_there(path, photos, command):
    code, out, _ = command("pool", "info", path)
    assert code == 0
    assert out.startswith(f"{path}: 3 samples, schema 3\ndigest ")
    assert "folder" in out
    code, out, _ = command("pool", "info", path, "--json")
    found = json.loads(out)
    assert (found["samples"], found["columns"]["uid"]) == (3, "UHUGEINT")
    assert found["sources"] == [
        {"id": 1, "kind": "folder", "path": "photos", "options": "{}", "samples": 3,
         "duplicates": 0, "set_aside": 0},
    ]  # fmt: skip


def test_query_prints_rows_for_people_and_machines(path, command):
    sql = "SELECT text, width, NULL AS none FROM samples ORDER BY text LIMIT 2"
    code, out, err = command("pool", "query", path, sql)
    assert (code, err) == (0, "")
    assert out == (
        "text                                width  none\n"
        "----------------------------------  -----  ----\n"
        "caption 0 \\x1b[31mred\\nsecond line     24  None\n"
        "caption 1 \\x1b[31mred\\nsecond line     24  None\n"
    )
    code, out, _ = command("pool", "query", path, sql, "--json")
    assert json.loads(out)[0] == {
        "text": "caption 0 \x1b[31mred\nsecond line", "width": 24, "none": None,
    }  # fmt: skip


def test_query_prints_uids_in_hex_and_wide_numbers_as_text(path, command):
    with Pool.open(path, read_only=True) as pool:
        number = pool.scalar("SELECT min(uid) FROM samples")
    sql = (
        "SELECT uid, uid AS other, -5::HUGEINT AS wide, 'nan'::DOUBLE AS n, 1.5 AS d "
        "FROM samples ORDER BY uid LIMIT 1"
    )
    code, out, _ = command("pool", "query", path, sql, "--json")
    assert (code, json.loads(out)) == (
        0, [{"uid": f"{number:032x}", "other": str(number), "wide": "-5", "n": None, "d": "1.5"}],
    )  # fmt: skip
    code, out, _ = command("pool", "query", path, sql, "--csv")
    assert (code, out) == (0, f"uid,other,wide,n,d\n{number:032x},{number},-5,nan,1.5\n")
    code, out, _ = command("pool", "query", path, sql)
    assert out.splitlines()[2].split() == [f"{number:032x}", str(number), "-5", "nan", "1.5"]
    code, out, _ = command("pool", "query", path, "SELECT NULL::UHUGEINT AS UID", "--json")
    assert json.loads(out) == [{"UID": None}]
    assert command("pool", "query", path, "SELECT 1", "--csv", "--json")[0] == 2


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("{'a': 'nan'::DOUBLE, 'b': ['-inf'::FLOAT, 1.5::FLOAT]}", {"a": None, "b": [None, 1.5]}),
        ("[7::UHUGEINT, NULL]", ["7", None]),
        ("{'uid': 7::HUGEINT, 'n': 7}", {"uid": "7", "n": 7}),
        ("MAP {7::HUGEINT: 8::HUGEINT}", {"7": "8"}),
        ("MAP {'nan'::DOUBLE: 1}", {"nan": 1}),
        ("MAP {[1::HUGEINT]: 'x'::BLOB}", {"key": [["1"]], "value": ["78"]}),
        ("[7, 8]::UHUGEINT[2]", ["7", "8"]),
        ("row(7::HUGEINT, 'a')", ["7", "a"]),
        ("union_value(k := {'x': (1::UHUGEINT << 100)})", {"x": str(1 << 100)}),
        ("{'a': 1}::VARIANT", {"a": 1}),
        ("'\\xABc'::BLOB", "ab63"),
        ("MAP {DATE '2026-01-02': [DATE '2026-01-02']}", {"2026-01-02": ["2026-01-02"]}),
    ],
)
def test_query_prints_nested_values_as_json_has_them(path, command, sql, found):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    code, out, err = command("pool", "query", path, f"SELECT {sql} AS v", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out, parse_constant=refuse) == [{"v": found}]


def test_query_says_when_there_is_more(path, command):
    code, out, err = command("pool", "query", path, "SELECT 1 AS a FROM samples", "--limit", "2")
    assert (code, out, err) == (0, "a\n-\n1\n1\n", "(more rows; --limit 2)\n")
    assert command("pool", "query", path, "SELECT 1 AS a FROM samples", "--limit", "3")[2] == ""


@pytest.mark.parametrize(
    "sql", ["SELEC 1", "DROP TABLE samples", "SELECT 1; SELECT 2", "SELECT nothing FROM samples",
            "SELECT * FROM read_csv('/etc/passwd')", "SELECT text::INTEGER FROM samples"],
)  # fmt: skip
def test_query_refuses_in_one_line(path, command, sql):
    code, out, err = command("pool", "query", path, sql)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {path}: ")
    assert err.count("\n") == 1
    with Pool.open(path) as pool:
        assert pool.count() == 3


def test_show_writes_a_page(path, tmp_path, command):
    page = tmp_path / "pool.html"
    assert command("pool", "show", path, "-o", page) == (0, f"{page}: 3 samples\n", "")
    assert "<html" in page.read_text()
    code, out, _ = command("pool", "show", path, "-o", page, "--where", "false", "--json")
    assert (code, json.loads(out)) == (0, {"page": str(page), "samples": 0})


@pytest.mark.parametrize(
    "where", ["text IN (SELECT content FROM read_text('/etc/passwd'))",
              "EXISTS (FROM read_csv('/etc/passwd'))", "EXISTS (FROM glob('/*'))"],
)  # fmt: skip
def test_show_reads_no_other_file(path, tmp_path, command, where):
    page = tmp_path / "pool.html"
    code, out, err = command("pool", "show", path, "-o", page, "--where", where)
    assert (code, out, page.exists()) == (2, "", False)
    assert err.startswith("error: where ")
    assert "file system operations are disabled" in err
    assert err.count("\n") == 1


def test_memory_is_an_option_of_every_command_that_may_need_it(path, photos, tmp_path, command):
    for rest in (
        ("add", path, photos, "--kind", "folder"),
        ("info", path),
        ("query", path, "SELECT 1"),
        ("show", path, "-o", tmp_path / "p.html"),
    ):
        assert command("pool", *rest, "--memory", "200MB")[0] == 0
        code, out, err = command("pool", *rest, "--memory", "lots")
        assert (code, out) == (2, "")
        assert err == (
            "error: the memory limit is 'lots', expected a size such as 2GB or a share such as "
            "25%\n"
        )


def test_a_second_process_is_told_who_holds_the_pool(path, photos, command):
    body = (
        f"from datacomp.pools import Pool; held = Pool.open({str(path)!r}); "
        "print(held.count(), flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", body], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        try:
            assert holder.stdout.readline() == b"3\n"
            for rest in (("add", path, photos, "--kind", "folder"), ("info", path),
                         ("query", path, "SELECT 1"), ("show", path)):  # fmt: skip
                assert command("pool", *rest) == (
                    1, "", f"error: {path}: held by process {holder.pid}; wait for it or stop it\n",
                )  # fmt: skip
        finally:
            holder.kill()
    assert command("pool", "query", path, "SELECT 1")[0] == 0


def test_an_add_that_fails_removes_only_the_pool_it_made(tmp_path, photos, command):
    path = tmp_path / "pool.duckdb"
    failing = ("pool", "add", path, tmp_path / "none", "--kind", "folder")
    assert command(*failing)[0] == 1
    assert not path.exists()
    assert command("pool", "create", path)[0] == 0
    assert command(*failing)[0] == 1
    assert path.exists()


def test_an_add_that_is_refused_leaves_the_pool_another_process_makes(tmp_path, photos, command):
    path = tmp_path / "pool.duckdb"
    body = (
        "from datacomp.pools import Pool; input(); "
        f"held = Pool.create({str(path)!r}); print(held.count(), flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", body], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        try:
            holder.stdin.write(b"\n")
            holder.stdin.flush()
            assert holder.stdout.readline() == b"0\n"
            with pytest.MonkeyPatch.context() as patch:
                # As if the other one had made it just after this one had looked.
                patch.setattr("pathlib.Path.exists", lambda self: False)
                code, _, err = command("pool", "add", path, photos, "--kind", "folder")
            assert (code, path.exists()) == (1, True)
            assert err == (f"error: {path}: held by process {holder.pid}; wait for it or stop it\n")
        finally:
            holder.kill()
    assert [p.name for p in tmp_path.iterdir() if "pool" in p.name] == ["pool.duckdb"]


def test_add_guesses_the_kind_and_says_what_it_guessed(tmp_path, photos, commonpool, command):
    assert command("pool", "add", tmp_path / "p", photos) == (
        0, counted(photos, 3, 0), "kind folder, judging by 0.png\n",
    )  # fmt: skip
    metadata = commonpool(tmp_path / "m")
    code, out, err = command("pool", "add", tmp_path / "q", metadata, "--link", "--json")
    assert (code, json.loads(out)["added"]) == (0, 10)
    assert err == "kind commonpool, judging by 00ab.parquet\n"
    assert command("pool", "add", tmp_path / "r", photos, "--link") == (
        2, "", "kind folder, judging by 0.png\nerror: source folder: unknown option 'link'; it "
        "has no options\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("folder", "a file, but kind folder reads a folder of images; webdataset (.tar), "
         "commonpool and parquet (.parquet), csv (.csv, .tsv) and jsonl (.jsonl) read files\n"),
        ("parquet", "cannot be read as parquet (No magic bytes found at end of file '{path}'); "
         "read it with --kind csv\n"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_told_in_one_line(tmp_path, command, kind, message):
    path = tmp_path / "urls.csv"
    path.write_text("url,text\na,b\n")
    code, _, err = command("pool", "add", tmp_path / "p", path, "--kind", kind)
    assert (code, err) == (2 if kind == "folder" else 1,
                           f"error: {path}: {message.format(path=path)}")  # fmt: skip
    assert not (tmp_path / "p").exists()


def test_a_folder_of_metadata_is_given_as_a_pool(tmp_path, commonpool, command):
    folder = commonpool(tmp_path / "m")
    subset = tmp_path / "s.npy"
    code, out, _ = command(
        "filter", "run", folder, "clip_score:arch=l14,fraction=0.3", "-o", subset
    )
    assert (code, out.splitlines()[-1]) == (0, f"{subset}: 4 of 10 samples (40.0%)")
    code, out, _ = command("pool", "info", folder)
    assert (code, out.splitlines()[0]) == (0, f"{folder}: 10 samples, schema 3")
    assert command("pool", "query", folder, "SELECT max(width) AS w FROM samples", "--csv") == (
        0, "w\n309\n", "",
    )  # fmt: skip
    assert command("pool", "show", folder, "-o", tmp_path / "p.html")[0] == 0
    assert command("pool", "check", folder) == (0, f"{folder}: 10 samples checked\n", "")
    commonpool(folder / "part_0", files=1, rows=1)
    assert command("pool", "check", folder) == (
        3, f"{folder}: 11 samples checked\n  1 duplicate_uid\n  duplicate_uid: {0:032x}  2 rows\n",
        "",
    )  # fmt: skip


def test_ctrl_c_stops_a_query_at_once_with_one_line(path):
    sql = "SELECT count(*) FROM range(1000000000000) r(i) WHERE hash(i) = 7"
    body = (
        "import os, signal, sys, threading; from datacomp.curate.cli import main\n"
        "import datacomp.pools.asking\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        f"sys.argv = ['datacomp', 'pool', 'query', {str(path)!r}, {sql!r}]\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (
        130, b"", b"interrupted; run the same command again to go on",
    )  # fmt: skip


def test_the_help_of_add_names_every_kind(command):
    from datacomp.pools.sources import KINDS

    text = " ".join(command("pool", "add", "--help")[1].split())
    assert all(kind in text for kind in KINDS)


def test_help_has_examples(command):
    for verb in ("create", "add", "info", "check", "query", "show"):
        code, out, _ = command("pool", verb, "--help")
        assert code == 0
        assert f"datacomp pool {verb}" in out
