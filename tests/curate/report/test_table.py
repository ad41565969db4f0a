from datacomp.curate.report.table import leaderboard, places


def row(name, rank, tied=()):
    return {"name": name, "rank": rank, "tied_with": list(tied)}


def test_places_of_distinct_datasets():
    assert places([row("a", 1), row("b", 2)]) == {"a": (1, False), "b": (2, False)}


def test_a_tie_need_not_be_transitive():
    found = places([row("a", 1, ["b"]), row("b", 2, ["a", "c"]), row("c", 3, ["b"])])
    assert found == {"a": (1, True), "b": (1, True), "c": (2, True)}


def cells(page, title):
    """Return the cells of a column, in whichever of the tables it stands first."""
    table = next(
        t for t in ([page] if page.tag == "table" else page.all("table"))
        if title in [b.text for b in t.all("button")]
    )  # fmt: skip
    heads = [th.one("button").text for th in table.one("thead").all("tr")[-1].all("th")]
    at = heads.index(title)
    return [
        [c for c in tr.walk() if c.tag in ("td", "th")][at] for tr in table.one("tbody").all("tr")
    ]


def test_rows_and_headings(parse, make_results):
    page = parse(leaderboard(make_results(["first", "second"])))
    table = page.one("table", id="board")
    heads = [b.text for b in table.all("button")]
    assert heads == ["Rank", "Dataset", "Average", "Size", "Share", "Precision", "Recall", "Time",
                     "Filters"]  # fmt: skip
    scores = page.one("table", id="scores")
    assert [b.text for b in scores.all("button")] == ["Dataset", "Task 0", "Task 1"]
    assert [c.text for c in cells(scores, "Dataset")] == ["first", "second"]
    assert [c.text for c in cells(table, "Rank")] == ["1", "2"]
    assert [c.text for c in cells(table, "Dataset")] == ["first", "second"]
    assert {(c.tag, c.attributes["scope"]) for c in cells(table, "Dataset")} == {("th", "row")}
    assert [c.text for c in cells(table, "Average")] == ["0.901 ± 0.001", "0.871 ± 0.001"]
    assert [c.text for c in cells(table, "Size")] == ["1,000", "960"]
    assert [c.text for c in cells(table, "Share")] == ["100.0 %", "96.0 %"]
    assert cells(table, "Filters")[0].text == "basic_filter:min_side=32 and exact_dedup"
    assert [c.text for c in cells(table, "Time")] == ["1 min 07 s", "1 min 08 s"]
    assert table.one("caption").text == (
        "Headings sort the table. Bold: the best of a column and what ties with it, unless all do."
    )


def test_the_best_of_a_column_is_bold(parse, make_results):
    table = parse(leaderboard(make_results(["first", "second"])))

    def bold(title):
        return [len(c.all("b")) for c in cells(table, title)]

    assert bold("Average") == [1, 0]
    assert bold("Precision") == [0, 1]
    assert bold("Recall") == [1, 0]
    assert bold("Task 1") == [1, 0]
    assert bold("Size") == [0, 0]


def test_all_that_tie_with_the_best_are_bold(parse, make_results):
    results = make_results(["first", "second", "third"])
    results["tasks"][0]["best"] = ["first", "third"]
    results["tasks"][1]["best"] = []  # all tie
    for row, tied in zip(results["datasets"], (["second"], ["first"], []), strict=True):
        row["tied_with"] = tied
    table = parse(leaderboard(results))
    assert [len(c.all("b")) for c in cells(table, "Task 0")] == [1, 0, 1]
    assert [len(c.all("b")) for c in cells(table, "Task 1")] == [0, 0, 0]
    assert [len(c.all("b")) for c in cells(table, "Average")] == [1, 1, 0]
    results["datasets"][0]["tied_with"] = ["second", "third"]
    results["datasets"][2]["tied_with"] = ["first"]
    table = parse(leaderboard(results))
    assert [len(c.all("b")) for c in cells(table, "Average")] == [0, 0, 0]


def test_the_time_names_the_run_that_scored(parse, make_results):
    results = make_results(["first", "second"])
    results["datasets"][1]["used"] = {"runs": ["first-seed0"], "seconds": 30.0}
    page = parse(leaderboard(results))
    times = cells(page, "Time")
    assert [c.text for c in times] == ["1 min 07 s", "1 min 08 s + 30 s for first-seed0"]
    assert [c.attributes["data-value"] for c in times] == ["67.0", "98.0"]
    assert page.all("p", "note")[-1].text.startswith("Time is that of the dataset’s own stages")


def test_equal_scores_are_all_best_and_a_single_one_is_not(parse, make_results):
    results = make_results(["first", "second"])
    results["datasets"][1]["precision"] = results["datasets"][0]["precision"]
    table = parse(leaderboard(results))
    assert [len(c.all("b")) for c in cells(table, "Precision")] == [1, 1]
    page = parse(leaderboard(make_results(["alone"])))
    assert [body.all("b") for body in page.all("tbody")] == [[], []]


def test_ties_are_shown_as_ties(parse, make_results):
    results = make_results(["first", "second", "third"])
    results["datasets"][0]["tied_with"] = ["second"]
    results["datasets"][1]["tied_with"] = ["first"]
    page = parse(leaderboard(results))
    ranks = cells(page, "Rank")
    assert [c.text for c in ranks] == ["1= tied with second", "1= tied with first", "3"]
    assert ranks[0].one("span", "unseen").text == " tied with second"
    assert page.one("p", "note").text.startswith("“=” marks a tie")
    assert [li.text for li in page.one("details").all("li")] == [
        "first with second",
        "second with first",
    ]


def test_without_ties_there_is_no_note_of_them(parse, make_results):
    page = parse(leaderboard(make_results(["first", "second"])))
    assert page.all("p", "note") == []
    assert page.all("details") == []


def test_one_seed_has_no_spread(parse, make_results):
    table = parse(leaderboard(make_results(["first", "second"], seeds=1)))
    assert cells(table, "Average")[0].text == "0.900 ± –"


def test_what_is_not_known_is_a_dash_and_sorts_last(parse, make_results):
    results = make_results(["first", "second"])
    del results["datasets"][1]["scores"]["t0"]
    results["datasets"][0]["precision"] = None
    table = parse(leaderboard(results))
    assert [c.text for c in cells(table, "Task 0")] == ["0.901 ± 0.001", "–"]
    assert [c.attributes["data-value"] for c in cells(table, "Task 0")] == ["0.901", ""]
    assert [c.text for c in cells(table, "Precision")] == ["–", "0.510"]
    assert table.all("b")[0].text == "0.901 ± 0.001"


def test_without_truth_there_is_no_precision(parse, make_results):
    table = parse(leaderboard(make_results(["first"], truth=False)))
    assert "Precision" not in [b.text for b in table.all("button")]


def test_chance_and_near_chance(parse, make_results):
    page = parse(leaderboard(make_results(["first"], tasks=3)))
    foot = page.one("tfoot")
    assert [c.text for c in foot.walk() if c.tag in ("td", "th")] == [
        "chance",
        "0.100",
        "",
        "0.100",
    ]
    heads = page.one("table", id="scores").one("thead").all("th")
    assert [h.one("small").text for h in heads if h.all("small")] == [
        "acc1chance 0.100", "acc1", "acc1chance 0.100near chance"
    ]  # fmt: skip
    assert page.one("p", "note").text.endswith("on these tasks say little (Task 2).")


def test_groups_get_a_row_of_their_own(parse, make_results):
    page = parse(leaderboard(make_results(["first"], tasks=6, groups=2)))
    row = page.one("table", id="scores").one("thead").all("tr")[0]
    assert [(th.text, th.attributes["colspan"]) for th in row.all("th")] == [
        ("group 0", "3"), ("group 1", "3")
    ]  # fmt: skip
    ungrouped = parse(leaderboard(make_results(["first"], tasks=6)))
    assert [len(head.all("tr")) for head in ungrouped.all("thead")] == [1, 1]


def test_only_the_rank_is_marked_as_sorted(parse, make_results):
    page = parse(leaderboard(make_results(["first", "second"])))
    sorted_ = {
        th.one("button").text: th.attributes["aria-sort"]
        for th in page.all("th", scope="col")
        if "aria-sort" in th.attributes
    }
    assert sorted_ == {"Rank": "ascending"}
    regions = page.all("div", "scroll", role="region")
    assert [region.attributes["tabindex"] for region in regions] == ["0", "0"]
    named = [region.attributes["aria-label"] for region in regions]
    assert named == ["Leaderboard", "Scores on each task"]
