"""Filters that are negated, taken away, weighted or judged out of turn; the plan of a run."""

import pyarrow.parquet as pq
import pytest
from datacomp.errors import UsageError
from datacomp.filters import Decision, Filter, FilterSpec, Scorer, parse, run_filters
from datacomp.filters.captions.wfpp import Wfpp
from datacomp.filters.expression import parse_all
from datacomp.filters.plan import FilterPlan, ScorerPlan, explain
from datacomp.pools.uids import to_hex


class LengthScorer(Scorer):
    """Notes what it is asked to score."""

    name = "length"
    type = "INTEGER"
    columns = ("text",)
    batch_size = 2
    seen: list[str] = []  # noqa: RUF012
    told: list[int] = []  # noqa: RUF012

    def identity(self):
        return {}

    def expect(self, total):
        self.told.append(total)

    def score(self, batch):
        self.seen.extend(batch.columns["text"].to_pylist())
        return [len(text) for text in batch.columns["text"].to_pylist()]


class Length(Filter):
    """Keep long captions."""

    min: int = 3

    def scorers(self):
        return [LengthScorer()]

    def before_scoring(self, view):
        return [Decision("none", "text <> ''")]

    def decide(self, view):
        return [
            *self.before_scoring(view),
            Decision("short", f"{view.score(LengthScorer())} >= {self.min}"),
        ]


class Wide(Filter):
    """Keep what is wide."""

    min: int = 2

    def decide(self, view):
        return [Decision("narrow", f"width >= {self.min}")]


class Widest(Wide):
    """Keep the widest."""

    set_level = True

    def decide(self, view):
        return [
            Decision(
                "not_widest", f"width >= {view.scalar(f'SELECT max(width) FROM {view.relation}')}"
            )
        ]


class Often(Wide):
    """See what is wide more often."""

    def decide(self, view):
        return []

    def weight(self, view):
        return f"greatest(width - {self.min}, 0)"


KNOWN = {c.__name__: c for c in (Length, Wide, Widest, Often, Wfpp)}


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    monkeypatch.setattr(FilterSpec, "make", lambda spec: KNOWN[spec.use](**spec.parameters))
    LengthScorer.seen.clear()
    LengthScorer.told.clear()


@pytest.fixture
def pool(pool_of):
    return pool_of(text=["a", "bb", "ccc", "dddd", ""], width=[3, 1, 1, 4, None])


def kept(chosen):
    return [int(uid, 16) for uid in to_hex(chosen.uids)]


def funnel(chosen):
    return [(step.filter, step.before, step.after, step.reasons) for step in chosen.steps]


def test_a_negated_filter_keeps_what_it_would_drop(pool):
    for text in ("Wide", "Length", "Widest"):
        plain, negated = (
            kept(run_filters(pool, parse_all(words).filters)) for words in ([text], ["not", text])
        )
        assert sorted(plain + negated) == [0, 1, 2, 3, 4]
        twice = run_filters(pool, parse_all(["not", "not", text]).filters)
        assert kept(twice) == plain
    assert funnel(run_filters(pool, parse_all(["not", "Length:min=4"]).filters)) == [
        ("not Length:min=4", 5, 4, {"excluded": 1})
    ]


def test_not_is_a_word_of_its_own_or_stands_in_a_label():
    (spec,) = parse_all(["not Wide:min=3"]).filters
    assert (spec.use, spec.parameters, spec.negated, spec.label()) == (
        "Wide", {"min": 3}, True, "not Wide:min=3",
    )  # fmt: skip
    assert parse("notable").use == "notable"
    with pytest.raises(UsageError) as caught:
        parse_all(["Wide", "not"])
    assert str(caught.value) == "'not' stands before a filter, but none comes after it"


def test_minus_takes_away_what_later_filters_keep(pool):
    chosen = run_filters(
        pool, [parse("Wide:min=1"), parse("Wide:min=4"), parse("Length:min=3")], "minus"
    )
    assert kept(chosen) == [0, 1]
    assert funnel(chosen) == [
        ("Wide:min=1", 5, 4, {"narrow": 1}),
        ("not Wide:min=4", 4, 3, {"excluded": 1}),
        ("not Length:min=3", 3, 2, {"excluded": 1}),
    ]
    assert kept(run_filters(pool, [parse("Wide"), parse("not Length:min=3")], "minus")) == [3]


def test_a_chain_can_hold_a_negated_filter(pool):
    chosen = run_filters(pool, parse_all(["not", "Widest", "Widest"]).filters, "then")
    assert kept(chosen) == [0]


def test_what_is_cheap_is_judged_first_and_spares_the_scorer(pool):
    chosen = run_filters(pool, [parse("Length"), parse("Wide")])
    assert kept(chosen) == [3]
    assert [step.filter for step in chosen.steps] == ["Wide", "Length"]
    assert sorted(LengthScorer.seen) == ["a", "dddd"]
    assert kept(run_filters(pool, [parse("Length"), parse("Wide")], "or")) == [0, 2, 3]
    # What 'or' keeps already needs no score; a caption that is none is not scored either.
    assert sorted(LengthScorer.seen) == ["a", "bb", "ccc", "dddd"]
    chained = run_filters(pool, [parse("Length"), parse("Wide")], "then")
    assert [step.filter for step in chained.steps] == ["Length", "Wide"]


def test_a_scorer_hears_how_much_may_come(pool):
    run_filters(pool, [parse("Length")])
    assert LengthScorer.told == [5]


def test_weights_say_how_often_a_sample_is_seen(pool, tmp_path):
    for reasons in (None, tmp_path / "why.parquet"):
        chosen = run_filters(pool, [parse("Often:min=1"), parse("Length:min=1")], reasons=reasons)
        assert kept(chosen) == [0, 0, 3, 3, 3]
        assert (chosen.kept, chosen.total) == (2, 5)
        assert chosen.funnel() == [
            {"filter": "Often:min=1", "before": 5, "after": 2, "reasons": {"not_drawn": 3}},
            {"filter": "Length:min=1", "before": 2, "after": 2, "reasons": {}, "seen": 5},
        ]
    rows = pq.read_table(tmp_path / "why.parquet").to_pylist()
    assert [(int(row["uid"], 16), row["reason"]) for row in rows] == [
        (1, "not_drawn"), (2, "not_drawn"), (4, "not_drawn"),
    ]  # fmt: skip
    for words, combine in (
        (["not", "Often"], "and"),
        (["Often", "Wide"], "or"),
        (["Often", "Often"], "and"),
    ):
        with pytest.raises(
            UsageError, match="filter Often says how often samples are to be seen; "
        ):
            run_filters(pool, parse_all(words).filters, combine)


def test_reasons_and_counts_are_the_same_however_they_are_found(pool, tmp_path):
    """Rules on numbers are decided twice, others once, and with reasons by way of a table."""
    specs = [parse("Wide"), parse("Length:min=4")]
    for combine in ("and", "or", "then", "minus"):
        plain = run_filters(pool, specs, combine)
        told = run_filters(pool, specs, combine, tmp_path / "why.parquet")
        assert (kept(plain), funnel(plain)) == (kept(told), funnel(told))
        assert pq.read_metadata(tmp_path / "why.parquet").num_rows == 5 - plain.kept


def test_no_reasons_are_a_list_without_rows(pool, tmp_path):
    run_filters(pool, [parse("Wide:min=0"), parse("Length:min=0")], "or", tmp_path / "why.parquet")
    run_filters(pool, [parse("not Wide:min=9")], reasons=tmp_path / "none.parquet")
    found = pq.read_table(tmp_path / "none.parquet")
    assert (found.num_rows, found.column_names) == (0, ["uid", "filter", "reason"])


# -- the plan ------------------------------------------------------------------------------------


def test_a_plan_scores_nothing_and_says_what_would_be_done(pool):
    plan = explain(pool, [parse("Length"), parse("Wide")])
    assert LengthScorer.seen == []
    assert (plan.samples, plan.combine) == (5, "and")
    assert plan.filters == [
        FilterPlan("Wide", [], [("narrow", "width >= 2")]),
        FilterPlan("Length", [ScorerPlan("length", "columns text", 2, 0, None)],
                   [("none", "text <> ''")], known=False),
    ]  # fmt: skip
    run_filters(pool, [parse("Length"), parse("Wide")])
    (scorer,) = explain(pool, [parse("Length")]).filters[0].scorers
    assert (scorer.samples, scorer.scored) == (4, 2)
    assert scorer.seconds is not None
    assert 0 < scorer.seconds < 60


def test_a_plan_of_a_chain_leaves_open_what_depends_on_scores(pool):
    plan = explain(pool, [parse("Wide:min=1"), parse("Length"), parse("Widest")], "then")
    assert [(one.filter, one.known) for one in plan.filters] == [
        ("Wide:min=1", True), ("Length", False), ("Widest", False),
    ]  # fmt: skip
    first, second = explain(pool, [parse("Widest"), parse("Wfpp:fraction=0.5")], "then").filters
    assert [reason for reason, _ in first.decisions] == ["not_widest"]
    assert not any("kept_" in predicate for _, predicate in first.decisions)
    assert second.scorers[0].samples == 1  # what the first left, though it looks at all of that
    with pytest.raises(UsageError, match="combine is 'nand'"):
        explain(pool, [parse("Wide")], "nand")
