"""Groups of filters within each other: as words, in the engine, and in the plan."""

import operator
from functools import reduce

import pyarrow.parquet as pq
import pytest
from datacomp.errors import UsageError
from datacomp.filters import (
    Decision,
    Filter,
    FilterGroup,
    FilterSpec,
    Scorer,
    parse,
    run_filters,
)
from datacomp.filters.expression import MOST_DEEP, leaves_of, parse_all
from datacomp.filters.plan import explain
from datacomp.pools import Pool
from datacomp.pools.uids import to_hex
from hypothesis import given, settings
from hypothesis import strategies as st

WIDTHS = [3, 1, 1, 4, None, 2, 4]
TEXTS = ["a", "bb", "ccc", "dddd", "", "ff", "g"]


class LengthScorer(Scorer):
    name = "length"
    type = "INTEGER"
    columns = ("text",)

    def identity(self):
        return {}

    def score(self, batch):
        return [len(text) for text in batch.columns["text"].to_pylist()]


class Length(Filter):
    """Keep long captions."""

    min: int = 3

    def scorers(self):
        return [LengthScorer()]

    def before_scoring(self, view):
        return [Decision("none", "text <> ''")]

    def decide(self, view):
        length = view.score(LengthScorer())
        return [*self.before_scoring(view), Decision("short", f"{length} >= {self.min}")]


class Wide(Filter):
    """Keep what is wide."""

    min: int = 2

    def decide(self, view):
        return [Decision("narrow", f"width >= {self.min}")]


class Widest(Filter):
    """Keep the widest."""

    set_level = True

    def decide(self, view):
        most = view.scalar(f"SELECT max(width) FROM {view.relation}")
        return [Decision("not_widest", "false" if most is None else f"width >= {most}")]


class Last(Filter):
    """Keep the two last ones, by looking at all rows."""

    set_level = True

    def decide(self, view):
        return [Decision("early", "row_number() OVER (ORDER BY uid DESC) <= 2")]


class Often(Filter):
    """See what is wide more often."""

    def decide(self, view):
        return []

    def weight(self, view):
        return "width"


KNOWN = {c.__name__: c for c in (Length, Wide, Widest, Last, Often)}


@pytest.fixture(autouse=True, scope="module")
def _known():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FilterSpec, "make", lambda spec: KNOWN[spec.use](**spec.parameters))
        yield


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    with Pool.create(tmp_path_factory.mktemp("groups") / "pool.duckdb") as pool:
        for uid, (text, width) in enumerate(zip(TEXTS, WIDTHS, strict=True)):
            pool.sql(
                "INSERT INTO samples (uid, url, text, width) VALUES (?, ?, ?, ?)",
                [uid, f"u{uid}", text, width],
            )
        yield pool


def read(words, combine=None):
    return parse_all(words.split(), combine)


def kept(chosen):
    return {int(uid, 16) for uid in to_hex(chosen.uids)}


# -- words ---------------------------------------------------------------------------------------


def test_words_join_filters_in_groups():
    group = read("a and not ( b:x=1 or not c ) and d")
    assert group == FilterGroup(
        (
            parse("a"),
            FilterGroup((parse("b:x=1"), parse("not c")), "or", negated=True),
            parse("d"),
        )
    )
    assert group.label() == "(a and not (b:x=1 or not c) and d)"
    assert [leaf.label() for leaf in group.leaves()] == ["a", "b:x=1", "not c", "d"]
    assert read("a b", "then") == FilterGroup((parse("a"), parse("b")), "then")
    assert read("not ( not ( a ) )").filters == (parse("a"),)
    assert read("( a or b ) minus c").combine == "minus"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("a and b or c", "'or' joins filters where 'and' does already; put some of them in "
         "'(' and ')'"),
        ("a b or c", "'or' joins filters where 'and' does already; put some of them in "
         "'(' and ')'"),
        ("and a", "'and' joins filters, but none comes before it"),
        ("a and", "a filter must come after the word that joins it"),
        ("a and ( or b )", "'or' joins filters, but none comes before it"),
        ("a ( )", "no filter between '(' and ')'"),
        ("( a", "'(' opens what no ')' closes"),
        ("a )", "')' closes what no '(' opens"),
        ("( a not )", "'not' stands before a filter, but none comes after it"),
        ("", "no filter given; 'no_filter' keeps everything"),
        ("( " * 17 + "a" + " )" * 17, "more than 16 groups of filters stand within each other"),
    ],
)  # fmt: skip
def test_words_that_say_no_expression(words, message):
    with pytest.raises(UsageError) as caught:
        read(words)
    assert str(caught.value) == message


def test_an_option_and_the_words_must_agree():
    assert parse_all(["a", "or", "b"], "or").combine == "or"
    with pytest.raises(UsageError, match="'or' joins filters where 'and' does already"):
        parse_all(["a", "or", "b"], "and")
    with pytest.raises(UsageError, match="combine is 'xor'"):
        parse_all(["a"], "xor")


# -- the engine, held against sets ----------------------------------------------------------------


def plain(spec, scope):
    least = spec.parameters.get("min")
    if spec.use == "Wide":
        return {n for n in scope if WIDTHS[n] is not None and WIDTHS[n] >= (least or 2)}
    if spec.use == "Length":
        return {n for n in scope if TEXTS[n] and len(TEXTS[n]) >= (least or 3)}
    if spec.use == "Last":
        return set(sorted(scope)[-2:])
    most = max((WIDTHS[n] for n in scope if WIDTHS[n] is not None), default=None)
    return {n for n in scope if most is not None and WIDTHS[n] == most}


def of(node, scope):
    """Return what a node keeps of a scope, by the definition of each word."""
    if isinstance(node, FilterSpec):
        found = plain(node, scope)
    elif node.combine == "then":
        found = reduce(lambda left, member: of(member, left), node.filters, scope)
    else:
        join = {"and": operator.and_, "or": operator.or_, "minus": operator.sub}[node.combine]
        found = reduce(join, [of(member, scope) for member in node.filters])
    return scope - found if node.negated else found


LEAVES = st.builds(
    FilterSpec,
    use=st.sampled_from(["Wide", "Length", "Widest", "Last"]),
    negated=st.booleans(),
)
GROUPS = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        FilterGroup,
        st.lists(inner, min_size=1, max_size=3).map(tuple),
        st.sampled_from(["and", "or", "then", "minus"]),
        st.booleans(),
    ),
    max_leaves=7,
)


@settings(max_examples=40, deadline=None)
@given(node=GROUPS)
def test_any_expression_keeps_what_its_words_say(pool, node, tmp_path_factory):
    everything = set(range(len(WIDTHS)))
    nodes, combine = (
        (node.filters, node.combine)
        if isinstance(node, FilterGroup) and not node.negated
        else ([node], "and")
    )
    expected = of(node, everything)
    explain(pool, nodes, combine)
    chosen = run_filters(pool, nodes, combine)
    assert kept(chosen) == expected
    assert chosen.kept == len(expected)
    assert chosen.steps[0].before == len(everything)
    why = tmp_path_factory.mktemp("why") / "why.parquet"
    told = run_filters(pool, nodes, combine, why)
    assert (kept(told), told.steps) == (expected, chosen.steps)
    dropped = {int(uid, 16) for uid in pq.read_table(why)["uid"].to_pylist()}
    assert dropped == everything - expected


def test_a_group_drops_for_the_reasons_of_its_filters(pool, tmp_path):
    why = tmp_path / "why.parquet"
    words = "Wide:min=1 and ( Length:min=4 or Wide:min=3 )"
    chosen = run_filters(pool, read(words).filters, "and", why)
    assert chosen.funnel() == [
        {"filter": "Wide:min=1", "before": 7, "after": 6, "reasons": {"narrow": 1}},
        {"filter": "(Length:min=4 or Wide:min=3)", "before": 6, "after": 3,
         "reasons": {"narrow": 3}},
    ]  # fmt: skip
    rows = pq.read_table(why).to_pylist()
    assert [(int(row["uid"], 16), row["filter"], row["reason"]) for row in rows] == [
        (1, "Wide:min=3", "narrow"),
        (2, "Wide:min=3", "narrow"),
        (4, "Wide:min=1", "narrow"),
        (5, "Wide:min=3", "narrow"),
    ]
    negated = run_filters(pool, read("not ( Wide or Length )").filters)
    assert negated.funnel() == [
        {"filter": "not (Wide or Length)", "before": 7, "after": 2, "reasons": {"excluded": 5}}
    ]


def test_a_group_spares_scorers_what_its_neighbours_decided(pool_of):
    pool = pool_of(text=TEXTS, width=WIDTHS)
    nodes = read("Wide:min=3 and ( Wide:min=4 or Length:min=1 )").filters
    plan = explain(pool, nodes)
    (first, second) = plan.filters
    assert (first.filter, second.filter, second.known) == (
        "Wide:min=3", "(Wide:min=4 or Length:min=1)", False,
    )  # fmt: skip
    assert [member.filter for member in second.members] == ["Wide:min=4", "Length:min=1"]
    # Of the three that are wide enough, two are kept already without a score.
    assert second.members[1].scorers[0].samples == 1
    run_filters(pool, nodes)
    (table,) = pool.sql("SELECT values_table FROM scores").fetchone()
    assert pool.scalar(f"SELECT count(*) FROM {table}") == 1


def test_weights_pass_through_groups_that_only_drop(pool):
    chosen = run_filters(pool, read("Wide:min=4 and ( Often then Length )").filters)
    assert sorted(int(uid, 16) for uid in to_hex(chosen.uids)) == [3, 3, 3, 3]
    for words in ("Wide or ( Often and Length )", "Wide and not ( Often )",
                  "( Often ) and Often", "( Wide or Often ) and Length"):  # fmt: skip
        group = read(words)
        with pytest.raises(UsageError, match="says how often samples are to be seen"):
            run_filters(pool, group.filters, group.combine)


def test_groups_are_checked_like_the_whole(pool):
    with pytest.raises(UsageError, match="no filter given"):
        run_filters(pool, [FilterGroup(())])
    with pytest.raises(UsageError, match="combine is 'nor'"):
        run_filters(pool, [FilterGroup((parse("Wide"),), "nor")])
    deep = parse("Wide")
    for _ in range(MOST_DEEP + 1):
        deep = FilterGroup((deep,))
    with pytest.raises(UsageError, match="more than 16 groups of filters"):
        run_filters(pool, [deep])
    assert list(leaves_of([deep])) == [parse("Wide")]
