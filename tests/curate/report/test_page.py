import re

import pytest
from datacomp.curate.report import Sheet, Thumbnail, collect_sheets, write_report
from datacomp.curate.report.page import _defects, _merged
from datacomp.errors import DataError

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk"
    "+A8AAQUBAScY42YAAAAASUVORK5CYII="
)


@pytest.fixture
def page(tmp_path):
    return tmp_path / "report" / "index.html"


@pytest.fixture
def sheets():
    sample = Thumbnail("a" * 32, "a caption", "clean", PIXEL, 1, 1, (1, 1))
    return [
        Sheet("first", None, None, 900, (sample,)),
        Sheet("first", "basic_filter", "too_small", 5, (sample, Thumbnail("b" * 32))),
        Sheet("second", None, None, 0, ()),
    ]


def test_sections_and_headings(page, make_results, sheets, parse):
    write_report(page, make_results(["first", "second"]), sheets)
    tree = parse(page.read_text("utf-8"))
    assert tree.one("head").one("title").text == tree.one("h1").text == "A study"
    assert tree.one("p", "verdict").text == "Curation won: first is ahead."
    assert [h.text for h in tree.all("h2")] == [
        "Leaderboard", "Score and size", "Task by task", "What the filters dropped",
        "What the subsets consist of", "Samples", "How this was made",
    ]  # fmt: skip
    ids = [n.attributes["id"] for n in tree.walk() if "id" in n.attributes]
    assert len(ids) == len(set(ids))
    for link in tree.all("a"):
        assert link.attributes["href"][1:] in ids
    for section in tree.all("section"):
        assert section.attributes["aria-labelledby"] in ids
    assert [list(n.attributes) for n in tree.walk() if "style" in n.attributes] == []
    assert [a for n in tree.walk() for a in n.attributes if a.startswith("on")] == []


def test_the_page_asks_nobody_for_anything(page, make_results, sheets, parse):
    write_report(page, make_results(["first", "second"]), sheets)
    tree = parse(page.read_text("utf-8"))
    wanted = [
        value
        for node in tree.walk()
        for name, value in node.attributes.items()
        if name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href")
    ]
    assert wanted
    assert all(value.startswith(("#", "data:")) for value in wanted)
    assert not re.search(r"https?://|@import|url\(", page.read_text("utf-8"))


def test_same_results_same_bytes_and_nothing_half_written(page, make_results, sheets):
    write_report(page, make_results(["first", "second"]), sheets)
    before = page.read_bytes()
    write_report(page, make_results(["first", "second"]), sheets)
    assert page.read_bytes() == before
    assert [p.name for p in page.parent.iterdir()] == ["index.html"]


def test_rows_follow_the_rank(page, make_results, parse):
    results = make_results(["first", "second", "third"])
    results["datasets"].reverse()
    write_report(page, results, [])
    board = parse(page.read_text("utf-8")).one("table", id="board")
    assert [th.text for th in board.one("tbody").all("th")] == ["first", "second", "third"]


def test_charts_name_the_best_and_its_ties(page, make_results, parse):
    results = make_results(["first", "second", "third"])
    results["datasets"][0]["tied_with"] = ["second"]
    results["datasets"][1]["tied_with"] = ["first"]
    write_report(page, results, [])
    section = parse(page.read_text("utf-8")).one("section", id="size")
    wide = section.one("div", "wide")
    assert len(wide.all("g", "best")) == len(wide.all("g", "tied")) == 1
    assert len(wide.all("g", "mark")) == 3
    assert (
        wide.one("svg")
        .attributes["aria-label"]
        .startswith(
            "Average score against subset size: first: 0.901 ± 0.001 with 1,000 samples; second"
        )
    )
    assert [s.text for s in section.one("span", "keys").all("span")] == [
        "highest average", "tied with it", "others"
    ]  # fmt: skip


def test_every_task_has_a_chart(page, make_results, parse):
    write_report(page, make_results(["first", "second"], tasks=3), [])
    section = parse(page.read_text("utf-8")).one("section", id="tasks")
    assert [f.one("strong").text for f in section.all("figure")] == ["Task 0", "Task 1", "Task 2"]
    assert [len(f.all("line", "chance")) for f in section.all("figure")] == [1, 0, 1]
    assert [len(f.all("span", "badge")) for f in section.all("figure")] == [0, 0, 1]
    assert section.all("details") == []


def test_many_tasks_are_folded_by_group(page, make_results, parse):
    write_report(page, make_results(["first"], tasks=12, groups=3), [])
    folded = parse(page.read_text("utf-8")).one("section", id="tasks").all("details")
    assert [d.one("summary").text for d in folded] == [
        "group 0 4 tasks", "group 1 4 tasks", "group 2 4 tasks"
    ]  # fmt: skip
    assert ["open" in d.attributes for d in folded] == [True, False, False]


def test_funnel(page, make_results, parse):
    write_report(page, make_results(["first", "second"]), [])
    cards = parse(page.read_text("utf-8")).one("section", id="funnel").all("article")
    second = cards[1]
    assert second.one("h3").text == "second all must keep"
    assert [li.text for li in second.all("ul", "reasons")] == ["too small 35", "duplicate 5"]
    assert second.one("p", "outcome").text == "960 of 1,000 kept, 96.0 %"
    first_bar = second.all("svg", "bar")[0]
    assert [r.attributes["width"] for r in first_bar.all("rect")] == ["96.5", "3.5"]
    assert first_bar.attributes["aria-label"] == (
        "965 of 1,000 left after basic_filter:min_side=32"
    )


def test_composition(page, make_results, parse):
    write_report(page, make_results(["first", "second"]), [])
    section = parse(page.read_text("utf-8")).one("section", id="composition")
    assert [row.text for row in section.all("div", "row")] == [
        "the whole pool60.0 % clean", "first90.0 % clean", "second89.6 % clean"
    ]  # fmt: skip
    rows = [[c.text for c in tr.walk() if c.tag in ("td", "th")] for tr in section.all("tr")]
    assert rows == [
        ["dataset", "clean", "mismatched"], ["the whole pool", "600", "400"],
        ["first", "900", "100"], ["second", "860", "100"],
    ]  # fmt: skip


def test_more_defects_than_colours_become_other():
    counts = {"clean": 50, **{f"d{i}": 20 - i for i in range(9)}}
    order = _defects([counts])
    assert order == ["clean", "d0", "d1", "d2", "d3", "d4", "d5", "other"]
    merged = _merged(counts, order)
    assert list(merged) == order
    assert merged["other"] == 14 + 13 + 12
    assert sum(merged.values()) == sum(counts.values())


def test_samples(page, make_results, sheets, parse):
    write_report(page, make_results(["first", "second"]), sheets)
    section = parse(page.read_text("utf-8")).one("section", id="samples")
    assert [d.one("summary").text for d in section.all("details")] == [
        "first 2 sheets", "second 1 sheet"
    ]  # fmt: skip
    assert [h.text for h in section.all("h3")] == [
        "Kept 1 of 900", "Dropped: too small by basic_filter 2 of 5", "Kept 0 of 0"
    ]  # fmt: skip
    assert [img.attributes["src"] for img in section.all("img")] == [PIXEL, PIXEL]
    assert all(img.attributes["alt"] for img in section.all("img"))
    assert len(section.all("div", "broken")) == 1


def test_how_it_was_made(page, make_results, parse):
    write_report(page, make_results(["first"]), [])
    section = parse(page.read_text("utf-8")).one("section", id="making")
    facts = {d.one("dt").text: d.one("dd").text for d in section.one("dl").all("div")}
    assert facts == {
        "scale": "demo", "model": "tiny", "samples seen": "122,880", "batch size": "256",
        "seeds": "0, 1", "suite": "demo", "pool": "1,000 samples", "pool digest": "ab" * 32,
        "set aside": "3 broken image", "scored by": "–", "datacomp": "0.1.0",
    }  # fmt: skip
    assert "the standard deviation over the seeds" in section.one("p", "prose").text
    times = [[c.text for c in tr.walk() if c.tag in ("td", "th")] for tr in section.all("tr")]
    assert times[0][1:] == [
        "scoring", "filter", "shards", "train", "evaluate", "total", "used before"
    ]  # fmt: skip
    assert times[1] == [
        "first", "0.0 s", "1.0 s", "2.0 s", "1 min 00 s", "4.0 s", "1 min 07 s", "–"
    ]  # fmt: skip


def test_a_linked_pool_goes_by_its_files(page, make_results, parse):
    results = make_results(["first"])
    results["study"]["pool"]["files"] = results["study"]["pool"].pop("digest")
    write_report(page, results, [])
    section = parse(page.read_text("utf-8")).one("section", id="making")
    facts = {d.one("dt").text: d.one("dd").text for d in section.one("dl").all("div")}
    assert facts["digest of the pool's files"] == "ab" * 32
    assert "pool digest" not in facts


def test_the_least_there_can_be(page, make_results, parse):
    results = make_results(["only"], tasks=1, seeds=1, truth=False)
    results["study"]["pool"]["set_aside"] = {}
    write_report(page, results, [])
    tree = parse(page.read_text("utf-8"))
    assert tree.all("section", id="composition") == tree.all("section", id="samples") == []
    board = tree.one("table", id="board")
    assert "0.900 ± –" in [td.text for td in board.one("tbody").all("td")]
    assert "nothing" in tree.one("dl", "facts").text
    assert "nan" not in page.read_text("utf-8").split("<main>")[1]


def test_the_most_there_can_be(page, make_results, parse):
    names = [f"dataset_{i:02d}_".ljust(80, "x") for i in range(20)]
    write_report(page, make_results(names, tasks=38, seeds=3, groups=5), [])
    tree = parse(page.read_text("utf-8"))
    assert len(tree.one("table", id="board").one("tbody").all("tr")) == 20
    assert len(tree.one("section", id="tasks").all("figure")) == 38
    assert page.stat().st_size < 3_000_000


def test_strangers_text_stays_text(page, make_results, parse, hostile):
    shown = hostile.replace("\0", "\ufffd")
    results = make_results([hostile, "second"], tasks=2)
    results["study"]["name"] = results["verdict"] = results["study"]["suite"] = hostile
    results["study"]["scale"] = {"name": hostile, hostile: {hostile: hostile}}
    results["study"]["pool"]["set_aside"] = {hostile: 1}
    results["tasks"][0]["name"] = results["tasks"][0]["group"] = hostile
    row = results["datasets"][0]
    row["filters"] = [hostile, hostile]
    row["funnel"][0]["filter"], row["funnel"][0]["reasons"] = hostile, {hostile: 3}
    row["kept_defects"] = {hostile: 3}
    results["datasets"][1]["tied_with"] = [hostile]
    sheet = Sheet(hostile, hostile, hostile, 1, (Thumbnail("a" * 32, hostile, hostile, PIXEL),))
    write_report(page, results, [sheet])
    tree = parse(page.read_text("utf-8"))
    assert len(tree.all("script")) == 1
    assert tree.one("script").text.startswith("// Sorts the tables of the leaderboard")
    assert tree.one("head").one("title").text == shown
    assert tree.one("table", id="board").one("tbody").all("th")[0].text == shown


def test_scores_that_are_missing(page, make_results, parse):
    results = make_results(["first", "second"])
    results["datasets"][1]["scores"]["t0"] = {"mean": None, "spread": None, "values": []}
    del results["datasets"][0]["scores"]["t1"]
    write_report(page, results, [])
    figures = parse(page.read_text("utf-8")).one("section", id="tasks").all("figure")
    assert [t.text for t in figures[0].all("text", "value")] == ["0.901", "–"]
    assert [t.text for t in figures[1].all("text", "value")] == ["–", "0.861"]


def test_results_of_another_format_or_with_something_missing(page, make_results):
    with pytest.raises(DataError) as caught:
        write_report(page, {"format": "other", "version": 3}, [])
    assert str(caught.value) == (
        f"{page}: cannot report 'other' version 3; expected 'datacomp-results' version 1"
    )
    results = make_results(["first"])
    del results["datasets"][0]["size"]
    with pytest.raises(DataError) as caught:
        write_report(page, results, [])
    assert str(caught.value) == (
        f"{page}: the results lack 'size'; run the study again to make them whole"
    )
    assert not page.exists()


def test_sheets_of_a_real_pool(pool, chosen, page, make_results, parse):
    uids = [r[0] for r in pool.sql("SELECT printf('%032x', uid) FROM samples").fetchall()]
    dataset = chosen("first", uids[:30], [(uid, "f", "too_small") for uid in uids[30:]])
    write_report(page, make_results(["first"]), collect_sheets(pool, [dataset], per_sheet=50))
    section = parse(page.read_text("utf-8")).one("section", id="samples")
    assert len(section.all("figure")) == 45
    assert len(section.all("img")) == 42
