import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.errors import DataError, MissingError, UsageError
from datacomp.pools import Pool, neighbours
from datacomp.pools.features import Features
from datacomp.pools.neighbours import Sketches, build, find, nearest, vector_of
from datacomp.pools.sources import open_source
from hypothesis import given, settings
from hypothesis import strategies as st

ROWS, DIMENSION = 3000, 40


def cosines_of(vectors, wanted):
    wide = vectors.astype(np.float64)
    return wide @ wanted / np.linalg.norm(wide, axis=1) / np.linalg.norm(wanted)


@pytest.fixture(scope="module")
def vectors():
    """Features as CLIP's are: around a mean of their own, in clusters."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((100, DIMENSION))
    found = centres[rng.integers(0, 100, ROWS)] + 0.5 * rng.standard_normal((ROWS, DIMENSION)) + 2
    return found.astype(np.float16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, vectors):
    folder = tmp_path_factory.mktemp("neighbours") / "m"
    folder.mkdir()
    for number in range(2):
        part = slice(number * ROWS // 2, (number + 1) * ROWS // 2)
        uids = [f"{i:032x}" for i in range(ROWS)[part]]
        pq.write_table(pa.table({"uid": uids}), folder / f"{number}.parquet")
        np.savez(folder / f"{number}.npz", l14_img=vectors[part])
    return folder


@pytest.fixture
def pool(tmp_path, folder):
    with Pool.create(tmp_path / "pool.duckdb") as made:
        made.add(open_source("commonpool", folder))
        yield made


def test_the_nearest_are_those_of_the_largest_cosine(pool, vectors):
    features = Features(pool, "l14_img")
    wanted = vector_of(features, 7)
    assert wanted.dtype == np.float32
    assert wanted.tolist() == vectors[7].astype(np.float32).tolist()
    found = nearest(features, wanted, 20)
    cosines = cosines_of(vectors, wanted)
    assert set(found.uids["f1"].tolist()) == set(np.argsort(-cosines, kind="stable")[:20].tolist())
    np.testing.assert_allclose(found.cosines, np.sort(cosines)[::-1][:20], atol=1e-6)
    assert found.uids["f1"][0] == 7
    assert (found.compared, found.sketched) == (ROWS, False)


def test_only_some_samples_can_be_searched(pool, vectors):
    found = nearest(Features(pool, "l14_img"), vectors[7].astype(np.float32), 3,
                    "SELECT uid FROM samples WHERE uid > 2900")  # fmt: skip
    assert (found.uids["f1"] > 2900).all()
    assert found.compared == 99


@pytest.mark.parametrize("batch", [1, 7, 4096])
def test_ties_are_in_the_order_of_uids_whatever_the_batches(tmp_path, commonpool, batch):
    with Pool.open(commonpool(tmp_path / "m", files=3, rows=10)) as pool:  # all point one way
        features = Features(pool, "l14_img")
        given_batches = features.batches
        features.batches = lambda relation: given_batches(relation, batch)
        found = nearest(features, np.ones(12), 5)
        assert found.uids["f1"].tolist() == [1, 2, 3, 4, 5]  # sample 0 is the zero vector
        assert found.compared == 30


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (np.ones(3), "a vector of shape (3,), but l14_img has 40 dimensions"),
        (np.zeros(40), "a vector of no direction: nothing is like it"),
        (np.full(40, np.nan), "a vector of no direction: nothing is like it"),
        (np.full(40, np.inf), "a vector of no direction: nothing is like it"),
    ],
)
def test_what_cannot_be_looked_for_is_one_line(pool, vector, message):
    with pytest.raises(DataError) as caught:
        nearest(Features(pool, "l14_img"), vector, 3)
    assert str(caught.value) == message


def test_a_sample_without_a_feature_is_named(pool):
    with pytest.raises(MissingError, match=f"sample {9999:032x} has no feature l14_img"):
        vector_of(Features(pool, "l14_img"), 9999)


def test_sketches_find_what_an_exact_search_finds(pool, vectors, monkeypatch):
    monkeypatch.setattr(neighbours, "CANDIDATES", 300)
    build(pool, "l14_img")
    features = Features(pool, "l14_img")
    sketches = Sketches(pool.path, "l14_img")
    hits = 0
    for row in range(0, ROWS, 300):
        wanted = vectors[row].astype(np.float32)
        exact, rough = nearest(features, wanted, 10), sketches.nearest(features, wanted, 10)
        assert (rough.compared, rough.sketched) == (ROWS, True)
        assert rough.uids["f1"][0] == row
        common = set(exact.uids.tolist()) & set(rough.uids.tolist())
        hits += len(common)
        # Whatever is found has the cosine that the exact search gives it.
        told = dict(zip(exact.uids.tolist(), exact.cosines.tolist(), strict=True))
        pairs = zip(rough.uids.tolist(), rough.cosines.tolist(), strict=True)
        assert all(abs(told[uid] - cosine) < 1e-6 for uid, cosine in pairs if uid in common)
    assert hits >= 90  # of 100, by a tenth of the candidates


def test_the_same_features_give_the_same_sketches_whatever_the_slices(pool, vectors, monkeypatch):
    first = {f.name: f.read_bytes() for f in build(pool, "l14_img").iterdir()}
    wanted = vectors[5].astype(np.float32)
    features = Features(pool, "l14_img")
    found = Sketches(pool.path, "l14_img").nearest(features, wanted, 50)
    monkeypatch.setattr(neighbours, "_SLICE", 777)
    again = {f.name: f.read_bytes() for f in build(pool, "l14_img").iterdir()}
    assert first == again
    assert len(first["codes.bin"]) == ROWS * 8  # 40 bits in whole words
    other = Sketches(pool.path, "l14_img").nearest(features, wanted, 50)
    assert other.uids.tolist() == found.uids.tolist()


def test_samples_that_are_gone_are_not_found_and_new_ones_are_missed(pool, vectors):
    build(pool, "l14_img")
    pool.sql("DELETE FROM samples WHERE uid = 5")
    features = Features(pool, "l14_img")
    found = Sketches(pool.path, "l14_img").nearest(features, vectors[5].astype(np.float32), 9)
    assert 5 not in found.uids["f1"].tolist()
    assert len(found.uids) == 9


def test_features_that_have_changed_since_are_found_by_their_uids(tmp_path, folder, vectors):
    shutil.copytree(folder, tmp_path / "m")
    with Pool.create(tmp_path / "pool.duckdb") as pool:
        pool.add(open_source("commonpool", tmp_path / "m"))
        build(pool, "l14_img")
        sketches = Sketches(pool.path, "l14_img")
        assert sketches.features(pool, "l14_img").dtype == np.float16
        with np.load(tmp_path / "m/1.npz") as arrays:  # the same, but the last is like the first
            changed = arrays["l14_img"].copy()
        changed[-1] = vectors[5]
        np.savez(tmp_path / "m/1.npz", l14_img=changed)
        features = sketches.features(pool, "l14_img")
        wanted = vectors[5].astype(np.float32)
        assert find(pool, "l14_img", wanted, 2).uids["f1"].tolist()[0] == 5
        exact = nearest(features, changed[-2].astype(np.float32), 5)
        found = sketches.nearest(features, changed[-2].astype(np.float32), 5)
        assert found.uids[0] == exact.uids[0]
        assert vector_of(features, ROWS - 1).tolist() == wanted.tolist()
        np.savez(tmp_path / "m/1.npz", l14_img=np.ones((ROWS // 2, 3), np.float16))
        assert len(find(pool, "l14_img", wanted, 5).uids) == 5  # of the other file
        (tmp_path / "m/1.npz").unlink()
        assert find(pool, "l14_img", wanted, 1).uids["f1"].tolist() == [5]


def test_large_pools_need_sketches(pool, vectors, monkeypatch):
    wanted = vectors[5].astype(np.float32)
    assert not find(pool, "l14_img", wanted, 3).sketched
    monkeypatch.setattr(neighbours, "EXACT", 100)
    with pytest.raises(MissingError) as caught:
        find(pool, "l14_img", wanted, 3)
    assert str(caught.value) == (
        f"{pool.path}: no sketches of l14_img; make them with "
        f"'datacomp pool browse {pool.path} --sketch l14_img'"
    )
    build(pool, "l14_img")
    assert find(pool, "l14_img", wanted, 3).sketched


@pytest.mark.parametrize(
    "file", ["codes.bin", "uids.bin", "places.bin", "centre.bin", "about.json"]
)
def test_broken_sketches_are_refused(pool, file):
    place = build(pool, "l14_img")
    if file == "about.json":
        (place / file).write_text("{}")
        message = f"{place}: not sketches; remove the folder"
    else:
        os.truncate(place / file, 8)
        message = f"{place}: broken sketches; remove the folder and make them again"
    with pytest.raises(DataError) as caught:
        Sketches(pool.path, "l14_img")
    assert str(caught.value) == message
    shutil.rmtree(place)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "x" * 200, "é"])
def test_a_name_is_no_path(pool, name):
    with pytest.raises(UsageError, match="is no name of a feature"):
        Sketches(pool.path, name)


def test_features_are_named(pool, tmp_path, commonpool):
    assert neighbours.names_of(pool) == ["l14_img"]
    with Pool.create(tmp_path / "none.duckdb") as none:
        assert neighbours.names_of(none) == []
    with Pool.open(commonpool(tmp_path / "n")) as other:
        assert neighbours.names_of(other) == ["b32_img", "l14_img"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=200), st.integers(1, 50))
def test_the_smallest_are_the_first_of_equals(distances, count):
    before, neighbours.CANDIDATES = neighbours.CANDIDATES, count
    try:
        found = neighbours._smallest(np.array(distances, np.uint16))
    finally:
        neighbours.CANDIDATES = before
    assert sorted(found.tolist()) == sorted(np.argsort(distances, kind="stable")[:count].tolist())
