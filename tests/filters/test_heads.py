import math

import numpy as np
import pytest
from datacomp.errors import DataError, MissingError, UnsafeInputError, UsageError
from datacomp.filters import parse, registry, run_filters
from datacomp.filters.similarity import heads
from datacomp.pools.uids import to_hex
from safetensors.numpy import save_file

# (3, 4) at length one is (.6, .8). First layer: (.6 - .8, 2 * .8 + .5) = (-.2, 2.1).
WEIGHTS = {
    "layers.0.weight": np.float32([[1, -1], [0, 2]]), "layers.0.bias": np.float32([0, 0.5]),
    "layers.10.weight": np.float32([[5, 1]]), "layers.10.bias": np.float32([1]),
}  # fmt: skip
ROWS = np.float32([[3, 4], [0, 2], [0, 0], [np.inf, 1]])
LINEAR = [5 * -0.2 + 2.1 + 1, 5 * -1 + 2.5 + 1]
RELU = [2.1 + 1, 2.5 + 1]


@pytest.fixture
def weights(tmp_path):
    save_file(WEIGHTS, tmp_path / "head.safetensors")
    np.savez(tmp_path / "head.npz", **WEIGHTS)
    keras = {name.replace("weight", "kernel"): array.T if array.ndim == 2 else array
             for name, array in WEIGHTS.items() if "10" in name}  # fmt: skip
    np.savez(tmp_path / "keras.npz", **keras)
    return tmp_path


def kept(pool, text):
    found = run_filters(pool, [parse(text)])
    return [int(uid, 16) for uid in to_hex(found.uids)], found.steps[0].reasons


def scores(path, activation, output):
    class Batch:
        features = {"l14_img": ROWS}  # noqa: RUF012

    heads.load.cache_clear()
    return heads.HeadScorer("nsfw", path, "l14_img", activation, output).score(Batch)


@pytest.mark.parametrize("name", ["head.safetensors", "head.npz"])
def test_networks_by_hand(weights, name):
    for activation, expected in (("none", LINEAR), ("relu", RELU)):
        found = scores(weights / name, activation, "none")
        assert found[:2] == pytest.approx(expected, abs=1e-6)
        assert found[2:] == [None, None]
    squashed = scores(weights / name, "relu", "sigmoid")[:2]
    assert squashed == pytest.approx([1 / (1 + math.exp(-x)) for x in RELU], abs=1e-6)


def test_a_matrix_may_be_written_either_way(weights):
    assert scores(weights / "keras.npz", "none", "none")[:2] == pytest.approx([4.8, 2], abs=1e-6)


def test_a_torch_state_dictionary(weights):
    torch = pytest.importorskip("torch")
    torch.save({name: torch.from_numpy(a) for name, a in WEIGHTS.items()}, weights / "head.pth")
    assert scores(weights / "head.pth", "none", "none")[:2] == pytest.approx(LINEAR, abs=1e-6)


def test_what_stays(features_of, weights):
    pool = features_of(l14_img=ROWS)
    heads.load.cache_clear()
    file = weights / "head.safetensors"
    assert kept(pool, f"aesthetic:weights_file={file},min=2") == (
        [0], {"no_features": 2, "not_beautiful": 1}
    )  # fmt: skip
    assert kept(pool, f"nsfw:weights_file={file},max=3.3,output=none") == (
        [0], {"no_features": 2, "unsafe": 1}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"a.weight": np.ones((1, 3)), "a.bias": np.ones(1)}, "cannot take 2 numbers; is it for"),
        ({"a.weight": np.ones((3, 2)), "a.bias": np.ones(3)}, "the last layer gives 3 numbers"),
        ({"a.weight": np.ones((1, 2)), "a.bias": np.ones(4)}, "with 4 biases cannot take 2"),
        ({"a.weight": np.ones((1, 2))}, "a.weight has no a.bias beside it"),
        ({"a.bias": np.ones(1)}, "no matrices of finite numbers"),
        ({"a.weight": np.full((1, 2), np.nan), "a.bias": np.ones(1)}, "no matrices of finite"),
        ({"a.weight": np.array([["x"]], object), "a.bias": np.ones(1)}, "cannot be read as npz"),
    ],
)
def test_weights_that_are_none(tmp_path, arrays, complaint):
    np.savez(tmp_path / "head.npz", **arrays)
    with pytest.raises(DataError, match=complaint):
        scores(tmp_path / "head.npz", "none", "none")


def test_files_that_are_none(tmp_path, monkeypatch):
    (tmp_path / "head.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read as npz"):
        scores(tmp_path / "head.npz", "none", "none")
    with pytest.raises(MissingError, match=r"^nsfw: no weights at "):
        scores(tmp_path / "gone.npz", "none", "none")
    np.savez_compressed(tmp_path / "big.npz", **{"a.weight": np.zeros((1, 5000)), "a.bias": [0.0]})
    monkeypatch.setattr(heads, "_MAX_BYTES", 4000)
    with pytest.raises(UnsafeInputError, match="bytes once unpacked; not read"):
        scores(tmp_path / "big.npz", "none", "none")


def test_wrong_parameters():
    for name, wrong in (("aesthetic", {}), ("nsfw", {"weights_file": "x", "activation": "tanh"})):
        with pytest.raises(UsageError, match=rf"^filter {name}: parameter "):
            registry.create(name, wrong)
