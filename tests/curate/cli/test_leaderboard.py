"""``datacomp leaderboard`` and ``results``: exact words, exit codes, JSON, CSV, LaTeX."""

import csv
import io
import json

import pytest
from datacomp.curate.cli.tabular import latex
from datacomp.evaluate.tasks import load_tasks
from datacomp.pools.uids import from_hex, save_subset


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def subset(tmp_path):
    save_subset(tmp_path / "mine.npy", from_hex([f"{2 * i:032x}" for i in range(100)]))
    return tmp_path / "mine.npy"


@pytest.fixture
def board(command, write_run, subset, tmp_path):
    """A board of two submissions."""
    for number in range(2):
        run = write_run(tmp_path / f"run{number}", quality=0.1 + 0.1 * number, samples=100)
        code, _, err = command(
            "submit", run, "--method", f"Method {number}", "--author", "A. Person", "--samples",
            subset, "--to", tmp_path / "board",
        )  # fmt: skip
        assert (code, err) == (0, "")
    return tmp_path / "board"


def places(board):
    return sorted((board / "small" / "filtering").iterdir())


def test_check_accepts_and_says_what_was_not_replayed(command, board):
    (place, _) = places(board)
    code, out, _ = command("leaderboard", "check", place)
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == (
        "not replayed: pool (no pool was given; whether the samples are in it is not known)"
    )
    assert lines[1].startswith("not replayed: checkpoint")
    assert lines[2].startswith(f"{place.name}: accepted; rules that hold: layout, record, files")


def test_check_refuses_with_rule_and_place(command, board):
    (place, _) = places(board)
    path = place / "submission.json"
    path.write_text(path.read_text().replace('"Average":0.1', '"Average":0.9'))
    code, out, _ = command("leaderboard", "check", place)
    assert code == 1
    assert "refused [record] submission.json: id is" in out
    assert "refused [aggregates] results/0.jsonl: 'Average' is given as 0.9" in out
    code, out, _ = command("leaderboard", "check", place, "--json")
    found = json.loads(out)
    assert (code, found["accepted"]) == (1, False)
    assert {one["rule"] for one in found["refused"]} == {"record", "aggregates"}
    assert "files" in found["passed"]


def test_check_against_a_pool(command, board, pool_of, tmp_path):
    (place, _) = places(board)
    pool = pool_of(uid=[f"{i:032x}" for i in range(150)])
    pool.close()
    code, out, _ = command("leaderboard", "check", place, "--pool", pool.path)
    assert code == 1
    assert f"[pool] samples/mine.npy: uid {150:032x} is not in the pool" in out
    save_subset(tmp_path / "pool.npy", from_hex([f"{i:032x}" for i in range(200)]))
    assert command("leaderboard", "check", place, "--pool", tmp_path / "pool.npy")[0] == 0


def test_check_of_nothing(command, tmp_path):
    code, out, _ = command("leaderboard", "check", tmp_path / "nothing")
    assert code == 1
    code, _, err = command("leaderboard", "check", tmp_path, "--reevaluate", "mnist")
    assert code == 2
    assert "--reevaluate and --data belong together" in err
    del out


def test_add(command, board, tmp_path):
    (place, _) = places(board)
    code, out, _ = command("leaderboard", "add", place, tmp_path / "other")
    assert (code, out) == (
        0, f"{place.name}: added at {tmp_path}/other/small/filtering/{place.name}\n"
    )  # fmt: skip
    assert "is already at" in command("leaderboard", "add", place, tmp_path / "other")[1]


def test_build(command, board, tmp_path):
    site = tmp_path / "site"
    code, out, _ = command("leaderboard", "build", board, "-o", site)
    assert (code, out) == (0, f"{site / 'index.html'}: 2 submissions\n")
    (place, _) = places(board)
    (place / "results" / "0.jsonl").write_text("{}\n")
    code, out, _ = command("leaderboard", "build", board, "-o", site)
    assert code == 3
    assert out.splitlines()[0].startswith(f"refused small/filtering/{place.name}: [files] results")
    assert out.splitlines()[1] == f"{site / 'index.html'}: 1 submission"
    assert place.name not in (site / "small.html").read_text()
    code, out, _ = command("leaderboard", "build", board, "-o", site, "--json")
    assert code == 3
    assert list(json.loads(out)["refused"]) == [f"small/filtering/{place.name}"]


def test_tokens(command, tmp_path):
    board = tmp_path / "board"
    code, token, _ = command("leaderboard", "token", "create", board, "A. Person", "--contact",
                             "a@example.org")  # fmt: skip
    assert code == 0
    assert token.startswith("dct_")
    assert "a@example.org" in command("leaderboard", "token", "list", board)[1]
    code, _, err = command("leaderboard", "token", "create", board, "A. Person")
    assert (code, err) == (2, "error: 'A. Person' has a token already; revoke it first\n")
    assert command("leaderboard", "token", "revoke", board, "A. Person")[0] == 0
    assert command("leaderboard", "token", "list", board, "--json")[1] == "[]\n"
    assert command("leaderboard", "token", "revoke", board, "A. Person")[0] == 1


# -- results ---------------------------------------------------------------------------------


@pytest.fixture
def runs(write_run, tmp_path):
    return [write_run(tmp_path / f"{n}_run", quality=q) for n, q in (("=a", 0.1), ("b", 0.3))]


def test_results_as_csv(command, runs):
    code, out, _ = command("results", "show", *runs, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert len(rows) == 2 * (38 + 7)
    assert rows[0]["run"] == "'=a_run"  # no formula for a spreadsheet
    average = next(r for r in rows if r["run"] == "b_run" and r["name"] == "Average")
    shown = json.loads(command("results", "show", runs[1], "--json")[1])
    expected = shown[str(runs[1])]["groups"]["datacomp"]["Average"]
    assert float(average["value"]) == expected["value"]
    assert [float(average["low"]), float(average["high"])] == expected["interval"]
    assert average["missing"] == "0"
    assert [r["name"] for r in rows if r["run"] == "b_run" and r["near_chance"] == "yes"] == [
        key for key, task in load_tasks().items() if task.near_chance
    ]
    assert len(shown[str(runs[1])]["near_chance"]) == 5


def test_results_as_latex(command, runs):
    code, out, _ = command("results", "compare", *runs, "--format", "latex")
    assert code == 0
    assert out.count(r"\begin{tabular}{lrrrrr}") == 2
    assert r"task & =a\_run & b\_run & difference & 95 \% interval & higher \\" in out
    assert "% Suite datacomp" in out
    assert latex("0.5 ± 0.1 *") == r"\textbf{0.5 $\pm$ 0.1}"
    assert latex("-") == "--"
    assert latex("a\\b{c}") == r"a\textbackslash{}b\{c\}"


def test_averages_anew(command, runs):
    code, out, _ = command("results", "aggregate", runs[0], "--json")
    found = json.loads(out)
    assert code == 0
    assert found["suites"] == {"datacomp": 1}
    assert found["aggregate_version"] == 1
    assert found["runs"][str(runs[0])]["datacomp"]["Average"]["tasks"] == 38
    text = command("results", "aggregate", *runs)[1]
    assert text.splitlines()[1] == "Suite datacomp, version 1"
    assert text.splitlines()[-1] == "Averages of version 1"
    path = runs[0] / "eval_results.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    rows = list(csv.DictReader(io.StringIO(
        command("results", "aggregate", runs[0], "--format", "csv")[1]
    )))  # fmt: skip
    assert next(r for r in rows if r["name"] == "Average")["value"] == ""
    assert next(r for r in rows if r["name"] == "ImageNet")["value"] != ""
    assert command("results", "aggregate", runs[0], "--suite", "datacom")[0] == 2
