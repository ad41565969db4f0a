import itertools

import pytest
from datacomp.curate.report.charts import (
    Mark,
    Part,
    bar,
    dots,
    fit,
    histogram,
    log_ticks,
    scatter,
    short_count,
    text_width,
    ticks,
)
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.31, 0.47, [0.35, 0.4, 0.45]),
        (-0.1, 0.1, [-0.1, -0.05, 0.0, 0.05, 0.1]),
        (3.0, 3.0, [3.0]),
    ],
)
def test_ticks(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 8))
def test_ticks_lie_within_and_are_few(low, span, count):
    found = ticks(low, low + span, count)
    assert len(found) <= count + 2
    assert all(low - span * 1e-6 <= tick <= low + span * (1 + 1e-6) for tick in found)


def test_log_ticks():
    assert log_ticks(90, 2100) == pytest.approx([100, 200, 500, 1000, 2000])
    assert log_ticks(1, 1e6) == pytest.approx([1, 10, 100, 1e3, 1e4, 1e5, 1e6])
    assert log_ticks(3, 4) == [3, 4]


@pytest.mark.parametrize(
    ("value", "text"), [(950, "950"), (2500, "2.5k"), (12_800_000, "12.8M"), (1.28e9, "1.28G")]
)
def test_short_count(value, text):
    assert short_count(value) == text


def test_fit_cuts_in_the_middle():
    assert fit("short", 100) == "short"
    assert fit("a_long_name_of_a_dataset_0.3", 80) == "a_long…t_0.3"


@given(st.text(max_size=120), st.floats(10, 200))
def test_fit_fits(text, width):
    assert text_width(fit(text, width)) <= max(width, text_width("…"))


def marks_of(count: int, name: str = "dataset number") -> list[Mark]:
    return [
        Mark(f"{name} {i}", 0.4 + (i * 37 % 10) / 50, 0.01, (0.4,), 100 * 1.3**i)
        for i in range(count)
    ]


def boxes(chart) -> list[tuple[float, float, float, float]]:
    found = []
    for text in chart.all("text", "label"):
        x, y = float(text.attributes["x"]), float(text.attributes["y"])
        found.append((x, y - 10, x + text_width(text.text), y + 2))
    return found


@pytest.mark.parametrize(("count", "width"), [(1, 346), (5, 346), (20, 346), (20, 920)])
def test_scatter_names_every_point_and_no_label_overlaps(parse, count, width):
    marks = marks_of(count)
    html, numbered = scatter(marks, width, 400, "label")
    chart = parse(html)
    svg = chart.one("svg", role="img")
    assert svg.attributes["aria-label"] == "label"
    assert len(chart.all("circle", "dot")) == count
    labels = [text.text for text in chart.all("text", "label")]
    numbers = [str(n + 1) for n in range(len(numbered))]
    assert sorted(labels) == sorted([m.name for m in marks if m.name not in numbered] + numbers)
    for a, b in itertools.combinations(boxes(chart), 2):
        assert not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])
    assert all(box[0] >= 0 and box[2] <= width for box in boxes(chart))


def test_scatter_numbers_what_does_not_fit(parse):
    marks = [Mark("x" * 80, 0.5 + 0.0001 * i, None, (), 1000.0) for i in range(40)]
    html, numbered = scatter(marks, 346, 380, "label")
    assert 0 < len(numbered) <= 40
    assert len(parse(html).all("text", "number")) == len(numbered)


def test_scatter_draws_error_bars_where_the_spread_is_known(parse):
    html, _ = scatter([Mark("a", 0.5, None, (), 10), Mark("b", 0.6, 0.1, (), 20)], 700, 400, "l")
    groups = {g.one("title").text: g for g in parse(html).all("g", "mark")}
    assert groups["a: 0.500, 10 samples"].all("line", "error") == []
    assert len(groups["b: 0.600 ± 0.100, 20 samples"].all("line", "error")) == 3


def test_scatter_of_an_empty_subset(parse):
    html, _ = scatter([Mark("empty", 0.5), Mark("all", 0.5, x=100)], 700, 400, "l")
    assert "nan" not in html
    assert "inf" not in html


def test_dots_show_seeds_spread_and_chance_in_scale(parse):
    marks = [Mark("a", 0.6, 0.1, (0.5, 0.7)), None]
    chart = parse(dots(marks, ["a", "b"], 0.2, "label"))
    chance = float(chart.one("line", "chance").attributes["x1"])
    first, second = chart.all("g", "mark")
    low, high = (float(c.attributes["cx"]) for c in first.all("circle", "seed"))
    mean = float(first.one("circle", "dot").attributes["cx"])
    error = first.one("line", "error")
    assert mean == pytest.approx((low + high) / 2, abs=0.02)
    assert (mean - chance) == pytest.approx(2 * (high - low), abs=0.05)
    assert float(error.attributes["x1"]) == pytest.approx(low, abs=0.02)
    assert second.all("circle") == []
    assert second.one("title").text == "b: not evaluated"
    assert second.one("text", "value").text == "–"


def test_dots_without_chance_or_values(parse):
    chart = parse(dots([None], ["a"], None, "label"))
    assert chart.all("line", "chance") == []
    assert "nan" not in dots([Mark("a", 0.0)], ["a"], 0.0, "label")


def test_bar_is_in_proportion(parse):
    parts = [Part(60, "clean", "k0"), Part(0, "none", "k1"), Part(30, "bad", "k2")]
    svg = parse(bar(parts, 120, "label")).one("svg", "bar")
    rects = [(r.attributes["class"], r.attributes["x"], r.attributes["width"])
             for r in svg.all("rect")]  # fmt: skip
    assert rects == [("k0", "0", "50"), ("k2", "50", "25")]
    assert svg.all("title")[0].text == "clean: 60"
    assert parse(bar([], 0, "empty")).all("rect") == []


def test_histogram(parse):
    chart = parse(histogram([0.0, 10.0, 20.0, 30.0], [5, 0, 10], "label", True))
    columns = chart.all("rect", "column")
    assert [c.one("title").text for c in columns] == ["0 to 10: 5", "20 to 30: 10"]
    heights = [float(c.attributes["height"]) for c in columns]
    assert heights[1] == pytest.approx(2 * heights[0])
