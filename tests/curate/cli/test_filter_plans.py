"""``datacomp filter``: plans, negation, comparison and assets on the command line."""

import json

import pytest


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def pool(pool_of):
    texts = ["a wide picture here", "a tall one", "no", "one more of it", "the very last one"]
    made = pool_of(text=texts, width=[900, 200, 300, 300, 300], height=[200, 900, 300, 300, 300])
    made.close()
    return made.path


def test_a_plan_is_printed_and_nothing_written(command, pool, tmp_path):
    code, out, _ = command("filter", "run", pool, "language", "not", "image_size", "--explain")
    assert code == 0
    first, second = out.split("\n2. ")
    assert first.startswith(
        "5 samples; filters in this order, joined by 'and':\n"
        "\n1. not image_size\n"
        "   drop as excluded unless NOT ("
    )
    assert second == (
        "language\n"
        "   score language from columns text: at most 2 samples, 0 scored already; "
        "not measured yet\n"
        "   drop as no_caption unless text <> ''\n"
        "   the rest is decided once the scores are there\n"
        "\nAll decisions together are one scan of 5 samples, after those that fractions "
        "and duplicates need.\n"
    )
    code, out, _ = command("filter", "run", pool, "image_size", "--explain", "--json")
    plan = json.loads(out)
    assert (plan["samples"], plan["combine"]) == (5, "and")
    assert [one["filter"] for one in plan["filters"]] == ["image_size"]
    subset = tmp_path / "a.npy"
    code, _, err = command("filter", "run", pool, "image_size", "--explain", "-o", subset)
    assert (code, err) == (0, "warning: --explain writes nothing: no subset, no reasons\n")
    assert not subset.exists()
    assert command("filter", "run", pool, "no_filter") == (
        2, "", "error: give -o NAME.npy, where the subset goes, or --explain\n",
    )  # fmt: skip


def test_a_plan_says_what_scorers_of_the_kind_took_before(command, pool, tmp_path):
    speeds = tmp_path / "cache/datacomp/speeds.json"
    speeds.parent.mkdir(parents=True)
    speeds.write_text('{"datacomp.filters.language.LanguageScorer": 30.0}')
    _, out, _ = command("filter", "run", pool, "language", "--explain")
    assert "at most 5 samples, 0 scored already; 2 min 30 s\n" in out


def test_groups_are_planned_and_run(command, pool, tmp_path):
    words = ("not", "(", "image_size", "or", "language", ")", "and", "caption_length:min_words=2")
    code, out, _ = command("filter", "run", pool, *words, "--explain")
    assert code == 0
    assert out.startswith(
        "5 samples; filters in this order, joined by 'and':\n\n1. caption_length:min_words=2\n"
    )
    group = "2. not (image_size or language)\n   the following, joined by 'or'\n"
    assert f"\n\n{group}\n2.1. image_size\n" in out
    assert out.endswith(
        "\n\n2.2. language\n"
        "   score language from columns text: at most 2 samples, 0 scored already; "
        "not measured yet\n"
        "   drop as no_caption unless text <> ''\n"
        "   the rest is decided once the scores are there\n"
        "\nAll decisions together are one scan of 5 samples, after those that fractions "
        "and duplicates need.\n"
    )
    out_file = tmp_path / "a.npy"
    code, out, _ = command("filter", "run", pool, *words[1:], "-o", out_file, "--json")
    report = json.loads(out)
    assert (code, report["pipeline"]["filters"], report["funnel"][-1]["after"]) == (
        0, ["(image_size or language)", "caption_length:min_words=2"], 4,
    )  # fmt: skip
    assert command("filter", "run", pool, "(", "no_filter", "-o", out_file) == (
        2, "", "error: '(' opens what no ')' closes\n",
    )  # fmt: skip


def test_filters_are_negated_and_results_compared(command, pool, tmp_path):
    a, b = tmp_path / "a.npy", tmp_path / "b.npy"
    reasons = tmp_path / "a.reasons.parquet"
    assert command("filter", "run", pool, "image_size", "-o", a, "--reasons", reasons)[0] == 0
    words = ("no_filter", "caption_length:min_words=4", "--combine", "minus")
    assert command("filter", "run", pool, *words, "-o", b)[0] == 0
    code, out, _ = command("filter", "compare", a, b)
    assert code == 0
    assert out == (
        "subset  uids  in both  only here\n"
        "------  ----  -------  ---------\n"
        "a          3        1          2\n"
        "b          2        1          1\n"
        "overlap: 25.0% of all that either has\n"
        "\nwhat a dropped and b has:\n"
        "uids  reason          filter\n"
        "----  --------------  ----------\n"
        "   1  extreme_aspect  image_size\n"
    )
    page = tmp_path / "page.html"
    code, out, _ = command("filter", "compare", a, b, "--pool", pool, "-o", page, "--json")
    assert json.loads(out)["only_b"]["count"] == 1
    assert page.read_text().startswith("<!doctype html>")
    assert command("filter", "compare", a, b, "-o", page) == (
        2, "", "error: a page shows samples: give --pool too\n",
    )  # fmt: skip


def test_assets_are_listed_and_must_go_somewhere(command):
    code, out, _ = command("filter", "assets")
    assert code == 0
    assert "fasttext_lid: fastText's language model lid.176.bin (126 MB, CC BY-SA 3.0); " in out
    found = json.loads(command("filter", "assets", "--json")[1])
    assert [one["download"] for one in found if one["name"] in ("fasttext_lid", "wordnet")] == [
        True, False,
    ]  # fmt: skip
    assert command("filter", "assets", "fasttext_lid")[2] == (
        "error: give -o DIR, the folder to download fasttext_lid into\n"
    )
