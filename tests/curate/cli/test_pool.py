import json

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
    with Pool.open(path) as pool:
        assert pool.count() == 0
    code, out, err = command("pool", "create", path)
    assert (code, out) == (2, "")
    assert err == f"error: {path} exists already; add to it with 'datacomp pool add {path} ...'\n"


def test_add_counts_and_exits_3_when_something_was_set_aside(tmp_path, photos, command):
    path = tmp_path / "pool.duckdb"
    add = ("pool", "add", path, photos, "--kind", "folder")
    assert command(*add) == (0, f"folder {photos}: 3 added, 0 there already, 0 duplicates\n", "")
    (photos / "bad.png").write_bytes(b"x")
    (photos / "bad.txt").write_text("x")
    assert command(*add) == (
        3, f"folder {photos}: 0 added, 3 there already, 0 duplicates\n"
        "  set aside: 1 image_broken\n", "",
    )  # fmt: skip
    code, out, _ = command(*add, "--json")
    assert code == 3
    assert json.loads(out) == {
        "source": f"folder {photos}", "added": 0, "unchanged": 3, "duplicates": 0,
        "set_aside": {"image_broken": 1},
    }  # fmt: skip


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
    assert out.startswith(f"{path}: 3 samples, schema 1\ndigest ")
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


def test_help_has_examples(command):
    for verb in ("create", "add", "info", "query", "show"):
        code, out, _ = command("pool", verb, "--help")
        assert code == 0
        assert f"datacomp pool {verb}" in out
