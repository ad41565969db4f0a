import io
import os
import pickle
import zipfile

import numpy as np
import pytest
from datacomp.errors import DataError, UnsafeInputError, UsageError
from datacomp.filters.matrices import read_matrix
from datacomp.filters.pickled_array import read_pickled_array
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3) / 7


def saved_by_torch(path, data):
    """Lay out a pickle as torch.save does."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
    return path


@given(
    arrays.arrays(
        st.sampled_from([np.float16, np.float32, np.float64]),
        arrays.array_shapes(min_dims=0, max_dims=3, max_side=4),
        elements=st.floats(-1, 1, width=16),
    ),
    st.sampled_from([2, 3, 4]),
    st.booleans(),
)
def test_a_pickled_array_is_read_without_unpickling(array, protocol, fortran):
    array = np.asfortranarray(array) if fortran else array
    found = read_pickled_array(pickle.dumps(array, protocol))
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    "value",
    [Harmful(), np.array([Harmful()], object), [1], {"a": 1}, 3, None, "text", (1, 2),
     np.array(["x"]), np.arange(3), np.arange(3, dtype=">f4"), np.array([1j])],
)  # fmt: skip
def test_any_other_pickle_is_refused_and_nothing_of_it_runs(value, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(value, protocol)
    with pytest.raises(ValueError, match=r"^not "):
        read_pickled_array(data)
    path = saved_by_torch(tmp_path / "given.pt", data)
    with pytest.raises(DataError) as caught:
        read_matrix(path)
    assert str(caught.value).startswith(f"{path}: cannot be read as pt: not ")
    assert not (tmp_path / "harmed").exists()


@given(st.binary(max_size=60))
def test_bytes_that_are_no_pickle_are_a_value_error(data):
    with pytest.raises(ValueError, match=r"."):
        read_pickled_array(data)
    with pytest.raises(ValueError, match=r"."):
        read_pickled_array(pickle.dumps(MATRIX, 4)[:-60] + data)


def test_a_matrix_is_the_same_from_every_kind_of_file(tmp_path):
    import torch
    from safetensors.numpy import save_file

    np.save(tmp_path / "a.npy", MATRIX)
    save_file({"x": MATRIX}, tmp_path / "a.safetensors")
    save_file({"x": MATRIX + 1, "centroids": MATRIX}, tmp_path / "b.safetensors")
    torch.save(torch.from_numpy(MATRIX), tmp_path / "a.pt")
    torch.save({"image_features": torch.from_numpy(MATRIX), "labels": torch.ones(2)},
               tmp_path / "b.pt")  # fmt: skip
    torch.save(MATRIX, tmp_path / "c.pt", pickle_protocol=4)  # as DataComp's centroids
    for name in ("a.npy", "a.safetensors", "b.safetensors", "a.pt", "b.pt", "c.pt"):
        found = read_matrix(tmp_path / name)
        assert found.dtype == np.float32, name
        assert np.array_equal(found, MATRIX), name


def test_what_is_no_matrix_is_one_clear_line(tmp_path):
    import torch

    def complaint(name, write):
        write(tmp_path / name)
        with pytest.raises((DataError, UsageError)) as caught:
            read_matrix(tmp_path / name)
        assert "\n" not in str(caught.value)
        return str(caught.value).removeprefix(f"{tmp_path / name}: ")

    def saving(array):
        return lambda path: np.save(path, array)

    shape = "expected rows of floating-point numbers"
    assert complaint("a.bin", lambda path: path.touch()) == (
        "expected a file named .npy, .safetensors or .pt"
    )
    assert complaint("a.npy", saving(np.ones(3))) == f"an array of float64, shape (3,); {shape}"
    assert complaint("a.npy", saving(np.ones((2, 2), int))) == (
        f"an array of int64, shape (2, 2); {shape}"
    )
    assert complaint("a.npy", saving(np.ones((0, 2)))) == (
        f"an array of float64, shape (0, 2); {shape}"
    )
    assert complaint("a.npy", saving(np.array([[np.nan]]))) == "holds NaN or infinite numbers"
    assert complaint("a.npy", saving(np.array([[None]]))).startswith("cannot be read as npy: ")
    assert complaint("a.npy", lambda path: path.write_bytes(b"x")).startswith("cannot be read as")
    assert complaint("a.safetensors", lambda path: path.write_bytes(b"x" * 20)).startswith(
        "cannot be read as safetensors: "
    )
    assert complaint("a.pt", lambda path: path.write_bytes(b"hello")) == (
        "not a matrix that torch wrote, or a damaged one"
    )
    two = {"a": torch.ones(2, 2), "b": torch.ones(2, 2)}
    assert complaint("a.pt", lambda path: torch.save(two, path)) == (
        "which tensor is meant? There are: a, b; expected one, or one named image_features, "
        "centroids, embeddings"
    )
    assert complaint("a.pt", lambda path: torch.save([torch.ones(2)], path)) == (
        "holds a list, not a tensor"
    )


@pytest.mark.parametrize("zipped", [True, False])
def test_code_beside_a_tensor_is_refused_in_our_words(tmp_path, monkeypatch, recwarn, zipped):
    import torch

    monkeypatch.chdir(tmp_path)
    content = {"image_features": torch.ones(2, 2), "more": Harmful()}
    torch.save(content, "a.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeInputError) as caught:
        read_matrix(tmp_path / "a.pt")
    assert str(caught.value) == (
        f"{tmp_path}/a.pt: refused, loading it would run code (posix.mkdir); export its tensors "
        "as safetensors where it comes from"
    )
    assert not recwarn.list
    assert not (tmp_path / "harmed").exists()


def test_a_bomb_is_not_unpacked(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    (tmp_path / "a.pt").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match=r"it is compressed, which torch never does$"):
        read_matrix(tmp_path / "a.pt")
