import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from datacomp.errors import DataError, MissingError, UsageError
from datacomp.evaluate.metrics import share_uncertainty
from datacomp.evaluate.results import (
    ABOVE_CHANCE,
    TELLING,
    Estimate,
    Result,
    check_comparable,
    combine,
    group_names,
    group_score,
    is_tie_pooled,
    pooled_spread,
    read_results,
    t_quantile,
    tied_best,
)
from datacomp.evaluate.tasks import load_suites, load_tasks
from hypothesis import given
from hypothesis import strategies as st


def result(key: str, value: float | None, error: float | None = None, **provenance) -> Result:
    uncertainty = {} if error is None else {"standard_error": error, "interval": [0.0, 1.0]}
    return Result(key, key, {"main_metric": value}, provenance, uncertainty)


def write(path: Path, *results: Result) -> Path:
    path.write_text("".join(json.dumps(r.to_dict()) + "\n" for r in results))
    return path


def test_what_is_written_is_read(tmp_path):
    first = result("mnist", 0.5, 0.01, set_aside=2)
    path = write(tmp_path / "eval_results.jsonl", first, result("cifar10", 0.25))
    assert read_results(path)["mnist"] == first
    for run in (tmp_path, str(tmp_path), str(path)):  # a run's directory, or the file
        assert list(read_results(run)) == ["mnist", "cifar10"]
    assert (first.value, first.standard_error, first.interval, first.set_aside) == (
        0.5, 0.01, (0.0, 1.0), 2,
    )  # fmt: skip


def test_the_last_line_of_a_task_counts(tmp_path):
    path = write(tmp_path / "r.jsonl", result("mnist", 0.5), result("mnist", 0.75))
    assert read_results(path)["mnist"].value == 0.75


def test_a_torn_last_line_is_not_there_yet(tmp_path):
    path = write(tmp_path / "r.jsonl", result("mnist", 0.5), result("cifar10", 0.75))
    path.write_bytes(path.read_bytes()[:-5])
    assert list(read_results(path)) == ["mnist"]


def test_datacomps_own_file_is_read_nan_and_all(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(
        '{"key": "wilds/fmow", "dataset": "FMoW", "metrics": {"acc1": 0.1, "acc_region:5": NaN, '
        '"main_metric": 0.05}}\n'
    )
    found = read_results(path)["wilds/fmow"]
    assert found.metrics == {"acc1": 0.1, "acc_region:5": None, "main_metric": 0.05}
    assert (found.standard_error, found.interval, found.set_aside) == (None, None, 0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON; the file is damaged"),
        ("[]", "expected an object"),
        ('{"key": "a"}', "expected key, dataset and metrics"),
        ('{"key": "a", "dataset": "A", "metrics": {"m": "x"}}', "metric 'm' is not a number"),
        ('{"key": "a", "dataset": "A", "metrics": {"m": true}}', "metric 'm' is not a number"),
        ('{"key": "a", "dataset": "A", "metrics": {"m": 1e999}}', "metric 'm' is not a number"),
        ('{"key": "a", "dataset": "A", "metrics": {}, "provenance": 3}',
         "provenance is not an object"),
        ('{"key": "a", "dataset": "A", "metrics": {}, "uncertainty": {"replicates": "AAAA"}}',
         "replicates are not packed numbers"),
        ('{"key": "a", "dataset": "A", "metrics": {}, "uncertainty": {"replicates": 7}}',
         "replicates are not packed numbers"),
        ('{"key": "a", "dataset": "A", "metrics": {}, "uncertainty": {"interval": [1]}}',
         "interval is not two numbers"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_result_is_named(tmp_path, line, message):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(result("mnist", 0.5).to_dict()) + f"\n{line}\n")
    with pytest.raises(DataError, match=rf"^{re.escape(f'{path}: line 2: {message}')}$"):
        read_results(path)


def test_an_endless_line_is_refused(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b" " * (1 << 20) + b"\n")
    with pytest.raises(DataError, match="line 1: over 1,048,576 bytes"):
        read_results(path)


def test_no_results(tmp_path):
    with pytest.raises(MissingError, match=r"no results at .*; run 'datacomp evaluate' first"):
        read_results(tmp_path)


def test_groups_are_plain_means():
    demo = load_suites()["demo"]
    keys = demo.groups["Average"]
    values = (0.1, 0.2, 0.3, 0.4, 0.5)
    results = {k: result(k, v, 0.03) for k, v in zip(keys, values, strict=True)}
    score = group_score(results, demo)
    assert score.value == pytest.approx(0.3)
    assert score.standard_error == pytest.approx(0.03 / math.sqrt(5))
    assert score.missing == ()


def test_an_incomplete_average_is_refused_by_name_unless_partial():
    suite = load_suites()["datacomp"]
    keys = suite.groups["Average"]
    results = {key: result(key, 0.5) for key in keys if not key.startswith("wilds/")}
    with pytest.raises(MissingError, match=re.escape(
        "Average of suite datacomp needs 38 tasks, 3 missing: wilds/iwildcam, wilds/camelyon17, "
        "wilds/fmow; ask for a partial average to leave them out"
    )):  # fmt: skip
        group_score(results, suite)
    partial = group_score(results, suite, partial=True)
    assert (partial.value, partial.standard_error, len(partial.missing)) == (0.5, None, 3)
    assert group_score(results, suite, "ImageNet dist. shifts").value == 0.5


def test_the_interval_of_an_average_is_that_of_the_mean_replicate():
    demo = load_suites()["demo"]
    rng = np.random.default_rng(0)
    results, drawn = {}, []
    for key in demo.groups["Average"]:
        found = share_uncertainty(rng.random(300) < 0.4, load_tasks()[key].seed)
        drawn.append(found.replicates)
        results[key] = Result(key, key, {"main_metric": 0.4}, {}, found.to_dict())
    score = group_score(results, demo)
    expected = np.quantile(np.mean(drawn, axis=0), [0.025, 0.975])
    assert score.interval == pytest.approx(tuple(expected), abs=1e-6)
    # Tasks are resampled independently, so the average is that much surer than each of them.
    assert np.std(score.replicates) == pytest.approx(score.standard_error, rel=0.1)
    results["demo/greek"] = result("demo/greek", 0.4, 0.01)
    assert group_score(results, demo).interval is None


def test_what_follows_of_an_average():
    suite, tasks = load_suites()["datacomp"], load_tasks()
    assert group_names(suite)[-2:] == (TELLING, ABOVE_CHANCE)
    assert group_names(load_suites()["demo"]) == ("Average", ABOVE_CHANCE)  # none is near chance
    keys = suite.groups["Average"]
    results = {key: result(key, tasks[key].chance, 0.01) for key in keys}
    assert group_score(results, suite, ABOVE_CHANCE).value == 0
    results |= {key: result(key, 1.0) for key in keys if tasks[key].near_chance}
    telling = group_score(results, suite, TELLING)
    assert len(telling.keys) == 33
    assert telling.value == pytest.approx(sum(tasks[key].chance for key in telling.keys) / 33)
    assert group_score(results, suite, ABOVE_CHANCE).value == pytest.approx(5 / 38)
    del results["mnist"]
    for name in (TELLING, ABOVE_CHANCE):
        with pytest.raises(MissingError, match=f"^{name} of suite datacomp needs 3[38] tasks, 1 m"):
            group_score(results, suite, name)


def test_a_task_without_main_metric_is_missing():
    demo = load_suites()["demo"]
    results = {key: result(key, None) for key in demo.groups["Average"]}
    assert group_score(results, demo, partial=True).value is None
    with pytest.raises(MissingError, match="5 missing: demo/digits"):
        group_score(results, demo)


def test_results_of_an_older_task_version_are_not_averaged():
    suite = load_suites()["datacomp"]
    results = {"imagenet1k": result("imagenet1k", 0.5, task_version=0)}
    with pytest.raises(DataError, match="imagenet1k was evaluated as version 0 of the task, the"):
        group_score(results, suite, "ImageNet")


def test_an_unknown_group_is_answered():
    with pytest.raises(UsageError, match=r"has no group 'VTBA' \(did you mean 'VTAB'\?\)"):
        group_score({}, load_suites()["datacomp"], "VTBA")


def test_seeds_combine_to_mean_and_spread():
    found = combine([0.4, 0.5, 0.6])
    assert (found.mean, found.n) == (pytest.approx(0.5), 3)
    assert found.deviation == pytest.approx(0.1)
    assert found.standard_error == pytest.approx(0.1 / math.sqrt(3))
    assert combine([0.4], 0.02) == Estimate(0.4, 0.02, 1, None)
    with pytest.raises(UsageError, match="no scores to combine"):
        combine([])


def test_t_quantiles():
    from scipy.stats import t

    for freedom in range(1, 31):
        assert t_quantile(freedom) == pytest.approx(t.ppf(0.975, freedom), abs=6e-4)
    assert (t_quantile(2.9), t_quantile(50), t_quantile(math.inf)) == (4.303, 2.042, 1.96)


def test_runs_on_other_data_are_not_put_side_by_side():
    one, two = (result("mnist", 0.5, data=data, task_version=1) for data in ("aa", "bb"))
    check_comparable(
        {"a": {"mnist": one}, "b": {"mnist": one}, "peer": {"mnist": result("mnist", 1)}}
    )
    with pytest.raises(DataError, match="mnist: b was evaluated on other data than a; evaluate bo"):
        check_comparable({"a": {"mnist": one}, "b": {"mnist": two}})


def test_the_spread_is_pooled_over_datasets():
    estimates = [combine([0.10, 0.12]), combine([0.20, 0.20]), combine([0.3])]
    spread, freedom = pooled_spread(estimates)
    # Variances 0.0002 and 0 with one degree of freedom each; the single seed knows nothing.
    assert freedom == 2
    assert spread == pytest.approx(math.sqrt((0.0002 + 0.0) / 2))
    assert pooled_spread([combine([0.3])]) == (None, 0)


def test_a_tie_is_what_the_pooled_spread_explains():
    # t at 5 degrees of freedom is 2.571, so the limit is 2.571 * 0.02 * sqrt(1/2 + 1/2).
    a, near, far = combine([0.2, 0.2]), combine([0.2514] * 2), combine([0.2515] * 2)
    assert is_tie_pooled(a, near, 0.02, 5)
    assert not is_tie_pooled(a, far, 0.02, 5)
    assert is_tie_pooled(a, far, None, 0)


def test_the_best_of_a_column_is_all_that_tie_with_it():
    # Deviations of 0.01 everywhere, freedom 3: the limit is 3.182 * 0.01 = 0.0318.
    column = {
        "low": combine([0.10, 0.10 + 0.01 * math.sqrt(2)]),
        "near": combine([0.17, 0.17 + 0.01 * math.sqrt(2)]),
        "best": combine([0.20, 0.20 + 0.01 * math.sqrt(2)]),
    }
    assert tied_best(column) == {"near", "best"}
    del column["near"]
    assert tied_best(column) == {"best"}
    assert tied_best({}) == frozenset()
    assert tied_best({"a": combine([0.1]), "b": combine([0.9])}) == {"a", "b"}


column = st.dictionaries(
    st.sampled_from("abcd"), st.lists(st.floats(0, 1), min_size=1, max_size=3), min_size=1
)


@given(column)
def test_the_highest_mean_is_always_among_the_best(scores):
    estimates = {name: combine(values) for name, values in scores.items()}
    best = tied_best(estimates)
    top = max(estimate.mean for estimate in estimates.values())
    assert {name for name, estimate in estimates.items() if estimate.mean == top} <= best
