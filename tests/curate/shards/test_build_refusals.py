"""Nothing lost silently: what a build is not given, or finds out, it says in a line."""

import hashlib
import json

import numpy as np
import pytest
from datacomp.curate.shards import build as module
from datacomp.curate.shards import index_shards
from datacomp.curate.shards.build import build_shards
from datacomp.distribution import manifest
from datacomp.errors import (
    DataError,
    MissingError,
    UsageError,
)
from datacomp.pools import uids

ALL = tuple(range(21))


def test_missing_uids_are_an_error_that_names_some(shards, select, out, make):
    subset = select(1, 90, 91, 92, 93)
    with pytest.raises(DataError) as caught:
        build_shards(shards, subset, out, workers=1)
    first = sorted(make.uid_of(n) for n in range(90, 94))[:3]
    assert str(caught.value) == (
        f"{subset}: of 5 uids 4 not in {shards} ({', '.join(first)}, ...); "
        "--keep-going leaves them out"
    )
    assert not out.exists()


def test_keep_going_lists_them_and_exits_3(shards, select, out, make, run):
    subset = select(1, 1, 90, 90)
    code, stdout, err = run(
        "shards", "build", shards, subset, "-o", out, "--workers", 1, "--keep-going"
    )
    assert (code, err) == (3, "")
    assert stdout.splitlines()[:2] == [
        f"{out}: 2 samples in 1 shard, 0.0 MB",
        f"left out: 1 uid not_in_source (listed in {out / 'missing.txt'})",
    ]
    assert (out / "missing.txt").read_text() == f"{make.uid_of(90)} not_in_source\n"
    assert (out / "sample_ids.npy").read_bytes() == subset.read_bytes()
    assert "missing.txt" in [item["path"] for item in manifest.load(out / "manifest.json")["files"]]


def test_what_the_index_leaves_out_is_told(shards, select, out, make, run):
    make.write_shard(shards, 3, make.members(4, key="again") + make.members(50))
    command = ["shards", "build", shards, select(4, 50), "-o", out, "--workers", 1]
    code, stdout, _ = run(*command, "--keep-going")
    assert code == 3
    assert stdout.splitlines()[1] == "left out of the sources: 1 duplicate_uid"
    assert run(*command)[0] == 0  # whoever does not ask to go on trusts the index that is there
    view = ["shards", "select", shards, select(4, 50), "-o", out.with_name("v"), "--keep-going"]
    code, stdout, _ = run(*view)
    assert (code, stdout.splitlines()[1]) == (3, "left out of the sources: 1 duplicate_uid")


def test_none_found_is_an_error_even_so(shards, select, out):
    with pytest.raises(DataError, match=r"none of the 1 uids of .* can be had from it$"):
        build_shards(shards, select(90), out, workers=1, keep_going=True)


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_empty_subset_is_refused(shards, select, out):
    subset = select()
    with pytest.raises(DataError) as caught:
        build_shards(shards, subset, out)
    assert one_line(caught) == f"{subset}: the subset is empty; there is nothing to build"
    assert not out.exists()


def test_an_unsorted_subset_is_refused(shards, tmp_path, out, make):
    path = tmp_path / "s.npy"
    np.save(path, uids.from_hex(sorted((make.uid_of(n) for n in range(5)), reverse=True)))
    with pytest.raises(DataError, match="the uids are not sorted"):
        build_shards(shards, path, out)


def test_a_foreign_array_is_refused(shards, tmp_path, out):
    np.save(tmp_path / "s.npy", np.arange(3))
    with pytest.raises(DataError, match="but a subset has dtype 'u8,u8'"):
        build_shards(shards, tmp_path / "s.npy", out)


def test_sources_that_are_none(shards, select, out, tmp_path):
    with pytest.raises(MissingError) as caught:
        build_shards(tmp_path / "none", select(1), out)
    assert one_line(caught) == f"{tmp_path / 'none'}: no such folder of tars and no such pool"
    with pytest.raises(DataError) as caught:
        build_shards(select(1), select(1), out)
    one_line(caught)


def test_wrong_options(shards, select, out):
    with pytest.raises(UsageError, match=r"^shard size is 0, expected at least 1$"):
        build_shards(shards, select(1), out, shard_size=0)
    with pytest.raises(UsageError, match=r"^shuffle seed is -1, expected 0 to "):
        build_shards(shards, select(1), out, shuffle=-1)


def test_a_truncated_source_is_an_error(shards, select, out):
    path = shards / "00000002.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=f"^{path}: truncated at byte 3000"):
        build_shards(shards, select(1), out, workers=1)


def test_two_samples_with_one_uid_are_an_error_unless_indexed_so(shards, select, out, make):
    make.write_shard(shards, 3, make.members(4, key="again"))
    with pytest.raises(DataError, match="has a uid that another one has already"):
        build_shards(shards, select(4), out, workers=1)
    index_shards(shards, 1, keep_going=True)
    assert build_shards(shards, select(4), out, workers=1).samples == 1


def test_a_source_that_changes_under_way_is_an_error(shards, select, out, monkeypatch):
    index_shards(shards, 1)
    path = shards / "00000000.tar"
    write_shard = module._write_shard

    def change(task):
        path.write_bytes(path.read_bytes())  # same bytes, but who can tell
        return write_shard(task)

    monkeypatch.setattr(module, "_write_shard", change)
    with pytest.raises(DataError) as caught:
        build_shards(shards, select(*ALL), out, workers=1)
    assert one_line(caught) == (
        f"{path}: has changed since it was indexed; run 'datacomp shards index' and then this again"
    )
    assert not list(out.glob("*.tar"))
    monkeypatch.undo()
    assert build_shards(shards, select(*ALL), out, workers=1).samples == 21


def test_an_index_that_lies_is_found_out(shards, select, out):
    import pyarrow as pa
    import pyarrow.parquet as pq

    index_shards(shards, 1)
    path = shards / "index.parquet"
    table = pq.read_table(path)
    found = table["uid"].to_pylist()
    found[0], found[1] = found[1], found[0]
    pq.write_table(table.set_column(0, "uid", pa.array(found)), path)
    metadata = json.loads((shards / "index.json").read_text())
    metadata["index_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (shards / "index.json").write_text(json.dumps(metadata))
    with pytest.raises(DataError) as caught:
        build_shards(shards, select(*ALL), out, workers=1)
    assert one_line(caught) == (
        f"{shards / '00000000.tar'} at byte 0: holds {found[1]} where the index says {found[0]}; "
        "index the tars again"
    )


def test_a_subset_that_is_replaced_under_way_is_an_error(shards, select, out, monkeypatch):
    subset = select(*range(15))
    before = subset.read_bytes()
    write_shard = module._write_shard

    def replace(task):
        select(1, 2, name="other.npy").replace(subset)
        return write_shard(task)

    monkeypatch.setattr(module, "_write_shard", replace)
    with pytest.raises(DataError) as caught:
        build_shards(shards, subset, out, workers=1)
    assert one_line(caught) == (f"{subset}: changed while it was read; run the same command again")
    assert not (out / "manifest.json").exists()
    monkeypatch.undo()
    subset.write_bytes(before)
    assert build_shards(shards, subset, out, workers=1).samples == 15
    assert (out / "sample_ids.npy").read_bytes() == before
