"""What a build holds: the same bytes always, whatever the workers."""

import io
import json

import pytest
from datacomp.curate.shards.build import build_shards
from datacomp.distribution import manifest
from datacomp.errors import (
    UsageError,
)
from datacomp.pools.tar import tar_bytes

ALL = tuple(range(21))


def test_a_build_holds_the_subset_and_nothing_else(shards, select, out, make):
    report = build_shards(shards, select(3, 17, 8, 8, 20, 0), out, shard_size=4, workers=1)
    names = [make.uid_of(n) for n in (0, 3, 8, 17, 20)]  # as they stand in the tars
    expected = [f"{uid}-{j}" for uid in names for j in range(2 if uid == make.uid_of(8) else 1)]
    assert make.keys(out) == expected
    numbers = {make.uid_of(n): n for n in ALL}
    for path in out.glob("*.tar"):
        for name, data in make.contents(path):
            key, _, extension = name.partition(".")
            source = dict(make.members(numbers[key[:32]]))
            assert data == source[f"{numbers[key[:32]]:09d}.{extension}"]
    assert (report.selected, report.samples, report.shards, report.reused) == (6, 6, 2, 0)
    assert report.complete


def test_the_layout_is_the_one_trainers_know(shards, select, out, make):
    subset = select(*ALL)
    report = build_shards(shards, subset, out, shard_size=8, workers=1)
    found = make.files_of(out)
    tars = [f"{n:08d}.tar" for n in range(3)]
    stats = [f"{n:08d}_stats.json" for n in range(3)]
    rest = ["build.json", "manifest.json", "meta.json", "sample_ids.npy"]
    assert sorted(found) == sorted([*tars, *stats, *rest])
    assert [found[name] for name in stats] == [
        b'{"successes": 8}', b'{"successes": 8}', b'{"successes": 5}',
    ]  # fmt: skip
    assert found["sample_ids.npy"] == subset.read_bytes()
    assert json.loads(found["meta.json"]) == {
        "shard_size": "8",
        "shuffle": "None",
        "subset_file": "sample_ids.npy",
        "output_shard_format": "{:08d}.tar",
        "output_shard_stats_format": "{:08d}_stats.json",
        "apply_blur": "False",
        "blur_count": 0,
        "output_count": 21,
        "output_shard_count": 3,
    }
    listed = manifest.load(out / "manifest.json")
    assert listed == manifest.build_manifest(out, [*tars, *stats, "meta.json", "sample_ids.npy"])
    assert report.digest == listed["digest"]
    assert report.bytes == sum(len(found[name]) for name in tars)


def test_members_are_plain_ustar_in_alphabetical_order(shards, select, out, make):
    build_shards(shards, select(1), out, workers=1)
    uid = make.uid_of(1)
    expected = [(f"{uid}-0.{name.partition('.')[2]}", data) for name, data in make.members(1)]
    assert [name for name, _ in expected] == sorted(name for name, _ in expected)
    assert (out / "00000000.tar").read_bytes() == tar_bytes(expected)


@pytest.mark.parametrize("shuffle", [None, 7])
def test_workers_change_nothing(shards, select, tmp_path, make, shuffle):
    subset = select(*ALL, 5, 5)
    for workers in (1, 3):
        build_shards(
            shards, subset, tmp_path / f"w{workers}", shard_size=4, workers=workers, shuffle=shuffle
        )
    one, three = make.files_of(tmp_path / "w1"), make.files_of(tmp_path / "w3")
    assert one == three


def test_a_source_with_pax_headers_and_other_members_is_copied_whole(tmp_path, select, out, make):
    import tarfile

    folder = tmp_path / "pax"
    folder.mkdir()
    files = make.members(1, key="d/" * 70 + "k") + make.members(2, **{"seg.png": b"mask"})
    with tarfile.open(folder / "x.tar", "w", format=tarfile.PAX_FORMAT) as file:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5
            file.addfile(info, io.BytesIO(data))
    build_shards(folder, select(1, 2), out, workers=1)
    found = dict(make.contents(out / "00000000.tar"))
    assert found[f"{make.uid_of(2)}-0.seg.png"] == b"mask"
    assert found[f"{make.uid_of(1)}-0.jpg"] == make.picture(1)
    assert len(found) == 7


def test_an_index_is_made_where_there_is_none_and_taken_where_there_is(shards, select, out):
    build_shards(shards, select(1), out, workers=1)
    stamp = (shards / "index.parquet").stat().st_mtime_ns
    build_shards(shards, select(2), out.with_name("out2"), workers=1)
    assert (shards / "index.parquet").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("workers", [3, 5])
def test_threads_and_processes_give_the_same_bytes(shards, select, tmp_path, make, workers):
    for number in (1, workers):
        build_shards(shards, select(*ALL), tmp_path / f"{number}", shard_size=2, workers=number)
    assert make.files_of(tmp_path / "1") == make.files_of(tmp_path / f"{workers}")


def test_tars_are_padded_to_whole_pieces(shards, select, out, make):
    plain = out.with_name("plain")
    build_shards(shards, select(*ALL), plain, shard_size=8, workers=1)
    report = build_shards(shards, select(*ALL), out, shard_size=8, workers=1, pad=1 << 14)
    for path in out.glob("*.tar"):
        data, before = path.read_bytes(), (plain / path.name).read_bytes()
        assert len(data) % (1 << 14) == 0
        assert data.rstrip(b"\0") == before.rstrip(b"\0")
        assert make.contents(path) == make.contents(plain / path.name)
    assert manifest.verify(out, manifest.load(out / "manifest.json")) == []
    assert report.bytes == sum(path.stat().st_size for path in out.glob("*.tar"))
    with pytest.raises(UsageError, match=r"^tars can be padded to a multiple of 512 bytes, not of"):
        build_shards(shards, select(1), out, pad=1000)


def test_several_folders_are_one_source(tmp_path, select, out, make):
    make.write_shard(tmp_path / "a", 0, make.members(1))
    make.write_shard(tmp_path / "b", 0, make.members(2))
    sources = [tmp_path / "a", tmp_path / "b"]
    build_shards(sources, select(1, 2), out, workers=1, mix=[2, 1])
    assert make.keys(out) == [
        f"{make.uid_of(1)}-0", f"{make.uid_of(1)}-1", f"{make.uid_of(2)}-0",
    ]  # fmt: skip


def test_the_command_says_what_it_built(shards, select, out, run):
    arguments = ["shards", "build", shards, select(1, 2, 3), "-o", out, "--shard-size", 2]
    code, stdout, err = run(*arguments, "--workers", 1)
    digest = manifest.load(out / "manifest.json")["digest"]
    assert (code, err) == (0, "")
    assert stdout == f"{out}: 3 samples in 2 shards, 0.0 MB\ndigest {digest}\n"
    code, stdout, _ = run(*arguments, "--workers", 1, "--json")
    assert code == 0
    assert json.loads(stdout) == {
        "path": str(out), "selected": 3, "samples": 3, "shards": 2, "reused": 2,
        "bytes": sum(path.stat().st_size for path in out.glob("*.tar")),
        "missing": {}, "set_aside": {}, "weighed_out": 0, "digest": digest, "blurred": None,
    }  # fmt: skip
