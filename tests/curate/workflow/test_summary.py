from datacomp.curate.workflow.summary import verdict


def row(name, mean, share, tied=()):
    average = {"mean": mean, "spread": 0.01}
    return {"name": name, "average": average, "share": share, "tied_with": list(tied)}


def test_a_win_is_called_a_win():
    rows = [row("clip", 0.5, 0.3), row("all", 0.4, 1.0)]
    assert verdict(rows) == (
        "Curation won: clip keeps 30% of the pool and is 0.100 ahead of the whole pool "
        "(0.500 against 0.400), by more than the spread of the seeds."
    )


def test_a_tie_is_called_a_tie():
    rows = [row("clip", 0.5, 0.3, ["all"]), row("all", 0.49, 1.0, ["clip"])]
    assert verdict(rows) == (
        "No clear winner: clip is 0.010 ahead of the whole pool (0.500 against 0.490), which is "
        "within the spread of the seeds."
    )


def test_a_loss_is_called_a_loss():
    rows = [row("all", 0.5, 1.0), row("clip", 0.4, 0.3)]
    assert verdict(rows) == (
        "Curation did not win: the whole pool (all) has the highest average, 0.500."
    )


def test_a_baseline_ahead_of_ties_is_no_winner():
    rows = [row("all", 0.5, 1.0, ["clip"]), row("clip", 0.4, 0.3, ["all"])]
    assert verdict(rows) == (
        "No clear winner: the whole pool (all) has the highest average, 0.500, but all others "
        "are within the spread of the seeds."
    )


def test_one_seed_tells_nothing():
    rows = [row("clip", 0.5, 0.3, ["all"]), row("all", 0.4, 1.0, ["clip"])]
    rows[0]["average"]["spread"] = None
    assert verdict(rows) == (
        "clip has the highest average, 0.500; with one seed each no spread is known, so nothing "
        "is called a difference."
    )


def test_without_a_baseline_nothing_is_compared():
    assert verdict([row("clip", 0.5, 0.3)]) == "clip has the highest average, 0.500."
