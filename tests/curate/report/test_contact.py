import re

import pytest
from datacomp.curate.report import matching, write_contact_sheet
from datacomp.curate.report.distributions import _edges
from datacomp.errors import UsageError
from datacomp.pools import Pool
from datacomp.pools.uids import from_hex


@pytest.fixture
def page(tmp_path):
    return tmp_path / "sheet.html"


@pytest.fixture
def write(pool):
    """Write the contact sheet of a pool: closed, opened for strangers, and opened again."""

    def write(page, *arguments, **options):
        pool.close()
        try:
            with Pool.open(pool.path, read_only=True, confined=True) as confined:
                return write_contact_sheet(confined, page, *arguments, **options)
        finally:
            pool.connection = Pool.open(pool.path).connection

    return write


def test_everything_is_shown(write, pool, samples, page, parse):
    assert write(page) == len(samples)
    tree = parse(page.read_text("utf-8"))
    assert len(tree.one("ul", "gallery").all("figure")) == len(samples)
    assert tree.one("head").one("title").text == tree.one("h1").text == "pool.duckdb: contact sheet"
    assert tree.one("p", "verdict").text == "45 of 45 samples (100.0 %); 45 shown."
    assert tree.all("script") == []
    assert [f.one("strong").text for f in tree.all("figure", "chart")] == [
        "width, px", "height, px", "aspect, width over height", "caption, words", "truth",
        "language"
    ]  # fmt: skip
    assert all(img.attributes["src"].startswith("data:image/") for img in tree.all("img"))


def test_condition_limit_and_title(write, pool, page, parse, hostile):
    shown = write(page, "width > 50 -- <b>", limit=5, title=hostile)
    assert shown == 5
    tree = parse(page.read_text("utf-8"))
    count = pool.count() and pool.scalar("SELECT count(*) FROM samples WHERE width > 50")
    assert tree.one("p", "verdict").text.startswith(
        f"{count} of 45 samples ({100 * count / 45:.1f} %) where width > 50 -- <b>; 5 shown."
    )
    assert tree.all("script") == []


def test_same_arguments_same_bytes(write, pool, page):
    def made(**options):
        write(page, limit=10, **options)
        return page.read_bytes()

    assert made() == made()
    assert made() != made(seed=1)


def test_nothing_matches(write, pool, page, parse):
    assert write(page, "false") == 0
    tree = parse(page.read_text("utf-8"))
    assert tree.one("p", "note").text == "No sample matches."
    assert tree.all("figure") == []


def test_an_empty_pool(tmp_path, page):
    path = tmp_path / "empty.duckdb"
    Pool.create(path).close()
    with Pool.open(path, read_only=True, confined=True) as empty:
        assert write_contact_sheet(empty, page) == 0


def test_scores_can_be_asked_for_and_are_drawn(write, pool, page, parse):
    uids = [
        r[0] for r in pool.sql("SELECT printf('%032x', uid) FROM samples ORDER BY uid").fetchall()
    ]
    for name, digest, kind, values in (
        ("clip", "aa" * 32, "FLOAT", [i / 10 for i in range(10)]),
        ("language", "bb" * 32, "VARCHAR", ["en"] * 6 + ["de"] * 4),
        ("width", "cc" * 32, "INTEGER", list(range(10))),
    ):
        table = pool.score_table(name, digest, {"type": kind})
        pool.write_scores(table, from_hex(uids[:10]), values)
    where = "clip >= 0.45 AND language IN ('en', 'de') AND \"width:cccccccc\" < 9"
    assert write(page, where) == 4
    charts = {
        f.one("strong").text: f for f in parse(page.read_text("utf-8")).all("figure", "chart")
    }
    assert "clip" in charts
    assert charts["clip"].one("small").text == "0.500 to 0.800, median 0.650, 4 known"
    assert charts["width:cccccccc"].one("small").text == "5 to 8, median 6, 4 known"
    assert [li.one("span", "name").text for li in charts["language"].all("li")] == ["de", "en"]


def test_a_histogram_counts_every_sample(write, pool, page, parse):
    write(page)
    for chart in parse(page.read_text("utf-8")).all("figure", "chart")[:4]:
        known = int(re.search(r"(\d+) known", chart.one("small").text)[1])
        bins = [title.text.rsplit(": ", 1)[1] for title in chart.all("title")]
        assert sum(map(int, bins)) == known


def test_many_values_of_a_text_column_are_summed_up(write, pool, page, parse):
    pool.sql("UPDATE samples SET truth = 'kind ' || (width % 20)::VARCHAR WHERE width IS NOT NULL")
    write(page)
    charts = parse(page.read_text("utf-8")).all("figure", "chart")
    chart = next(chart for chart in charts if chart.one("strong").text == "truth")
    names = [li.one("span", "name").text for li in chart.all("li")]
    assert len(names) == 9
    assert names[-1].endswith(" others")
    counts = [int(li.one("span", "count").text.split()[0]) for li in chart.all("li")]
    assert sum(counts) == 45


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("widht > 3", "where 'widht > 3': Binder Error: Referenced column \"widht\" not found"),
        ("1 +", "where '1 +': Parser Error: syntax error at or near \")\""),
        ("true); DROP TABLE samples; --", "where 'true); DROP TABLE samples; --': Parser Error"),
        ("true); DROP TABLE samples; SELECT (1", "where: expected one SQL condition, found"),
        ("length(text) > 'x'", "where \"length(text) > 'x'\": Conversion Error"),
        ("no_such(text)", "where 'no_such(text)': Catalog Error"),
        ("EXISTS (FROM glob('/*'))", "where \"EXISTS (FROM glob('/*'))\": Permission Error"),
        (" ", "where is empty; 'true' matches every sample"),
    ],
)
def test_bad_sql_is_one_clear_line(write, pool, page, where, message):
    with pytest.raises(UsageError) as caught:
        write(page, where)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert not page.exists()
    assert pool.count() == 45


@pytest.mark.parametrize("limit", [0, -1, 10_001])
def test_limits(write, pool, page, limit):
    with pytest.raises(UsageError) as caught:
        write(page, limit=limit)
    assert str(caught.value) == f"limit is {limit}; a contact sheet shows 1 to 10,000 samples"


def test_nothing_is_left_on_the_connection(pool, page):
    pool.close()
    with Pool.open(pool.path, read_only=True, confined=True) as reading:
        assert write_contact_sheet(reading, page, limit=3) == 3
        assert reading.sql("SHOW TABLES").fetchall().count(("report_matching",)) == 0


def test_a_pool_that_reaches_other_files_is_not_shown(pool, page):
    with pytest.raises(UsageError) as caught:
        write_contact_sheet(pool, page)
    assert str(caught.value) == f"{pool.path}: open the pool with confined=True to show it"


def test_edges():
    assert _edges(5, 7, True) == [5, 6, 7, 8]
    wide = _edges(0, 1000, True)
    assert len(wide) <= 25
    assert wide[-1] > 1000
    assert all(edge.is_integer() for edge in wide)
    assert _edges(2.0, 2.0, False)[0] < 2 < _edges(2.0, 2.0, False)[-1]


def test_outliers_are_shown_where_not_all_samples_are(write, pool, page, parse):
    write(page, limit=5)
    section = parse(page.read_text("utf-8")).one("section", id="outliers")
    sheets = {sheet.one("h3").text: sheet for sheet in section.all("div", "sheet")}
    most = sheets["the most pixels"].all("figcaption")
    values = [int(caption.one("b").text.replace(",", "")) for caption in most]
    assert values == sorted(values, reverse=True)
    assert values[0] == pool.scalar("SELECT max(width * height) FROM samples")
    write(page)
    assert parse(page.read_text("utf-8")).all("section", id="outliers") == []


def test_many_samples_are_drawn_by_a_share_of_them(write, pool, page, parse, monkeypatch):
    monkeypatch.setattr(matching, "DRAWN_OF", 8)
    total = pool.count()
    condition = "uid > 0 -- so"
    drawn_of = pool.scalar(f"SELECT count(*) FROM samples WHERE {matching.a_share_of(total)}")
    assert 0 < drawn_of < total
    shown = write(page, where=condition, limit=4)
    assert shown == min(4, drawn_of)
    document = parse(page.read_text("utf-8"))
    for part in ("distributions", "outliers"):
        note = document.one("section", id=part).one("p", "note").text
        assert note == f"Of {drawn_of:,} of them, picked by their uids."
    assert f"{total:,} of {total:,} samples" in document.one("p", "verdict").text


def test_what_is_like_a_sample_is_shown(tmp_path, commonpool, page, parse):
    folder = commonpool(tmp_path / "m", rows=20)
    uid = f"{7:032x}"
    with Pool.open(folder, read_only=True, confined=True) as pool:
        write_contact_sheet(pool, page, limit=3, like=uid, features=("l14_img", "b32_img"))
        tree = parse(page.read_text("utf-8"))
        sheets = tree.one("section", id="alike").all("div", "sheet")
        assert [sheet.one("h3").text for sheet in sheets] == ["by l14_img", "by b32_img"]
        assert len(sheets[0].all("figure")) == 24
        assert sheets[0].one("p", "note").text == "Cosine, of 40 samples, all of them."
        names = [f.one("strong").text for f in tree.all("figure", "chart")]
        assert {"language", "host", "clip_l14_similarity_score"} <= set(names)
        for like, features, message in (
            ("7", ("l14_img",), "like is '7', expected a uid: 32 hex digits"),
            (uid, (), "give a sample and the features by which others are like it, or neither"),
            (None, ("l14_img",), "give a sample and the features by which others are like it, "
                                 "or neither"),
        ):  # fmt: skip
            with pytest.raises(UsageError) as caught:
                write_contact_sheet(pool, page, like=like, features=features)
            assert str(caught.value) == message


def test_languages_and_hosts_of_captions_and_urls(pool_of, page, parse):
    pool = pool_of(
        text=["a photo of a red house", "ein Foto von einem roten Haus", "a dog in the garden"],
        url=["https://user@A.example:80/x", "http://a.example?q", "glyph://b"],
    )
    pool.close()
    with Pool.open(pool.path, read_only=True, confined=True) as confined:
        write_contact_sheet(confined, page)
    charts = {f.one("strong").text: f for f in parse(page.read_text("utf-8")).all("figure")
              if f.all("strong")}  # fmt: skip
    counted = {
        name: [(li.one("span", "name").text, li.one("span", "count").text.split()[0])
               for li in charts[name].all("li")]
        for name in ("language", "host")
    }  # fmt: skip
    assert counted == {
        "language": [("en", "2"), ("de", "1")],
        "host": [("a.example", "2"), ("not known", "1")],
    }
