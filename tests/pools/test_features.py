import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.errors import DataError, MissingError
from datacomp.pools import Pool
from datacomp.pools.features import FeatureArray, Features, feature_names
from datacomp.pools.sources import open_source
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(params=["copied", "linked", "folder"])
def pool(request, tmp_path, commonpool):
    folder = commonpool(tmp_path / "m", files=3, rows=7)
    if request.param == "folder":
        made = Pool.open(folder)
    else:
        made = Pool.create(tmp_path / "pool.duckdb")
        made.add(open_source("commonpool", folder, link=request.param == "linked"))
    with made:
        yield made


def together(batches):
    """Return (low half of the uid, first number of the vector) of every row, in order."""
    return [
        (int(uid), float(row[0]))
        for uids, vectors in batches
        for uid, row in zip(uids["f1"], vectors, strict=True)
    ]


def expected(numbers):
    return [(n, float(n)) for n in numbers]


def test_features_are_those_of_their_samples(pool):
    features = Features(pool, "l14_img")
    assert (features.dimension, features.dtype) == (12, np.float16)
    assert together(features.batches(batch_size=3)) == expected(range(21))
    sizes = [len(uids) for uids, vectors in features.batches(batch_size=5)]
    assert sizes == [5, 2] * 3
    uids, vectors = next(features.batches())
    assert (vectors.shape, vectors.dtype, len(uids)) == ((7, 12), np.float16, 7)
    assert (features.left_out, features.without) == ([], 0)


def test_features_of_some_samples_are_read_while_the_pool_is_written_to(pool):
    features = Features(pool, "b32_img")
    found = []
    for uids, vectors in features.batches("SELECT uid FROM samples WHERE uid % 4 = 1", 2):
        pool.sql("CREATE OR REPLACE TABLE t AS SELECT 1")
        found += together([(uids, vectors)])
    assert found == expected(range(1, 21, 4))
    assert together(features.batches("SELECT uid FROM samples WHERE false")) == []
    tables = "SELECT count(*) FROM duckdb_tables() WHERE starts_with(table_name, '_features')"
    assert pool.scalar(tables) == 0


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(0, 40), dimension=st.integers(1, 5), compressed=st.booleans(),
    kind=st.sampled_from(["f2", "f4", "f8"]), data=st.data(),
)  # fmt: skip
def test_rows_are_read_as_they_were_written(tmp_path_factory, rows, dimension, compressed, kind,
                                            data):  # fmt: skip
    path = tmp_path_factory.mktemp("f") / "a.npz"
    array = np.random.default_rng(rows).standard_normal((rows, dimension)).astype(kind)
    (np.savez_compressed if compressed else np.savez)(path, other=np.arange(3), x=array)
    wanted = np.array(sorted(data.draw(st.sets(st.integers(0, max(0, rows - 1))))), np.int64)
    wanted = wanted[wanted < rows]
    with FeatureArray(path, "x") as found:
        assert (found.rows, found.dimension, found.dtype) == (rows, dimension, array.dtype)
        halves = np.array_split(wanted, 2)
        taken = np.concatenate([found.take(half) for half in halves])
    assert taken.dtype == array.dtype
    assert taken.tobytes() == array[wanted].tobytes()
    assert feature_names(path) == ["other", "x"]


def left_out(pool, name="l14_img"):
    features = Features(pool, name)
    found = together(features.batches())
    listed = [(item.item, item.reason, item.detail) for item in features.left_out]
    return found, listed, features.without


def test_files_whose_features_do_not_fit_are_passed_over_and_named(tmp_path, commonpool):
    folder = commonpool(tmp_path / "m", files=7, rows=3)
    np.savez(folder / "01ab.npz", l14_img=np.zeros((2, 12), "f2"))
    (folder / "02ab.npz").unlink()
    (folder / "03ab.npz").write_bytes((folder / "03ab.npz").read_bytes()[:200])
    np.savez(folder / "04ab.npz", l14_img=np.zeros((3, 4), "f2"))
    np.savez(folder / "05ab.npz", l14_txt=np.zeros((3, 12), "f2"))
    with Pool.open(folder) as pool:
        found, listed, without = left_out(pool)
    assert (found, without) == (expected([0, 1, 2, 18, 19, 20]), 15)
    assert listed == [
        ("01ab.parquet", "features_broken",
         f"{folder}/01ab.npz: l14_img has 2 rows, but 01ab.parquet 3"),
        ("02ab.parquet", "features_missing", f"{folder}/02ab.npz: no such file of features"),
        ("03ab.parquet", "features_broken",
         f"{folder}/03ab.npz: l14_img cannot be read: File is not a zip file"),
        ("04ab.parquet", "features_broken",
         f"{folder}/04ab.npz: l14_img has 4 float16 a row, other files 12 float16"),
        ("05ab.parquet", "features_missing",
         f"{folder}/05ab.npz: no features 'l14_img'; there are: l14_txt"),
    ]  # fmt: skip


def test_a_compressed_array_that_ends_too_soon_is_named(tmp_path, commonpool):
    folder = commonpool(tmp_path / "m", files=1, rows=2000, features=())
    path = folder / "00ab.npz"
    np.savez_compressed(path, l14_img=np.random.default_rng(0).standard_normal((2000, 12)))
    data = bytearray(path.read_bytes())
    data[90_000:90_100] = bytes(100)
    path.write_bytes(data)
    with Pool.open(folder) as pool:
        features = Features(pool, "l14_img")
        got = sum(len(uids) for uids, _ in features.batches(batch_size=100))
    assert 0 < got < 2000
    assert features.without == 2000 - got
    assert [item.reason for item in features.left_out] == ["features_broken"]


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.zeros(3), "an array of float64, shape (3,), not rows of numbers"),
        (np.zeros((3, 2), int), "an array of int64, shape (3, 2), not rows of numbers"),
        (np.asfortranarray(np.zeros((3, 2))),
         "an array of float64, shape (3, 2), not rows of numbers"),
        (np.array([[{}]], object), "an array of object, shape (1, 1), not rows of numbers"),
    ],
)  # fmt: skip
def test_what_is_no_array_of_features_is_refused(tmp_path, array, why):
    path = tmp_path / "a.npz"
    np.savez(path, x=array)
    with pytest.raises(DataError) as caught:
        FeatureArray(path, "x")
    assert str(caught.value) == f"{path}: x cannot be read: {why}"


def test_an_archive_that_lies_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((100, 4)))
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("x.npy").header_offset
    path.write_bytes(whole[:start] + b"XX" + whole[start + 2 :])
    with pytest.raises(DataError, match=r"a\.npz: x cannot be read: "):
        FeatureArray(path, "x")
    with zipfile.ZipFile(path, "w") as archive:
        header = b"\x93NUMPY\1\0" + (118).to_bytes(2, "little")
        text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 512), }"
        archive.writestr("x.npy", header + text.ljust(117) + b"\n")
    with pytest.raises(DataError) as caught:
        FeatureArray(path, "x")
    assert str(caught.value) == (
        f"{path}: x cannot be read: 128 bytes, which is not its shape (9999999999, 512)"
    )
    path.write_bytes(b"x")
    with pytest.raises(DataError) as caught:
        feature_names(path)
    assert str(caught.value) == f"{path}: not an .npz of features: File is not a zip file"


def test_a_link_that_leaves_the_folder_is_not_followed(tmp_path, commonpool):
    folder = commonpool(tmp_path / "m", files=2)
    (folder / "01ab.npz").rename(tmp_path / "away.npz")
    (folder / "01ab.npz").symlink_to(tmp_path / "away.npz")
    with Pool.open(folder) as pool:
        assert left_out(pool)[1] == [
            ("01ab.parquet", "features_broken", f"01ab.npz: lies outside {folder}")
        ]


def test_a_pool_without_features_says_so(tmp_path, commonpool, empty, given, record):
    with pytest.raises(MissingError) as caught:
        Features(empty, "l14_img")
    assert str(caught.value) == (
        f"{empty.path}: the pool does not know where its samples' features are; add DataComp's "
        "metadata with --kind commonpool, or compute features with 'datacomp pool embed'"
    )
    folder = commonpool(tmp_path / "m", features=())
    with Pool.open(folder) as pool, pytest.raises(MissingError) as caught:
        Features(pool, "l14_img")
    assert str(caught.value) == f"{folder}/00ab.npz: no such file of features"


def test_one_file_of_metadata_has_its_features_beside_it(tmp_path, commonpool, empty):
    empty.add(open_source("commonpool", commonpool(tmp_path / "m") / "01ab.parquet"))
    assert together(Features(empty, "l14_img").batches()) == expected(range(5, 10))


def test_features_are_found_however_the_rows_are_stored(tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    uids = [f"{n:032x}" for n in range(1000)]
    pq.write_table(pa.table({"uid": uids[::-1]}), folder / "a.parquet", row_group_size=64)
    np.savez(folder / "a.npz", x=np.arange(1000, dtype="f4")[::-1, None])
    with Pool.open(folder, threads=4) as pool:
        assert sorted(together(Features(pool, "x").batches())) == expected(range(1000))
