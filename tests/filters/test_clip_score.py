import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.errors import DataError, MissingError, UnsafeInputError, UsageError
from datacomp.filters import FilterSpec, parse, run_filters
from datacomp.pools import Pool
from datacomp.pools.sources import open_source
from datacomp.pools.uids import to_hex
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

COLUMN = "clip_l14_similarity_score"


def kept(pool, spec):
    return [int(uid, 16) for uid in to_hex(run_filters(pool, [spec]).uids)]


def by_column(**parameters):
    return FilterSpec("clip_score", {"column": COLUMN, **parameters})


# -- which samples stay --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    with Pool.create(tmp_path_factory.mktemp("scored") / "pool.duckdb") as pool:
        pool.sql(f"ALTER TABLE samples ADD COLUMN {COLUMN} FLOAT")
        yield pool


def fill(pool, scores):
    pool.sql("DELETE FROM samples")
    column = pa.array(scores, pa.float32(), from_pandas=False)
    pool.connection.register("given", pa.table({"n": range(len(scores)), "s": column}))
    pool.sql(f"INSERT INTO samples (uid, {COLUMN}) SELECT n, s FROM given")
    pool.connection.unregister("given")


def is_known(score):
    return score is not None and not np.isnan(score)


def datacomp(scores, fraction):
    """Select as DataComp's baselines.py does: n-th of the descending scores, then >=.

    None stands for a threshold that is no number, with which DataComp keeps nothing.
    """
    values = np.array([np.nan if s is None else s for s in scores], np.float32)
    ordered = -np.sort(-values)
    n = int(len(values) * fraction)
    threshold = ordered[n] if n < len(ordered) else -np.inf  # DataComp fails at fraction 1
    if np.isnan(threshold):
        return None
    return np.flatnonzero(values >= threshold).tolist()


def exactly(scores, fraction):
    """Select int(n * fraction) of the n that have a score, of ties the smallest uids."""
    known = [i for i, s in enumerate(scores) if is_known(s)]
    ranked = sorted(known, key=lambda i: (-np.float32(scores[i]), i))
    return sorted(ranked[: max(1, int(len(known) * fraction))])


SCORES = st.lists(
    st.none() | st.just(float("nan")) | st.sampled_from([0.28, 0.3, -0.0, 0.0])
    | st.floats(-1, 1, width=32), min_size=1, max_size=40,
)  # fmt: skip
SAME_POOL = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SAME_POOL
@given(scores=SCORES, fraction=st.sampled_from([1e-6, 0.1, 0.29, 0.3, 0.5, 0.999, 1.0]))
@example(scores=[0.3] * 10, fraction=0.3)
@example(scores=[float(i) / 7 for i in range(10)], fraction=0.3)
def test_a_fraction_keeps_what_datacomp_keeps(scored, scores, fraction):
    fill(scored, scores)
    if not any(map(is_known, scores)):
        with pytest.raises(DataError, match=f"no sample has a score: all of {COLUMN} are empty"):
            kept(scored, by_column(fraction=fraction))
        return
    assert kept(scored, by_column(fraction=fraction, exact=False)) == exactly(scores, fraction)
    expected = datacomp(scores, fraction)
    if expected is None:
        known = sum(map(is_known, scores))
        with pytest.raises(DataError) as caught:
            kept(scored, by_column(fraction=fraction))
        assert str(caught.value) == (
            f"clip_score: fraction {fraction} of {len(scores):,} samples asks for more than the "
            f"{known:,} that have a score; exact=false counts these only"
        )
    else:
        assert kept(scored, by_column(fraction=fraction)) == expected


@SAME_POOL
@given(scores=SCORES, threshold=st.sampled_from([0.28, 0.3, 1e-30, -0.5]) | st.floats(-1, 1))
@example(scores=[0.1, 0.2, 0.3], threshold=0.1)
def test_a_threshold_is_compared_in_float32(scored, scores, threshold):
    fill(scored, scores)
    expected = [
        i for i, s in enumerate(scores)
        if is_known(s) and np.float32(s) >= np.float32(threshold)
    ]  # fmt: skip
    assert kept(scored, by_column(threshold=threshold)) == expected


def test_ties_stay_together_and_one_more_than_the_fraction(scored):
    fill(scored, [0.1 * i for i in range(10)])
    chosen = run_filters(scored, [by_column(fraction=0.3)])
    assert len(chosen.uids) == 4
    fill(scored, [0.5] * 7 + [0.1, None, float("nan")])
    chosen = run_filters(scored, [parse("clip_score:arch=l14")])
    assert chosen.steps[0].reasons == {"no_score": 2, "low_clip_score": 1}
    assert len(chosen.uids) == 7
    assert kept(scored, parse("clip_score:arch=l14,exact=false")) == [0, 1]


def test_a_score_that_is_not_there_says_where_it_comes_from(pool_of):
    pool = pool_of(text=["a"])
    with pytest.raises(MissingError) as caught:
        kept(pool, parse("clip_score:arch=b32"))
    assert str(caught.value).startswith(
        f"{pool.path}: the pool has no column 'clip_b32_similarity_score'"
    )
    assert str(caught.value).endswith(
        "; DataComp's metadata has it ('datacomp pool add POOL METADATA_DIR'); else bring it as a "
        "column of a source ('datacomp pool add'), or let 'datacomp filter run POOL "
        "clip_score:checkpoint=FILE,model=ARCHITECTURE' score"
    )
    with pytest.raises(UsageError) as wrong:
        kept(pool, parse("clip_score:column=text"))
    assert str(wrong.value) == (
        "clip_score: column 'text' is no score: it has 'a', expected numbers"
    )
    with pytest.raises(UsageError, match="parameter threshold is nan, expected a finite number"):
        kept(pool_of("numbers", s=[1.0]), parse("clip_score:column=s,threshold=nan"))


def test_the_score_of_features_that_came_as_a_column_is_named(tmp_path, commonpool):
    folder = commonpool(tmp_path / "m")
    with Pool.open(folder) as pool, pytest.raises(MissingError) as caught:
        run_filters(pool, [FilterSpec("clip_score", {"features": "b32"})])
    assert str(caught.value) == (
        f"{folder}: no features 'b32' were computed on it, but it has their score as a column: "
        "clip_score:column=clip_b32_similarity_score"
    )


def test_numbers_written_as_text_are_scores(pool_of):
    pool = pool_of(s=["0.5", "0.25", "1e-3", None])
    assert len(kept(pool, parse("clip_score:column=s,threshold=0.25"))) == 2


@pytest.mark.parametrize("nan", [[0.9, np.nan, 0.5, np.nan], [np.nan, 0.9, np.nan, 0.5]])
def test_nan_in_parquet_is_no_score_whatever_the_file_notes_of_its_numbers(tmp_path, nan):
    """The file says that its numbers are from 0.5 to 0.9, and nothing of NaN."""
    uids = [f"{i:032x}" for i in range(4)]
    scores = pa.array(np.float32(nan), from_pandas=False)
    pq.write_table(pa.table({"uid": uids, COLUMN: scores}), tmp_path / "0.parquet")
    with Pool.open(tmp_path) as pool:
        found = run_filters(pool, [parse("clip_score:arch=l14,threshold=0.1")])
        assert found.steps[0].reasons == {"no_score": 2}
        assert [nan[int(uid, 16)] for uid in to_hex(found.uids)] == [0.9, 0.5]
        assert kept(pool, parse("clip_score:arch=l14,fraction=0.25")) == kept(
            pool, parse("clip_score:arch=l14,threshold=0.5")
        )
        with pytest.raises(DataError, match="asks for more than the 2 that have a score"):
            kept(pool, parse("clip_score:arch=l14,fraction=0.5"))


# -- scoring with a checkpoint -------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, tiny_run):
    """The folder of a finished run: a tiny random model."""
    return tiny_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def photos(tmp_path, picture):
    """A pool of six photos, one of which breaks after it was added."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(6):
        (folder / f"{i}.png").write_bytes(picture(i, width=40, height=30 + i))
        (folder / f"{i}.txt").write_text(f"picture number {i}")
    with Pool.create(tmp_path / "photos.duckdb") as pool:
        pool.add(open_source("folder", folder))
        (folder / "5.png").write_bytes(b"broken")
        yield pool


def scores_of(pool):
    rows = pool.sql(
        "SELECT s.shard, v.value FROM samples s JOIN score_values_1 v USING (uid) ORDER BY 1"
    ).fetchall()
    return dict(rows)


def test_scores_are_the_cosine_of_image_and_caption(photos, run_folder, tmp_path):
    from datacomp.pools.clip_model import ClipModel

    chosen = run_filters(
        photos, [parse(f"clip_score:checkpoint={run_folder},fraction=0.4,device=cpu")]
    )
    clip = ClipModel.load(
        "tiny", run_folder / "checkpoints" / "epoch_5.pt", run_folder / "model_config.json", "cpu"
    )
    data = [(tmp_path / "photos" / f"{i}.png").read_bytes() for i in range(5)]
    images, texts = (
        clip.encode_tensors([clip.prepare(image) for image in data]),
        clip.encode_texts([f"picture number {i}" for i in range(5)]),
    )
    found = scores_of(photos)
    assert "5.png" not in found
    np.testing.assert_allclose(list(found.values()), (images * texts).sum(1), rtol=0, atol=1e-6)
    assert chosen.steps[0].reasons == {"unreadable": 1, "low_clip_score": 2}
    assert len(chosen.uids) == 3
    (score,) = chosen.scores
    assert score["model"] == "tiny"
    assert len(score["weights_sha256"]) == 64


def test_a_weights_file_gives_the_same_score_column_and_nothing_is_scored_twice(
    photos, run_folder, monkeypatch
):
    from datacomp.filters.clip_score import ClipScorer

    first = run_filters(photos, [parse(f"clip_score:checkpoint={run_folder},device=cpu")])
    monkeypatch.setattr(ClipScorer, "score", lambda *_: pytest.fail("scored again"))
    weights = FilterSpec("clip_score", {
        "checkpoint": str(run_folder / "checkpoints" / "epoch_5.pt"), "model": "tiny",
        "model_config_file": str(run_folder / "model_config.json"), "device": "cpu",
    })  # fmt: skip
    second = run_filters(photos, [weights])
    assert second.scores == first.scores
    assert to_hex(second.uids) == to_hex(first.uids)
    assert photos.scalar("SELECT count(*) FROM scores") == 1


def test_new_weights_under_the_old_name_are_another_score(photos, tiny_run, tmp_path):
    folder = tiny_run(tmp_path / "run")
    spec = parse(f"clip_score:checkpoint={folder},device=cpu")
    before = run_filters(photos, [spec]).scores
    tiny_run(folder, seed=1)
    assert run_filters(photos, [spec]).scores != before
    assert photos.scalar("SELECT count(*) FROM scores") == 2


def test_only_what_is_left_of_a_chain_is_scored(photos, run_folder):
    chain = [
        parse("image_size:min_side=0,max_aspect=1.3"),
        parse(f"clip_score:checkpoint={run_folder}"),
    ]
    run_filters(photos, chain, "then")
    assert sorted(scores_of(photos)) == ["1.png", "2.png", "3.png", "4.png"]


def test_a_folder_that_is_no_finished_run_is_one_clear_line(pool_of, tiny_run, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    pool, spec = pool_of(text=["a"]), FilterSpec("clip_score", {"checkpoint": str(run)})
    with pytest.raises(MissingError) as caught:
        kept(pool, spec)
    assert str(caught.value) == f"no run at {run}: info.json is not there"
    tiny_run(run, status="running")
    with pytest.raises(MissingError, match="the run is not finished; give the same 'datacomp t"):
        kept(pool, spec)
    tiny_run(run, checkpoint="/etc/passwd")
    with pytest.raises(UnsafeInputError, match="checkpoint '/etc/passwd' leaves the run's dir"):
        kept(pool, spec)
    tiny_run(run, checkpoint="gone.pt")
    with pytest.raises(MissingError, match=r"^no checkpoint at .*/gone\.pt; train the model or"):
        kept(pool, spec)


def test_a_missing_or_nameless_checkpoint_is_one_clear_line(pool_of, photos, tmp_path):
    pool = pool_of(text=["a"])
    with pytest.raises(MissingError) as caught:
        kept(pool, parse("clip_score:checkpoint=/none/a.pt,model=ViT-B-32"))
    assert str(caught.value) == "clip_score: no checkpoint at /none/a.pt"
    (tmp_path / "a.pt").write_bytes(os.urandom(50))
    with pytest.raises(UsageError) as caught:
        kept(pool, parse(f"clip_score:checkpoint={tmp_path / 'a.pt'}"))
    assert str(caught.value) == (
        f"clip_score: the architecture of {tmp_path / 'a.pt'} is not known: name its model (no "
        "open_clip_config.json lies beside it)"
    )
    with pytest.raises(DataError) as caught:
        kept(photos, parse(f"clip_score:checkpoint={tmp_path / 'a.pt'},model=ViT-B-32"))
    assert "clip_score" in str(caught.value) or str(caught.value).startswith(str(tmp_path))
