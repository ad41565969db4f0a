import numpy as np
import pytest
from datacomp.errors import DataError
from datacomp.evaluate.groups import group_by, group_metrics, worst, worst_uncertainty

FIELDS = ("gender", "race")


def test_groups_are_all_combinations_the_first_field_fastest():
    metadata = np.array([[0, 0], [1, 0], [0, 2], [1.9, 2]])  # a fraction is cut off
    grouping = group_by(metadata, FIELDS, FIELDS)
    assert grouping.names == (
        "race:0_gender:0", "race:0_gender:1", "race:1_gender:0", "race:1_gender:1",
        "race:2_gender:0", "race:2_gender:1",
    )  # fmt: skip
    assert grouping.of.tolist() == [0, 1, 4, 5]


def test_an_empty_group_has_a_count_of_zero_and_no_accuracy():
    grouping = group_by(np.array([[0, 0], [0, 2], [0, 2]]), FIELDS, ["race"])
    hits = np.array([True, True, False])
    assert group_metrics("acc", hits, grouping) == {
        "acc_race:0": 1.0, "count_race:0": 1, "acc_race:1": None, "count_race:1": 0,
        "acc_race:2": 0.5, "count_race:2": 2,
    }  # fmt: skip
    assert worst(hits, grouping) == 0.5
    assert worst(hits, grouping, left_out=2) == 1.0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, -1], "metadata field race holds -1 to 0, expected 0 to 4999"),
        ([0, 1e12], "metadata field race holds 0 to 1e+12, expected 0 to 4999"),
        ([0, np.nan], "metadata field race holds nan to nan, expected 0 to 4999"),
    ],
)
def test_what_cannot_number_groups_is_refused(values, message):
    metadata = np.array([[0.0, value] for value in values])
    with pytest.raises(DataError) as caught:
        group_by(metadata, FIELDS, ["race"])
    assert str(caught.value) == message


def test_too_many_combinations_are_refused():
    with pytest.raises(DataError, match="metadata make 10,000 groups, at most 5,000"):
        group_by(np.array([[99, 99]]), FIELDS, FIELDS)


def test_the_worst_group_is_resampled_with_all_others():
    rng = np.random.default_rng(1)
    grouping = group_by(rng.integers(0, 3, (200, 2)), FIELDS, ["race"])
    hits = rng.random(200) < 0.5 + 0.2 * grouping.of
    found = worst_uncertainty(hits, grouping, 5)
    rng = np.random.default_rng(5)
    for replicate in found.replicates[:50]:
        chosen = rng.integers(0, 200, 200)
        of, hit = grouping.of[chosen], hits[chosen]
        assert replicate == pytest.approx(min(hit[of == group].mean() for group in range(3)))
