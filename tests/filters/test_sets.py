import re

import numpy as np
import pytest
from datacomp.errors import DataError, RunError
from datacomp.filters import Scorer, SetScorer
from datacomp.filters.sets import Samples, set_digest, write_set_scores


class Rank(SetScorer):
    """The place of a caption's length among all; what has no caption has none."""

    name = "rank"
    type = "INTEGER"
    columns = ("text",)
    batch_size = 2

    def identity(self):
        return {}

    def score_set(self, samples):
        lengths = {}
        for uids, batch in samples.batches():
            assert len(uids) == len(batch) <= 2
            for uid, text in zip(uids.tolist(), batch.columns["text"].to_pylist(), strict=True):
                if text:
                    lengths[uid] = len(text)
        order = sorted(lengths, key=lambda uid: (lengths[uid], uid))
        for place, uid in enumerate(order):
            yield np.array([uid], "<u8,<u8"), [place]


class Broken(Rank):
    name = "broken"

    def __init__(self, parts):
        self.parts = parts

    def score_set(self, samples):
        uids = next(samples.batches(10))[0]
        for part in self.parts:
            if part == "stop":
                raise KeyboardInterrupt
            yield uids[:2], part


class Foreign(Rank):
    name = "foreign"

    def score_set(self, samples):
        yield np.array([(0, 1), (0, 9), (9, 9)], "<u8,<u8"), [1, 2, 3]


class Uncertain(Rank):
    name = "uncertain"
    type = "DOUBLE"

    def score_set(self, samples):
        for uids, _ in samples.batches():
            yield uids, np.where(uids["f1"] < 2, np.nan, 0.5)


@pytest.fixture
def pool(pool_of):
    return pool_of(text=["ccc", "a", "", "bb", "a"])


@pytest.fixture
def members(pool):
    pool.sql("CREATE TEMP TABLE members AS SELECT uid, text FROM samples ORDER BY uid")
    pool.sql("CREATE TABLE scored (uid UHUGEINT, value INTEGER)")
    return "members"


def stored(pool):
    return pool.sql("SELECT uid::INTEGER, value FROM scored ORDER BY uid").fetchall()


def test_every_sample_gets_its_value_or_null(pool, members):
    write_set_scores(pool, members, Rank(), "scored")
    assert stored(pool) == [(0, 3), (1, 0), (2, None), (3, 2), (4, 1)]


def test_what_is_scored_is_not_scored_again(pool, members):
    write_set_scores(pool, members, Rank(), "scored")
    write_set_scores(pool, members, Broken(["stop"]), "scored")
    assert len(stored(pool)) == 5


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [([[1]], r"^scorer broken \(.*test_sets.py:\d+\) returned 1 values for 2 samples"),
     ([[1, 2], [3, 4]], r"^scorer broken \(.*test_sets.py:\d+\) gave 2 samples several values")],
)  # fmt: skip
def test_wrong_values_leave_nothing(pool, members, parts, complaint):
    with pytest.raises(RunError, match=complaint):
        write_set_scores(pool, members, Broken(parts), "scored")
    assert stored(pool) == []


def test_values_of_others_are_refused(pool, members):
    with pytest.raises(RunError) as caught:
        write_set_scores(pool, members, Foreign(), "scored")
    assert re.fullmatch(
        r"scorer foreign \(.*test_sets.py:\d+\) gave values to 2 uids that are not "
        "among its samples",
        str(caught.value),
    )
    assert stored(pool) == []


def test_nan_is_no_value(pool, members):
    pool.sql("CREATE OR REPLACE TABLE scored (uid UHUGEINT, value DOUBLE)")
    write_set_scores(pool, members, Uncertain(), "scored")
    assert stored(pool) == [(0, None), (1, None), (2, 0.5), (3, 0.5), (4, 0.5)]


def test_an_interrupted_run_leaves_nothing(pool, members):
    with pytest.raises(KeyboardInterrupt):
        write_set_scores(pool, members, Broken([[1, 2], "stop"]), "scored")
    assert stored(pool) == []
    write_set_scores(pool, members, Rank(), "scored")
    assert len(stored(pool)) == 5


def test_the_set_belongs_to_the_name(pool, members):
    whole = set_digest(pool, members, Rank())
    assert set_digest(pool, members, Rank()) == whole
    assert set_digest(pool, members, Broken([])) != whole
    pool.sql("DELETE FROM members WHERE uid = 3")
    assert set_digest(pool, members, Rank()) != whole


def test_samples_are_read_as_often_as_wanted(pool, members):
    samples = Samples(pool, members, Rank())
    assert samples.count == 5
    for size in (1, 3, 100):
        read = [list(zip(uids["f1"].tolist(), batch.columns["text"].to_pylist(), strict=True))
                for uids, batch in samples.batches(size)]  # fmt: skip
        assert max(map(len, read)) <= size
        assert [row for part in read for row in part] == [
            (0, "ccc"), (1, "a"), (2, ""), (3, "bb"), (4, "a")
        ]  # fmt: skip


def test_features_that_do_not_go_together(features_of):
    class Both(Rank):
        columns = ()
        features = ("l14_img", "l14_txt")

    rows = np.ones((6, 2), np.float32)
    pool = features_of(2, l14_img=rows, l14_txt=rows)
    pool.sql("CREATE TEMP TABLE members AS SELECT uid FROM samples ORDER BY uid")
    samples = Samples(pool, "members", Both())
    assert [len(uids) for uids, _ in samples.batches(2)] == [2, 1, 2, 1]
    (path,) = pool.source_paths().values()
    np.savez(path / "01.npz", l14_img=rows[:3])
    with pytest.raises(DataError, match="not every sample with the features l14_img has l14_txt"):
        list(samples.batches())


def test_a_set_scorer_scores_nothing_by_itself():
    assert issubclass(SetScorer, Scorer)
    with pytest.raises(TypeError, match=r"^rank scores whole sets, not 0 samples by themselves"):
        Rank().score([])
