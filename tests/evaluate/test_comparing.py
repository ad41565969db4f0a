import numpy as np
import pytest
from datacomp.errors import DataError
from datacomp.evaluate.comparing import Difference, compare_groups, compare_tasks
from datacomp.evaluate.metrics import share_uncertainty
from datacomp.evaluate.results import Result
from datacomp.evaluate.tasks import load_suites, load_tasks

DEMO = load_suites()["demo"]
KEYS = DEMO.groups["Average"]


def result(key: str, hits: np.ndarray, **provenance) -> Result:
    found = share_uncertainty(hits, load_tasks()[key].seed)
    return Result(key, key, {"main_metric": float(hits.mean())}, provenance, found.to_dict())


def runs(count: int = 5) -> tuple[dict[str, Result], dict[str, Result]]:
    """Two models that err on nearly the same images; the second is a little better."""
    first, second = {}, {}
    for number, key in enumerate(KEYS[:count]):
        rng = np.random.default_rng(number)
        hits = rng.random(400) < 0.5
        better = hits | (rng.random(400) < 0.08)
        first[key], second[key] = result(key, hits), result(key, better)
    return first, second


def test_paired_differences_are_seen_where_intervals_overlap():
    first, second = runs()
    for one, a, b in zip(
        compare_tasks(first, second), first.values(), second.values(), strict=True
    ):
        assert a.interval[1] > b.interval[0]  # side by side they look alike
        assert one.difference == pytest.approx(b.value - a.value)
        assert (one.interval[0] > 0, one.tie) == (True, False)
        # b is right wherever a is, so the difference is a share of its own.
        share = one.difference
        assert one.interval[1] - one.interval[0] < 5 * np.sqrt(share * (1 - share) / 400)


def test_a_run_ties_with_itself():
    first, _ = runs()
    for one in compare_tasks(first, first) + compare_groups(first, first, DEMO):
        assert (one.difference, one.interval, one.tie) == (0, (0, 0), True)


def test_groups_are_compared_with_all_that_follows_of_them():
    first, second = runs()
    average, above = compare_groups(first, second, DEMO)
    assert (average.name, above.name) == ("Average", "Average above chance")
    tasks = compare_tasks(first, second)
    assert average.difference == pytest.approx(np.mean([one.difference for one in tasks]))
    width = average.interval[1] - average.interval[0]
    assert width < min(one.interval[1] - one.interval[0] for one in tasks)
    chances = [load_tasks()[key].chance for key in KEYS]
    expected = [(r.value - c) / (1 - c) for r, c in zip(first.values(), chances, strict=True)]
    assert above.first == pytest.approx(np.mean(expected))


def test_averages_are_over_what_both_have_and_only_if_asked():
    first, second = runs(3)[0], runs()[1]
    assert compare_groups(first, second, DEMO) == []
    average = compare_groups(first, second, DEMO, partial=True)[0]
    assert average.missing == KEYS[3:]
    assert average.second == pytest.approx(np.mean([second[key].value for key in KEYS[:3]]))


def test_without_replicates_nobody_knows():
    first, _ = runs()
    plain = {key: Result(key, key, {"main_metric": 0.5}) for key in KEYS}
    (one, *_) = compare_tasks(first, plain)
    assert (one.interval, one.tie) == (None, None)
    assert compare_groups(first, plain, DEMO)[0].tie is None
    plain[KEYS[0]] = Result(KEYS[0], "x", {"main_metric": None})
    assert len(compare_tasks(first, plain)) == 4


def test_other_data_are_not_compared():
    hits = np.ones(5, bool)
    a, b = ({KEYS[0]: result(KEYS[0], hits, data=data, task_version=1)} for data in "ab")
    with pytest.raises(
        DataError, match="the second run was evaluated on other data than the first"
    ):
        compare_tasks(a, b)


def test_a_tie_is_an_interval_that_holds_zero():
    assert Difference("a", 0.5, 0.6, (-0.01, 0.2)).tie
    assert Difference("a", 0.5, 0.6, (0.0, 0.2)).tie
    assert not Difference("a", 0.6, 0.5, (-0.2, -0.01)).tie
