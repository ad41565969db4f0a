from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from datacomp.errors import DataError, MissingError, RunError, UsageError
from datacomp.filters import Decision, Filter, FilterSpec, Scorer, parse, run_filters
from datacomp.filters.expression import Prepared
from datacomp.filters.judging import Engine, Frame
from datacomp.pools import Pool
from datacomp.pools.uids import to_hex
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


class LengthScorer(Scorer):
    """Counts what it is asked to score."""

    name = "length"
    type = "INTEGER"
    columns = ("text",)
    batch_size = 3
    seen: list[str] = []  # noqa: RUF012

    def identity(self):
        return {"unit": "characters"}

    def score(self, batch):
        texts = batch.columns["text"].to_pylist()
        assert len(texts) == len(batch) <= 3
        self.seen.extend(texts)
        return [len(text) for text in texts]


class Length(Filter):
    """Keep long captions."""

    min: int = 4

    def scorers(self):
        return [LengthScorer()]

    def decide(self, view):
        return [Decision("short", f"{view.score(LengthScorer())} >= {self.min}")]


class Where(Filter):
    """Keep what some SQL says."""

    sql: str = "true"

    def decide(self, view):
        return [Decision("not_so", self.sql)]


class Asks(Filter):
    """Keep everything once a query was answered."""

    query: str

    def decide(self, view):
        view.scalar(self.query)
        return []


class Top(Filter):
    """Keep the rows whose width is at least the n-th largest that is left."""

    set_level = True
    n: int = 1

    def decide(self, view):
        limit = view.scalar(
            f"WITH w AS (SELECT width FROM {view.relation}) SELECT min(width) FROM "
            f"(SELECT width FROM w ORDER BY width DESC LIMIT {self.n})"
        )
        return [Decision("not_top", f"width >= {'NULL' if limit is None else limit}")]


class First(Filter):
    """Keep the first row of each height."""

    set_level = True

    def decide(self, view):
        return [Decision("again", "row_number() OVER(PARTITION BY height ORDER BY uid) = 1")]


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    """Let specs name the filters of this file."""
    known = {c.__name__: c for c in (Length, Where, Asks, Top, First)}
    monkeypatch.setattr(FilterSpec, "make", lambda spec: known[spec.use](**spec.parameters)
                        if spec.use in known else original_make(spec))  # fmt: skip
    LengthScorer.seen.clear()


original_make = FilterSpec.make


def kept(pool, *specs, combine="and"):
    return [int(uid, 16) for uid in to_hex(run_filters(pool, list(specs), combine).uids)]


def where(sql):
    return FilterSpec("Where", {"sql": sql})


# -- how filters join ----------------------------------------------------------------------------

RULES = (
    st.builds(lambda n: ("Where", n), st.integers(0, 9))
    | st.builds(lambda n: ("Top", n), st.integers(1, 6))
    | st.just(("First", 0))
    | st.builds(lambda n: ("Length", n), st.integers(0, 9))
)


def apply(rule, rows):
    """Apply one rule to rows (uid, text, width, height) in Python; return the uids kept."""
    if rule[0] == "not":
        return {row[0] for row in rows} - apply(rule[1], rows)
    kind, n = rule
    if kind == "Where":
        return {r[0] for r in rows if r[2] is not None and r[2] >= n}
    if kind == "Length":
        return {r[0] for r in rows if len(r[1]) >= n}
    if kind == "Top":
        widths = sorted((r[2] for r in rows if r[2] is not None), reverse=True)
        # DuckDB and the paper agree: unknown is never at the top.
        limit = min(widths[:n], default=None)
        return {r[0] for r in rows if limit is not None and r[2] is not None and r[2] >= limit}
    first: dict = {}
    for row in sorted(rows):
        first.setdefault(row[3], row[0])
    return set(first.values())


def spec_of(rule):
    if rule[0] == "not":
        return replace(spec_of(rule[1]), negated=True)
    kind, n = rule
    if kind == "Where":
        return where(f"width >= {n}")
    return FilterSpec(kind, {} if kind == "First" else {"n" if kind == "Top" else "min": n})


def model(rules, rows, combine):
    if combine == "then":
        for rule in rules:
            left = apply(rule, rows)
            rows = [row for row in rows if row[0] in left]
        return sorted(row[0] for row in rows)
    sets = [apply(rule, rows) for rule in rules]
    if combine == "minus":
        return sorted(sets[0].difference(*sets[1:]))
    return sorted(set.intersection(*sets) if combine == "and" else set.union(*sets))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    with Pool.create(tmp_path_factory.mktemp("engine") / "pool.duckdb") as pool:
        yield pool


@settings(max_examples=25, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    rows=st.lists(st.tuples(st.text("ab", max_size=8), st.none() | st.integers(0, 9),
                            st.integers(0, 3)), min_size=1, max_size=12),
    rules=st.lists(RULES | st.tuples(st.just("not"), RULES), min_size=1, max_size=4),
)  # fmt: skip
def test_filters_join_as_a_plain_model_says(scratch, rows, rules):
    rows = [(i, *row) for i, row in enumerate(rows)]
    scratch.sql("DELETE FROM samples")
    for (table,) in scratch.sql("SELECT values_table FROM scores").fetchall():
        scratch.sql(f"DELETE FROM {table}")
    for row in rows:
        scratch.sql("INSERT INTO samples (uid, text, width, height) VALUES (?, ?, ?, ?)", list(row))
    specs = [spec_of(rule) for rule in rules]
    for combine in ("and", "or", "then", "minus"):
        chosen = run_filters(scratch, specs, combine)
        found = [int(uid, 16) for uid in to_hex(chosen.uids)]
        assert found == model(rules, rows, combine), combine
        assert chosen.steps[0].before == len(rows)
        assert chosen.steps[-1].after == len(found)
        for step in chosen.steps:
            assert step.before - sum(step.reasons.values()) == step.after
    assert scratch.sql("SELECT table_name FROM duckdb_tables() WHERE temporary").fetchall() == []


def test_a_chain_that_starts_with_a_set_level_filter_narrows_the_next(pool_of):
    pool = pool_of(width=[1, 5, 9, 9], height=[1, 1, 2, 2])
    chain = (FilterSpec("First"), FilterSpec("Top", {"n": 2}))
    assert kept(pool, *chain, combine="then") == [0, 2]
    assert kept(pool, *chain, combine="and") == [2]
    assert kept(pool, *reversed(chain), combine="then") == [2]


def test_every_drop_has_its_first_reason(pool_of, tmp_path):
    pool = pool_of(width=[0, 1, 2, None])
    path = tmp_path / "new" / "why.parquet"
    chosen = run_filters(pool, [where("width > 0"), where("width > 1")], reasons=path)
    assert to_hex(chosen.uids) == [f"{2:032x}"]
    assert [(s.before, s.after, s.reasons) for s in chosen.steps] == [
        (4, 2, {"not_so": 2}), (2, 1, {"not_so": 1}),
    ]  # fmt: skip
    assert pq.read_table(path).to_pylist() == [
        {"uid": f"{0:032x}", "filter": "Where:sql=width > 0", "reason": "not_so"},
        {"uid": f"{1:032x}", "filter": "Where:sql=width > 1", "reason": "not_so"},
        {"uid": f"{3:032x}", "filter": "Where:sql=width > 0", "reason": "not_so"},
    ]


def test_wrong_use_is_one_clear_line(pool_of, tmp_path):
    pool = pool_of(width=[1])
    with pytest.raises(UsageError) as caught:
        run_filters(pool, [where("true")], "adn")
    assert (
        str(caught.value)
        == "combine is 'adn' (did you mean 'and'?); expected one of: and, or, then, minus"
    )
    with pytest.raises(UsageError) as caught:
        run_filters(pool, [])
    assert str(caught.value) == "no filter given; 'no_filter' keeps everything"
    with Pool.create(tmp_path / "empty") as empty, pytest.raises(DataError) as caught:
        run_filters(empty, [where("true")])
    assert str(caught.value) == (
        f"{tmp_path / 'empty'}: the pool is empty; add samples with 'datacomp pool add'"
    )


# -- scores --------------------------------------------------------------------------------------


def test_scores_are_computed_once(pool_of):
    pool = pool_of(text=["aaaa", "b", "cccccc", "dd"])
    assert kept(pool, FilterSpec("Length")) == [0, 2]
    assert sorted(LengthScorer.seen) == ["aaaa", "b", "cccccc", "dd"]
    LengthScorer.seen.clear()
    assert kept(pool, FilterSpec("Length", {"min": 2})) == [0, 2, 3]
    assert kept(pool, FilterSpec("Length"), combine="then") == [0, 2]
    assert LengthScorer.seen == []


def test_what_an_earlier_filter_dropped_is_not_scored(pool_of):
    pool = pool_of(text=["aaaa", "b", "cccccc", "dd"], width=[1, 2, 3, 4])
    for combine in ("and", "then"):
        assert kept(pool, where("width > 2"), FilterSpec("Length"), combine=combine) == [2]
        assert sorted(LengthScorer.seen) == ["cccccc", "dd"]
    assert kept(pool, where("width > 2"), FilterSpec("Length"), combine="or") == [0, 2, 3]
    assert sorted(LengthScorer.seen) == ["aaaa", "b", "cccccc", "dd"]


# -- the truth -----------------------------------------------------------------------------------


@pytest.fixture
def pool(pool_of):
    return pool_of(text=["all about truth", "b"], width=[1, 2], truth=["clean", "tiny"])


@pytest.mark.parametrize(
    "sql",
    [
        "truth = 'clean'", "TRUTH = 'clean'", '"truth" = \'clean\'', "samples.truth = 'clean'",
        "candidates.truth = 'clean'", "(SELECT max(truth) FROM samples) = 'tiny'",
        "EXISTS (FROM samples s WHERE s.uid = uid AND s::VARCHAR LIKE '%clean%')",
        "EXISTS (FROM main.samples s WHERE s.uid = candidates.uid AND s::VARCHAR LIKE '%y%')",
        "(SELECT min(COLUMNS('tr.th')) FROM samples) = 'clean'",
        "(SELECT count(*) FROM (SELECT * FROM samples) q) > 1",
        "uid IN (WITH candidates AS (FROM samples) SELECT uid FROM samples)",
        "uid IN (WITH samples AS (SELECT 1 AS uid) SELECT uid FROM samples)",
        "uid IN (WITH a AS (FROM samples) SELECT uid FROM a)",
        "(SELECT count(*) FROM query('SELECT tr' || 'uth FROM samples')) > 0",
        "(SELECT count(*) FROM query_table('samples')) > 0",
        "(SELECT count(*) FROM (SUMMARIZE samples)) > 0",
        "(SELECT count(*) FROM (DESCRIBE samples)) > 0",
        "(SELECT count(*) FROM '/etc/passwd') > 0",
        "(SELECT count(*) FROM read_text('/etc/passwd')) > 0",
        "COLUMNS('tr.th') = 'clean'",
        "candidates::VARCHAR LIKE '%tiny%' AND COLUMNS(c -> c = 'truth') > ''",
        "(SELECT count(*) FROM main.range(3)) > 0",
        "(WITH a AS (DELETE FROM samples RETURNING uid) SELECT count(*) FROM a) > 0",
        "(WITH a AS (INSERT INTO samples (uid) VALUES (9) RETURNING uid) SELECT 1) > 0",
        "(WITH a AS (UPDATE samples SET uid = 9 RETURNING uid) SELECT 1) > 0",
        "(WITH a AS (COPY candidates TO 'out') SELECT 1) > 0",
        "current_setting('memory_limit') > ''",
        "text.current_setting() > ''",
        "(FROM (PIVOT candidates ON text IN ('b') USING count(*)) SELECT 1) > 0",
    ],
)  # fmt: skip
def test_no_filter_can_read_the_truth(pool, sql):
    for specs in ([where(sql)], [where("true"), where(sql)]):
        for combine in ("and", "then"):
            with pytest.raises(UsageError) as caught:
                run_filters(pool, specs, combine)
            assert str(caught.value).startswith("filter Where: not_so: ")
            assert "\n" not in str(caught.value)
    assert pool.sql("SELECT uid FROM samples ORDER BY uid").fetchall() == [(0,), (1,)]


@pytest.mark.parametrize(
    "sql",
    [
        '(FROM (WITH "{file}" AS (SELECT 1) FROM "{file}") i, "{file}" u(a) SELECT min(a)) = 1',
        '(WITH a AS (FROM "{file}"), "{file}" AS (SELECT 1 AS a) SELECT min(a) FROM a) = 1',
        "(WITH a AS (FROM b), b AS (SELECT 1 AS a) SELECT min(a) FROM a) = 1",
        "(FROM (WITH a AS (SELECT 1) FROM a) i, a SELECT 1) = 1",
        "(WITH a AS (SELECT a FROM a) SELECT min(a) FROM a) = 1",
        "(SELECT min(a) FROM '{file}') = 1",
        "(SELECT min(a) FROM \"{file}\") = 1",
        "(SELECT min(a) FROM candidates POSITIONAL JOIN '{file}') = 1",
        "(SELECT count(*) FROM candidates, LATERAL (FROM read_csv('{file}'))) = 1",
        "(SELECT count(*) FROM (DESCRIBE FROM '{file}')) = 1",
        "(WITH RECURSIVE a AS (FROM '{file}' UNION ALL FROM a) SELECT count(*) FROM a) = 1",
    ],
)  # fmt: skip
def test_no_filter_can_read_a_file(pool, tmp_path, sql):
    file = tmp_path / "m.csv"
    file.write_text("a\n1\n")
    sql = sql.format(file=file)
    for spec in (where(sql), FilterSpec("Asks", {"query": f"SELECT {sql}"})):
        with pytest.raises(UsageError, match=r"may read 'candidates'|WITH gives the name"):
            run_filters(pool, [spec])


@pytest.mark.parametrize(
    "sql",
    [
        "width < (WITH Foo AS (SELECT max(width) AS m FROM Candidates) SELECT m FROM Foo)",
        "width < (WITH a AS (SELECT 2 AS m), b AS (FROM a) SELECT m FROM (SELECT m FROM b))",
        "width < (WITH RECURSIVE a AS (SELECT 1 AS m UNION SELECT m + 1 FROM A WHERE m < 2) "
        "SELECT max(m) FROM a)",
        "width < (WITH a AS (SELECT 2 AS m) FROM (WITH b AS (FROM a) FROM b UNION FROM a))",
    ],
)  # fmt: skip
def test_a_filter_may_name_what_it_reads(pool, sql):
    assert kept(pool, where(sql)) == [0]


def test_sql_of_too_many_parts_is_refused_in_one_line(pool):
    with pytest.raises(UsageError, match="too many parts stand within each other"):
        run_filters(pool, [where(" + ".join(["width"] * 900) + " > 0")])


@pytest.mark.parametrize(
    "query", ["SELECT max(truth) FROM samples", "FROM samples", "SELECT 1; DROP TABLE samples",
              "SELECT s::VARCHAR FROM samples s", "DELETE FROM samples",
              "SELECT * FROM score_values_1",
              "SELECT count(*) FROM duckdb_tables()", "SELECT nonsense FROM candidates",
              "WITH a AS (INSERT INTO samples (uid) VALUES (9)) SELECT 1",
              "WITH a AS (COPY candidates TO '/dev/null') SELECT 1"],
)  # fmt: skip
def test_no_query_of_a_filter_gets_round_it(pool, query):
    with pytest.raises(UsageError) as caught:
        run_filters(pool, [FilterSpec("Asks", {"query": query})])
    assert str(caught.value).startswith("filter Asks: ")
    assert pool.count() == 2


def test_the_row_that_a_filter_sees_holds_no_truth(pool):
    assert kept(
        pool, where("candidates::VARCHAR NOT LIKE '%tiny%' AND candidates::VARCHAR LIKE '%b%'")
    )
    seen = []

    class Looks(Filter):
        def decide(self, view):
            seen.append((view.has("truth"), view.has("text"), view.count(), view.require("text")))
            with pytest.raises(MissingError) as caught:
                view.require("Truth", "ask elsewhere")
            seen.append(str(caught.value))
            return []

    engine = Engine(pool)
    engine.judge(Prepared(FilterSpec("Looks"), Looks()), Frame("and"))
    engine.relations.clean()
    columns = ", ".join(name for name in pool.columns() if name != "truth")
    assert seen == [
        (False, True, 2, '"text"'),
        f"{pool.path}: the pool has no column 'Truth'; there are: {columns}; ask elsewhere",
    ]


def test_no_attribute_of_what_a_filter_sees_leads_to_the_pool(pool):
    found = []

    class Looks(Filter):
        def decide(self, view):
            waiting, seen = [(view, 0)], set()
            while waiting:
                value, depth = waiting.pop()
                found.append(type(value))
                if id(value) in seen or depth > 3 or isinstance(value, type(pytest)):
                    continue
                seen.add(id(value))
                names = [n for n in dir(value) if n not in ("__closure__", "__globals__")]
                waiting += [(getattr(value, name), depth + 1) for name in names
                            if hasattr(value, name)]  # fmt: skip
            return []

    engine = Engine(pool)
    engine.judge(Prepared(FilterSpec("Looks"), Looks()), Frame("and"))
    engine.relations.clean()
    assert len(found) > 100
    assert not {Pool, Engine, type(pool.connection)} & set(found)


def test_what_a_score_took_is_remembered_with_it(pool_of):
    pool = pool_of(text=["a", "bb", "ccc"])
    first = run_filters(pool, [FilterSpec("Length")])
    (digest,) = first.scoring
    assert first.scoring[digest] == first.scoring_now > 0
    assert first.seconds >= first.scoring_now
    again = run_filters(pool, [FilterSpec("Length"), where("true")])
    assert again.scoring_now == 0
    assert again.scoring[digest] == pytest.approx(first.scoring_now, abs=1e-3)
    assert run_filters(pool, [where("true")]).scoring == {}
    assert all("seconds" not in score for score in again.scores)


def test_the_word_truth_in_a_caption_is_no_crime(pool):
    assert kept(pool, where("text LIKE '%truth%'")) == [0]
    assert kept(pool, FilterSpec("Asks", {"query": "SELECT count(*) FROM candidates c "
                                          "WHERE c.text = 'truth'"})) == [0, 1]  # fmt: skip


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("true), (false", "a predicate must be one SQL expression"),
        ("true) UNION SELECT (false", "a predicate must be one SQL expression"),
        ("true) FROM candidates; DROP TABLE samples; SELECT (1", ""),
        ("width > 0 -- always", ""),
        ("widht > 0", "Binder Error"),
        ("", ""),
        ("uid IN (SELECT uid FROM candidates) AND text::INTEGER > 0", "Conversion Error"),
    ],
)
def test_sql_that_cannot_be_run_names_filter_and_decision(pool, sql, message):
    with pytest.raises(UsageError) as caught:
        run_filters(pool, [where("true"), where(sql)])
    assert str(caught.value).startswith("filter Where: not_so: ")
    assert message in str(caught.value)
    assert pool.count() == 2


def test_tables_of_the_caller_are_left_alone(pool):
    pool.sql("CREATE TEMP TABLE mine AS SELECT 1 AS a")
    kept(pool, where("width > 0"), FilterSpec("Length"), combine="then")
    with pytest.raises(UsageError):
        kept(pool, where("nonsense"))
    assert pool.sql("SELECT table_name FROM duckdb_tables() WHERE temporary").fetchall() == [
        ("mine",)
    ]
    assert (
        pool.sql("SELECT view_name FROM duckdb_views() WHERE temporary AND NOT internal").fetchall()
        == []
    )


# -- filters of one's own ------------------------------------------------------------------------

PLUGIN = """from datacomp.filters import Decision, Filter, Scorer

class S(Scorer):
    name = "vowels"
    columns = ("{column}",)
    def identity(self): return {{"v": 1}}
    def score(self, batch):
        {score}

class Mine(Filter):
    "Keep captions with vowels."
    def scorers(self): return [S()]
    def decide(self, view):
        {decide}
"""
SCORE = 'return [sum(c in "aeiou" for c in t) for t in batch.columns["text"].to_pylist()]'
DECIDE = 'return [Decision("no_vowels", f"{view.score(S())} > 1")]'


def own(tmp_path, column="text", score=SCORE, decide=DECIDE):
    path = tmp_path / "own.py"
    path.write_text(PLUGIN.format(column=column, score=score, decide=decide))
    return path, parse(f"{path}:Mine")


def test_a_filter_in_a_file_of_fifteen_lines_works(pool, tmp_path):
    path, spec = own(tmp_path)
    assert len(path.read_text().splitlines()) <= 15
    assert kept(pool, spec) == [0]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"score": "raise KeyError('gone')"}, RunError,
         "filter {path}:Mine failed at {path}:8: KeyError: 'gone'"),
        ({"decide": "return 1 / 0"}, RunError,
         "filter {path}:Mine failed at {path}:14: ZeroDivisionError: division by zero"),
        ({"decide": "return 5"}, RunError, "filter {path}:Mine failed at {path}:10: TypeError: "),
        ({"decide": "return ['x > 1']"}, RunError, "filter {path}:Mine failed at {path}:10: "),
        ({"decide": "return [Decision('few', 3)]"}, RunError,
         "filter {path}:Mine failed at {path}:14: TypeError: a Decision takes a reason and SQL, "
         "both text; found 'few', 3"),
        ({"decide": "import sys; sys.exit(0)"}, RunError,
         "filter {path}:Mine failed at {path}:14: SystemExit: 0"),
        ({"decide": "return super().decide(view)"}, RunError,
         "filter {path}:Mine failed at {path}:14: NotImplementedError: Mine has no decide("),
        ({"score": "return [1.0]"}, RunError,
         "filter {path}:Mine: scorer vowels ({path}:3) returned 1 values for 2 samples"),
        ({"score": "return ['many', 'few']"}, RunError,
         "filter {path}:Mine: scorer vowels ({path}:3) gives what is no FLOAT: "),
        ({"score": "return [object(), 1]"}, RunError,
         "filter {path}:Mine: scorer vowels ({path}:3) gives what is no FLOAT: "),
        ({"column": "txt"}, MissingError,
         "{pool}: the pool has no column 'txt' (did you mean 'text'?); there are: "),
        ({"decide": "return [Decision('r', 'widht > 1')]"}, UsageError,
         "filter {path}:Mine ({path}:10): r: {pool}: Binder Error: "),
        ({"decide": "return [Decision('r', view.score(type('T', (S,), {'name': 't'})()))]"},
         UsageError, "scorer t is used in decide(), but not in scorers()"),
    ],
)  # fmt: skip
def test_a_filter_that_fails_names_file_and_line(pool, tmp_path, changes, error, message):
    path, spec = own(tmp_path, **changes)
    with pytest.raises(error) as caught:
        run_filters(pool, [spec])
    assert str(caught.value).startswith(message.format(path=path, pool=pool.path))
    assert "\n" not in str(caught.value)
    assert "SELECT" not in str(caught.value)


@pytest.mark.parametrize("kind", ["FLOAT", "DOUBLE"])
def test_nan_is_no_score(pool, tmp_path, kind):
    """SQL has it above all numbers, so that it would pass."""
    score = f'return [float("nan"), 0.25]\n    type = "{kind}"'
    decide = 'return [Decision("low", f"{view.score(S())} > 0")]'
    _, spec = own(tmp_path, score=score, decide=decide)
    assert kept(pool, spec) == [1]
    (found,) = pool.sql("SELECT count(*) FROM score_values_1 WHERE value IS NULL").fetchall()
    assert found == (1,)
