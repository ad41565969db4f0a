import numpy as np
import pytest
from datacomp.errors import DataError, MissingError
from datacomp.filters import parse, run_filters
from datacomp.filters.similarity import seeds as module
from datacomp.pools.uids import to_hex

ROWS = np.float32([[1, 0], [3, 4], [4, 3], [0, 1], [0, 0], [-1, 0], [4, 3], [0, 9]])
SEEDS = np.float32([[2, 0], [0, 1]])


@pytest.fixture
def seed_file(tmp_path):
    np.save(tmp_path / "seeds.npy", SEEDS)
    return tmp_path / "seeds.npy"


def run(pool, text):
    found = run_filters(pool, [parse(text)])
    return [int(uid, 16) for uid in to_hex(found.uids)], found.steps[0].reasons


@pytest.mark.parametrize("rows", [1, 3, 4096])
@pytest.mark.parametrize(
    ("neighbours", "expected"),
    [
        (1, [0, 3]),  # of the equal 3 and 7 the smaller uid
        (2, [0, 2, 3, 7]),  # of the equal 2 and 6 the smaller uid
        (3, [0, 1, 2, 3, 6, 7]),
        (100, [0, 1, 2, 3, 5, 6, 7]),
    ],
)
def test_neighbours_by_hand(monkeypatch, features_of, seed_file, rows, neighbours, expected):
    monkeypatch.setattr(module, "_ROWS", rows)
    text = f"seeds:target_embeddings={seed_file},neighbours={neighbours}"
    for order in (None, np.arange(8)[::-1]):
        kept, reasons = run(features_of(3, order=order, l14_img=ROWS), text)
        assert kept == expected
        assert reasons["no_features"] == 1
        assert reasons.get("no_neighbour", 0) == 7 - len(expected)


def test_it_is_the_search_by_definition(monkeypatch, features_of, tmp_path):
    monkeypatch.setattr(module, "_ROWS", 16)
    rng = np.random.default_rng(1)
    rows, seeds = rng.standard_normal((100, 6)), rng.standard_normal((9, 6))
    np.save(tmp_path / "seeds.npy", seeds)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = sorted(set(np.argsort(-(seeds @ unit.T), axis=1)[:, :4].ravel().tolist()))
    text = f"seeds:target_embeddings={tmp_path / 'seeds.npy'}"
    assert run(features_of(l14_img=rows), text)[0] == expected


def test_what_does_not_fit(features_of, tmp_path):
    pool = features_of(l14_img=ROWS)
    with pytest.raises(MissingError, match=r"^seeds needs the asset target_embeddings: "):
        run(pool, "seeds")
    np.save(tmp_path / "other.npy", np.ones((2, 5), np.float32))
    with pytest.raises(DataError, match=r"l14_img have 2 numbers each, but the seeds in .* have 5"):
        run(pool, f"seeds:target_embeddings={tmp_path / 'other.npy'}")
