"""Checking shards: sound ones pass, every kind of damage is listed by kind, shard and key."""

import functools
import hashlib
import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.curate.shards import build_shards, check, check_shards, index_shards, select_shards
from datacomp.curate.shards.check import Problem
from datacomp.distribution import manifest
from datacomp.errors import DataError
from datacomp.pools import uids
from datacomp.pools.tar import tar_bytes


@pytest.fixture(autouse=True, params=[None, 3], ids=["", "few_held"])
def held(request, monkeypatch):
    """Let each check hold all of its samples, or only three."""
    if request.param is not None:
        for name in ("FoundSamples", "UidRuns", "walk"):
            part = functools.partial(getattr(check, name), held=request.param)
            monkeypatch.setattr(check, name, part)


@pytest.fixture
def built(shards, select, tmp_path):
    """A sound build of 21 samples, one of them twice, in three shards."""
    folder = tmp_path / "built"
    build_shards(shards, select(*range(21), 5), folder, shard_size=8, workers=1)
    return folder


def brief(report):
    return [(problem.kind, problem.shard, problem.key) for problem in report.problems]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_build_is_sound(built, workers):
    report = check_shards(built, workers)
    assert report.to_dict() == {
        "path": str(built), "shards": 3, "samples": 22, "problems": [], "sound": True, "kinds": {},
    }  # fmt: skip


def test_foreign_shards_are_sound_with_and_without_an_index(shards):
    assert check_shards(shards, 1).sound
    index_shards(shards, 1)
    assert check_shards(shards, 1).sound


def test_uids_left_out_on_purpose_are_no_problem(shards, select, tmp_path):
    folder = tmp_path / "built"
    build_shards(shards, select(1, 2, 90), folder, workers=1, keep_going=True)
    assert check_shards(folder, 1).sound
    (folder / "missing.txt").unlink()
    assert brief(check_shards(folder, 1)) == [
        ("file_missing", "missing.txt", ""),
        ("missing_uid", "sample_ids.npy", select_uid(90)),
    ]


def select_uid(number):
    import hashlib

    return hashlib.sha256(b"%d" % number).hexdigest()[:32]


def test_images_that_do_not_decode_are_named(tmp_path, make):
    cut = make.picture(2)[:-200]
    bomb = b"P6 100000 100000 255\n"
    make.write_shard(
        tmp_path, 0,
        make.members(1) + make.members(2, jpg=cut) + make.members(3, jpg=bomb)
        + make.members(4, jpg=None) + make.members(5, json=b"["),
    )  # fmt: skip
    report = check_shards(tmp_path, 1)
    assert brief(report) == [
        ("image_broken", "00000000.tar", "000000002"),
        ("image_broken", "00000000.tar", "000000003"),
        ("no_image", "00000000.tar", "000000004"),
        ("json_broken", "00000000.tar", "000000005"),
    ]
    assert report.samples == 5
    assert report.kinds() == {"image_broken": 2, "json_broken": 1, "no_image": 1}
    assert str(report.problems[1]) == (
        "image_broken: 00000000.tar/000000003: not an image of a known format"
    )


def test_an_image_of_too_many_pixels_is_unsafe(shards, monkeypatch):
    monkeypatch.setattr("datacomp.pools.images.MAX_PIXELS", 100)
    assert check_shards(shards, 1).kinds() == {"image_unsafe": 21}


def test_a_truncated_tar_is_broken(shards):
    os.truncate(shards / "00000001.tar", 5000)
    report = check_shards(shards, 1)
    assert [kind for kind, _, _ in brief(report)] == ["count", "truncated"]
    assert report.problems[0].shard == "00000001.tar"
    assert "truncated at byte 5000" in report.problems[1].detail


def test_captions_are_read_as_images_are(tmp_path, make):
    values = json.dumps({"uid": make.uid_of(2)}).encode()
    make.write_shard(
        tmp_path, 0,
        make.members(1, txt=b"\xff") + make.members(2, json=values, txt=None)
        + make.members(3, txt=None) + make.members(2, key="x", json=values, txt=None, cls=b"4")
        + make.members(4, txt=b"x" * (1 << 20) + b"x"),
    )  # fmt: skip
    (tmp_path / "sample_ids.npy").write_bytes(b"junk")
    assert sorted(brief(check_shards(tmp_path, 1))) == [
        ("caption_not_utf8", "00000000.tar", "000000001"),
        ("caption_too_long", "00000000.tar", "000000004"),
        ("duplicate_uid", "00000000.tar", "x"),
        ("no_caption", "00000000.tar", "000000002"),
        ("unreadable", "sample_ids.npy", ""),
    ]


def test_a_tar_that_leaves_its_folder_is_unsafe(shards):
    data = bytearray(tar_bytes([("xx/a.jpg", b"x")]))
    data[0:2] = b".."
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    (shards / "00000003.tar").write_bytes(data)
    (shards / "00000003_stats.json").write_text('{"successes": 0}')
    assert brief(check_shards(shards, 1)) == [("unsafe", "00000003.tar", "")]


def test_missing_and_wrong_stats(shards):
    (shards / "00000000_stats.json").unlink()
    (shards / "00000001_stats.json").write_text('{"successes": 8}')
    (shards / "00000002_stats.json").write_text("{")
    assert check_shards(shards, 1).problems == [
        Problem("00000000.tar", "", "stats_missing", "there is no 00000000_stats.json"),
        Problem("00000001.tar", "", "count", "7 samples, but 00000001_stats.json says 8"),
        Problem("00000002.tar", "", "count", "7 samples, but 00000002_stats.json says None"),
    ]


def test_holes_in_the_numbering(shards, make):
    (shards / "00000000.tar").unlink()
    make.write_shard(shards, 6, make.members(90))
    assert check_shards(shards, 1).problems == [
        Problem("00000000.tar", "", "missing_shard", "a hole in the numbering"),
        Problem("00000003.tar", "", "missing_shard", "a hole in the numbering, up to 00000005.tar"),
    ]


def test_shards_that_are_not_numbered_have_no_holes(tmp_path, make):
    make.write_shard(tmp_path, 0, make.members(1)).rename(tmp_path / "train-a.tar")
    (tmp_path / "00000000_stats.json").rename(tmp_path / "train-a_stats.json")
    assert check_shards(tmp_path, 1).sound


def test_uids_that_stand_there_twice(shards, make):
    make.write_shard(shards, 3, make.members(4, key="again") + make.members(4, key="third"))
    uid = make.uid_of(4)
    assert check_shards(shards, 1).problems == [
        Problem("00000003.tar", "again", "duplicate_uid", f"uid {uid}"),
        Problem("00000003.tar", "third", "duplicate_uid", f"uid {uid}"),
    ]


def test_uids_are_compared_with_the_subset(shards, select, make):
    path = select(*range(1, 21), 5, 40, name="x.npy")
    path.rename(shards / "sample_ids.npy")
    problems = check_shards(shards, 1).problems
    assert sorted((p.kind, p.shard, p.key, p.detail) for p in problems) == sorted(
        [
            ("missing_uid", "sample_ids.npy", make.uid_of(5), "1 times instead of 2"),
            ("missing_uid", "sample_ids.npy", make.uid_of(40), "0 times instead of 1"),
            ("unexpected_uid", "00000000.tar", "000000000", f"uid {make.uid_of(0)}"),
        ]
    )
    (shards / "sample_ids.npy").write_bytes(b"junk")
    assert brief(check_shards(shards, 1)) == [("unreadable", "sample_ids.npy", "")]


def test_wrong_numbers_in_meta(built):
    meta = json.loads((built / "meta.json").read_text())
    meta |= {"output_count": 23, "output_shard_count": 2}
    (built / "manifest.json").unlink()
    (built / "meta.json").write_text(json.dumps(meta))
    assert [str(problem) for problem in check_shards(built, 1).problems] == [
        "count: meta.json: output_count is 23, but there are 22",
        "count: meta.json: output_shard_count is 2, but there are 3",
    ]


def test_a_lost_and_a_stale_shard(built, make):
    (built / "00000001.tar").rename(built / "00000077.tar")
    (built / "00000001_stats.json").rename(built / "00000077_stats.json")
    assert brief(check_shards(built, 1)) == [
        ("file_missing", "00000001.tar", ""),
        ("missing_shard", "00000001.tar", ""),
        ("file_missing", "00000001_stats.json", ""),
        ("missing_shard", "00000003.tar", ""),
        ("unlisted", "00000077.tar", ""),
    ]


def test_changed_bytes_are_found(built):
    path = built / "00000002.tar"
    data = bytearray(path.read_bytes())
    data[136] ^= 1  # the time in the first header: nothing decodes it
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    (built / "meta.json").write_text((built / "meta.json").read_text() + "\n")
    assert brief(check_shards(built, 1)) == [
        ("digest", "00000002.tar", ""),
        ("size", "meta.json", ""),
    ]


def test_an_altered_manifest_is_found(built):
    value = json.loads((built / "manifest.json").read_text())
    value["files"][0]["path"] = "../00000000.tar"
    (built / "manifest.json").write_text(json.dumps(value))
    (problem,) = check_shards(built, 1).problems
    assert (problem.kind, problem.shard) == ("unreadable", "manifest.json")
    assert "'../00000000.tar' is not a plain relative path; refused" in problem.detail


def test_an_index_that_does_not_fit(shards, make):
    index_shards(shards, 1)
    before = (shards / "index.parquet").read_bytes(), (shards / "index.json").read_bytes()
    make.write_shard(shards, 0, make.members(30))
    assert brief(check_shards(shards, 1)) == [("index", "index.parquet", "")]
    index_shards(shards, 1)
    assert check_shards(shards, 1).sound
    (shards / "index.parquet").write_bytes(before[0])
    assert brief(check_shards(shards, 1)) == [("index", "index.parquet", "")]


def test_an_index_of_other_samples_is_found(shards, monkeypatch):
    index_shards(shards, 1)
    path = shards / "index.parquet"
    table = pq.read_table(path)
    swapped = table["uid"].to_pylist()
    swapped[:2] = swapped[1::-1]
    pq.write_table(table.set_column(0, "uid", pa.array(swapped)), path)
    metadata = json.loads((shards / "index.json").read_text())
    metadata["index_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (shards / "index.json").write_text(json.dumps(metadata))
    assert check_shards(shards, 1).problems == [
        Problem("index.parquet", "", "index", "names other samples or places than the tars hold")
    ]


def test_an_index_that_dropped_repeated_uids_fits(shards, make):
    make.write_shard(shards, 3, make.members(4, key="again"))
    index_shards(shards, 1, keep_going=True)
    assert check_shards(shards, 1).kinds() == {"duplicate_uid": 1}


def test_nothing_to_check(tmp_path):
    with pytest.raises(DataError, match=r"no .tar files found$"):
        check_shards(tmp_path)


def test_a_folder_without_tars_is_told_for_what_it_is(shards, select, tmp_path):
    view = tmp_path / "x.view"
    select_shards([shards], select(1), view, workers=1)
    with pytest.raises(DataError) as caught:
        check_shards(view)
    assert str(caught.value) == (
        f"{view}: a view, which has no tars of its own; name the folder of shards it is of"
    )
    photos = tmp_path / "photos"
    (photos / "cats").mkdir(parents=True)
    (photos / "cats" / "1.JPG").touch()
    with pytest.raises(DataError) as caught:
        index_shards(photos, 1)
    assert str(caught.value) == (
        f"{photos}: no .tar files found, but images: 'datacomp pool add POOL {photos} --kind "
        "folder' makes a pool of them, to build from"
    )


def test_the_command(built, run):
    code, out, err = run("shards", "check", built, "--workers", 1)
    assert (code, out, err) == (0, f"{built}: 22 samples in 3 shards, sound\n", "")
    (built / "00000000_stats.json").unlink()
    code, out, err = run("shards", "check", built, "--workers", 1)
    assert (code, err) == (1, "")
    assert out == (
        "stats_missing: 00000000.tar: there is no 00000000_stats.json\n"
        "file_missing: 00000000_stats.json: no such file\n"
        f"{built}: 22 samples in 3 shards, 2 problems\n"
    )
    code, out, _ = run("shards", "check", built, "--workers", 1, "--json")
    assert code == 1
    assert json.loads(out)["kinds"] == {"file_missing": 1, "stats_missing": 1}


def test_many_problems_are_cut_short(tmp_path, make, run):
    make.write_shard(tmp_path, 0, [f for n in range(60) for f in make.members(n, jpg=None)])
    code, out, _ = run("shards", "check", tmp_path, "--workers", 1)
    assert code == 1
    assert out.splitlines()[50:] == [
        "... and 10 more (--json lists all)",
        f"{tmp_path}: 60 samples in 1 shard, 60 problems",
    ]


def test_the_manifest_is_the_one_of_the_files(built):
    listed = manifest.load(built / "manifest.json")
    assert manifest.verify(built, listed, 2) == []
    assert len(uids.load_subset(built / "sample_ids.npy")) == 22


def test_an_index_that_was_published_fits_by_its_rows(shards, tmp_path):
    index_shards(shards)
    (shards / "index.json").unlink()  # which a release does not have
    assert check_shards(shards).problems == []
    (shards / "00000001.tar").rename(tmp_path / "other.tar")
    (shards / "00000001_stats.json").rename(tmp_path / "other.json")
    shutil.copyfile(shards / "00000002.tar", shards / "00000001.tar")
    shutil.copyfile(shards / "00000002_stats.json", shards / "00000001_stats.json")
    assert "index" in check_shards(shards).kinds()
    (tmp_path / "other.tar").rename(shards / "00000001.tar")
    data = bytearray((shards / "index.parquet").read_bytes())
    data[4:60] = bytes(56)
    (shards / "index.parquet").write_bytes(data)
    assert check_shards(shards).kinds() == {"index": 1}


def test_a_published_index_has_the_first_place_of_each_uid(shards, make):
    make.write_shard(shards, 1, make.members(3) + make.members(40))
    index_shards(shards, keep_going=True)
    before = check_shards(shards).problems
    (shards / "index.json").unlink()
    assert check_shards(shards).problems == before


def test_tars_beside_the_index_of_a_url_are_told(shards, server, tmp_path):
    for path in shards.glob("*.tar"):
        server.files[f"/pool/{path.name}"] = (path.read_bytes(), f'"{path.name}"')
    url = f"{server.url}/pool/{{00000000..00000002}}.tar"
    index_shards(url, 1, out=tmp_path / "index")
    for name in ("index.json", "index.parquet"):
        shutil.copyfile(tmp_path / "index" / name, shards / name)
    (shards / "00000002.tar").unlink()
    (shards / "00000002_stats.json").unlink()
    (problem,) = check_shards(shards, 1).problems
    assert (problem.kind, problem.shard) == ("index", "index.parquet")
    assert problem.detail.startswith(f"is that of other tars, at {server.url}/pool")


def test_rows_of_an_index_that_are_no_uids_are_a_problem(shards):
    index_shards(shards, 1)
    path = shards / "index.parquet"
    table = pq.read_table(path)
    uids_of = pa.array(["x" * 32] * len(table))
    pq.write_table(table.set_column(0, table.schema.field("uid"), uids_of), path)
    metadata = json.loads((shards / "index.json").read_text())
    metadata["index_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (shards / "index.json").write_text(json.dumps(metadata))
    assert brief(check_shards(shards, 1)) == [("index", "index.parquet", "")]


@pytest.mark.parametrize("shorter", [True, False])
def test_a_tar_that_changes_after_it_was_checked_is_told(shards, make, monkeypatch, shorter):
    make.write_shard(shards, 3, make.members(1) + make.members(2))
    keys_at = check._keys_at

    def change(path, offsets):
        if shorter:
            make.write_shard(shards, 3, make.members(1))
        else:
            path.unlink(missing_ok=True)
        return keys_at(path, offsets)

    monkeypatch.setattr(check, "_keys_at", change)
    assert ("broken", "00000003.tar", "") in brief(check_shards(shards, 1))
