import numpy as np
from datacomp.pools import Pool
from datacomp.pools.checking import CheckReport, check_pool
from datacomp.pools.sources import SetAside, open_source


def test_nothing_is_wrong_with_good_pools(tmp_path, commonpool, empty):
    folder = commonpool(tmp_path / "m")
    assert check_pool(empty) == CheckReport(0)
    empty.add(open_source("commonpool", folder))
    assert check_pool(empty) == CheckReport(10)
    with Pool.open(folder) as pool:
        assert check_pool(pool) == CheckReport(10)


def test_what_linking_does_not_see_is_found(tmp_path, commonpool, empty):
    uids = [f"{1:032x}"] * 3 + [None, f"{8:032x}"]
    folder = commonpool(tmp_path / "m", files=1, uid=uids, text=["x" * (1 << 20) + "y", *"abcd"])
    commonpool(folder / "part_0", files=1, first=8)
    np.savez(folder / "00ab.npz", l14_img=np.zeros((4, 2), "f4"))
    empty.add(open_source("commonpool", folder, link=True))
    empty.close()
    with Pool.open(empty.path, read_only=True) as pool:
        report = check_pool(pool)
    assert report.to_dict() == CheckReport(
        10,
        {"caption_too_long": 1, "duplicate_uid": 2, "features_broken": 1, "uid_broken": 1},
        [
            SetAside("00ab.parquet: row 1", "caption_too_long"),
            SetAside("00ab.parquet: row 4", "uid_broken"),
            SetAside(f"{1:032x}", "duplicate_uid", "2 rows"),
            SetAside(f"{8:032x}", "duplicate_uid", "2 rows"),
            SetAside("00ab.npz", "features_broken",
                     f"{folder}/00ab.npz: l14_img has 4 rows, but 00ab.parquet 5"),
        ],
    ).to_dict()  # fmt: skip


def test_metadata_that_cannot_be_read_are_wrong(tmp_path, commonpool, empty):
    folder = commonpool(tmp_path / "m")
    empty.add(open_source("commonpool", folder, link=True))
    assert check_pool(empty) == CheckReport(10)
    file = folder / "00ab.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    with Pool.open(folder) as pool:
        report = check_pool(pool)
    assert (report.samples, report.problems) == (5, {"file_broken": 1})
    assert [(one.item, one.reason) for one in report.examples] == [("00ab.parquet", "file_broken")]


def test_what_is_no_metadata_is_told_once(tmp_path, commonpool, command):
    folder = commonpool(tmp_path / "m")
    (folder / "README.md").write_text("x")
    said = f"warning: {folder}: ignored what is no metadata: README.md\n"
    assert command("pool", "check", folder) == (0, f"{folder}: 10 samples checked\n", said)
    pool = tmp_path / "pool.duckdb"
    for link in ([], ["--link"]):
        add = ("pool", "add", pool, folder, "--kind", "commonpool", *link)
        assert command(*add)[::2] == (0, said)
        assert command("pool", "check", pool) == (0, f"{pool}: 10 samples checked\n", said)
        pool.unlink()
