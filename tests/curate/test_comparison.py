"""Two subsets side by side: counts, reasons, means, and the page that shows them."""

import functools

import numpy as np
import pytest
from datacomp.curate import comparison
from datacomp.curate.comparison import compare_subsets
from datacomp.curate.report import write_comparison
from datacomp.curate.selection import select
from datacomp.curate.subset import write_subset
from datacomp.errors import DataError, MissingError
from datacomp.filters import parse
from datacomp.pools.uids import UID_DTYPE, save_subset
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture
def two(pool_of, tmp_path):
    """A pool and two subsets of it, the first with its list of reasons."""
    texts = ["a wide picture here", "a tall one", "no", "one more <b>", ""]
    pool = pool_of(text=texts, width=[900, 200, 300, 300, 300], height=[200, 900, 300, 300, 300])
    a, b = tmp_path / "a.npy", tmp_path / "b.npy"
    select(pool, [parse("image_size")], a, reasons=tmp_path / "a.reasons.parquet")
    select(pool, [parse("caption_length")], b)
    return pool, a, b


def test_counts_reasons_and_means(two):
    pool, a, b = two
    found = compare_subsets(a, b, pool)
    assert found.to_dict() == {
        "a": "a", "b": "b", "in_a": 3, "in_b": 3, "both": 1, "overlap": 1 / 5,
        "only_a": {"count": 2, "dropped_by_the_other": []},
        "only_b": {"count": 2, "dropped_by_the_other": [
            {"filter": "image_size", "reason": "extreme_aspect", "count": 2},
        ]},
        "means": [
            {"column": "width", "only_a": 300, "only_b": 550, "without_a": 0, "without_b": 0},
            {"column": "height", "only_a": 300, "only_b": 550, "without_a": 0, "without_b": 0},
            {"column": "words of the caption", "only_a": 1, "only_b": 3.5,
             "without_a": 0, "without_b": 0},
        ],
    }  # fmt: skip
    turned = compare_subsets(b, a).to_dict()
    assert turned["only_a"] == found.to_dict()["only_b"]
    assert turned["means"] == []


def test_reasons_of_another_run_are_left_out_with_a_warning(two, capsys):
    pool, a, b = two
    reasons = a.with_suffix(".reasons.parquet")
    assert compare_subsets(a, b).losses[1].file == reasons
    assert capsys.readouterr().err == ""
    select(pool, [parse("caption_length")], a)  # the list stays, of another subset
    loss = compare_subsets(a, b).losses[1]
    assert (loss.reasons, loss.file) == ((), None)
    said = f"warning: {reasons}: left out, for it is of another run than a.npy; make both by one "
    assert capsys.readouterr().err.startswith(said)
    a.with_suffix(".json").write_text('{"format": "datacomp-subset", "version": 1, "funnel": [3]}')
    assert compare_subsets(a, b).losses[1].file is None
    a.with_suffix(".json").unlink()  # of a subset from elsewhere nothing is known
    assert compare_subsets(a, b).losses[1].file == reasons


def test_nan_is_left_out_of_means_and_counted(pool_of, tmp_path):
    scores = [0.5, float("nan"), None, 0.25, float("nan")]
    pool = pool_of(text=["x"] * 5, width=[1, 2, 3, 4, 5])
    pool.sql("ALTER TABLE samples ADD COLUMN quality FLOAT")
    for number, score in enumerate(scores):
        pool.connection.execute(f"UPDATE samples SET quality = ? WHERE uid = {number}", [score])
    a, b = tmp_path / "a.npy", tmp_path / "b.npy"
    for path, numbers in ((a, [0, 1, 2]), (b, [3, 4])):
        write_subset(path, np.array([(0, n) for n in numbers], UID_DTYPE), {})
    found = compare_subsets(a, b, pool)
    (quality,) = [means[1:] for means in found.means if means[0] == "quality"]
    assert [*map(str, quality)] == ["0.5 (2 without)", "0.25 (1 without)"]
    assert found.to_dict()["means"][1] == {
        "column": "quality", "only_a": 0.5, "only_b": 0.25, "without_a": 2, "without_b": 1,
    }  # fmt: skip
    write_comparison(pool, found, tmp_path / "page.html")
    assert "<td>0.5 (2 without)</td>" in (tmp_path / "page.html").read_text()


def test_a_repeated_uid_counts_once(tmp_path):
    for name, values in (("a", [1, 1, 2]), ("b", [2, 3])):
        uids = np.array([(0, value) for value in values], UID_DTYPE)
        write_subset(tmp_path / f"{name}.npy", uids, {})
    found = compare_subsets(tmp_path / "a.npy", tmp_path / "b.npy")
    assert (found.count_a, found.count_b, found.both) == (2, 2, 1)
    same = compare_subsets(tmp_path / "a.npy", tmp_path / "a.npy")
    assert (same.overlap, len(same.losses[0].uids)) == (1.0, 0)


@settings(deadline=None, max_examples=40)
@given(*2 * [st.lists(st.integers(0, 12))], st.integers(1, 5))
def test_what_either_has_is_that_of_sets_however_little_is_held(tmp_path_factory, a, b, held):
    folder = tmp_path_factory.mktemp("compared")
    for name, values in (("a", a), ("b", b)):
        save_subset(folder / name, np.array([(value, 7) for value in values], UID_DTYPE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "walk", functools.partial(comparison.walk, held=held))
        found = compare_subsets(folder / "a", folder / "b")
    assert (found.count_a, found.count_b) == (len({*a}), len({*b}))
    assert found.both == len({*a} & {*b})
    alone = [[uid[0] for uid in loss.uids.tolist()] for loss in found.losses]
    assert alone == [sorted({*a} - {*b}), sorted({*b} - {*a})]


def test_the_page_shows_each_reason_and_requests_nothing(two, tmp_path):
    pool, a, b = two
    found = compare_subsets(a, b, pool)
    write_comparison(pool, found, tmp_path / "page.html", per_sheet=1)
    page = (tmp_path / "page.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "1 samples in both: 20.0 % of all that either has" in page
    assert "Why is not known: b has no list of reasons beside it." in page
    assert "extreme aspect" in page
    assert "by image_size" in page
    assert page.count("<li><figure") == 2  # one sample of each sheet
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    before = page
    write_comparison(pool, found, tmp_path / "page.html", per_sheet=1)
    assert (tmp_path / "page.html").read_text() == before


def test_what_is_no_subset_or_no_list_of_reasons_is_one_clear_line(two, tmp_path):
    _, a, b = two
    with pytest.raises(MissingError):
        compare_subsets(a, tmp_path / "none.npy")
    (tmp_path / "b.reasons.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError) as caught:
        compare_subsets(a, b)
    assert str(caught.value).startswith(
        f"{tmp_path / 'b.reasons.parquet'}: not a list of reasons: "
    )
    assert "\n" not in str(caught.value)
