"""Repair: bad samples go aside, the rest stays byte for byte, and a check finds nothing more."""

import json
import os

import pytest
from datacomp.curate.shards import (
    build_shards,
    check_shards,
    index_shards,
    load_index,
    repair_shards,
)
from datacomp.curate.shards import repair as module
from datacomp.errors import DataError
from datacomp.pools.tar import tar_bytes


@pytest.fixture
def built(shards, select, tmp_path):
    """A sound build of 21 samples in three shards, with an index."""
    folder = tmp_path / "built"
    build_shards(shards, select(*range(21)), folder, shard_size=8, workers=1)
    index_shards(folder, 1)
    return folder


def damage(folder, make, number=1, count=2):
    """Break the images of the first samples of a shard; return all members and the bad keys."""
    path = folder / f"{number:08d}.tar"
    files = make.contents(path)
    bad = [name.partition(".")[0] for name, _ in files if name.endswith(".jpg")][:count]
    broken = [
        (name, b"not an image" if name in {f"{key}.jpg" for key in bad} else data)
        for name, data in files
    ]
    path.write_bytes(tar_bytes(broken))
    return broken, bad


def test_sound_shards_are_left_alone(built, make, run):
    before = make.files_of(built)
    report = repair_shards(built, 1)
    assert report.to_dict() == {
        "path": str(built), "shards": [], "counted": [], "set_aside": {}, "remaining": [],
    }  # fmt: skip
    assert make.files_of(built) == before
    code, out, _ = run("shards", "check", built, "--repair", "--workers", 1)
    assert (code, out) == (0, f"{built}: 0 shards rewritten, sound\n")


def test_bad_samples_go_aside_and_only_their_shard_is_rewritten(built, make):
    untouched = (built / "00000000.tar").stat().st_mtime_ns
    files, bad = damage(built, make)
    report = repair_shards(built, 1)
    assert (report.shards, report.set_aside) == (["00000001.tar"], {"image_broken": 2})
    assert report.remaining == []
    good = [(name, data) for name, data in files if name.partition(".")[0] not in bad]
    aside = [(name, data) for name, data in files if name.partition(".")[0] in bad]
    assert (built / "00000001.tar").read_bytes() == tar_bytes(good)
    assert (built / "set_aside" / "00000001.bad").read_bytes() == tar_bytes(aside)
    assert (built / "00000000.tar").stat().st_mtime_ns == untouched
    assert json.loads((built / "00000001_stats.json").read_text()) == {"successes": 6}
    assert json.loads((built / "meta.json").read_text())["output_count"] == 19
    assert (built / "missing.txt").read_text() == "".join(
        f"{key[:32]} set_aside\n" for key in sorted(bad)
    )
    assert load_index(built).samples == 19
    assert check_shards(built, 1).sound
    assert not (built / "repair.json").exists()


def test_the_second_of_two_and_the_unexpected_go_aside(tmp_path, make, run):
    folder = tmp_path / "s"
    make.write_shard(folder, 0, make.members(1) + make.members(2))
    make.write_shard(folder, 1, make.members(1, key="again") + make.members(3))
    code, out, _ = run("shards", "check", folder, "--repair", "--workers", 1)
    assert code == 3
    assert out.splitlines() == [
        "set aside: 1 duplicate_uid", f"{folder}: 1 shard rewritten, sound",
    ]  # fmt: skip
    assert [name for name, _ in make.contents(folder / "00000001.tar")] == [
        f"{3:09d}.{extension}" for extension in ("jpg", "json", "txt")
    ]


def test_a_tar_cut_short_keeps_its_whole_samples(built, make):
    path = built / "00000002.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:-3000])
    report = repair_shards(built, 1)
    assert (report.shards, report.set_aside) == (["00000002.tar"], {"truncated": 1})
    kept = make.contents(path)
    assert len(kept) % 3 == 0
    assert path.read_bytes() == tar_bytes(kept)
    rest = (built / "set_aside" / "00000002.rest").read_bytes()
    assert path.read_bytes()[:-1024] + rest == whole[:-3000]
    assert report.remaining == []


@pytest.mark.parametrize("kind", ["bit", "interleaved", "doubled"])
def test_a_tar_damaged_in_its_middle_is_left_alone(built, make, run, kind):
    damage(built, make, number=1)
    path = built / "00000000.tar"
    files = make.contents(path)
    if kind == "bit":
        data = bytearray(path.read_bytes())
        [header] = [
            i for i in range(0, len(data), 512) if data[i:].startswith(files[9][0].encode())
        ]
        data[header + 3] ^= 1
        path.write_bytes(data)
    elif kind == "interleaved":
        path.write_bytes(tar_bytes([*files[1:], files[0]]))
    else:
        path.write_bytes(tar_bytes([*files[:10], files[9], *files[10:]]))
    before = path.read_bytes()
    code, out, _ = run("shards", "check", built, "--repair", "--workers", 1)
    assert code == 1
    assert "broken: 00000000.tar: " in out
    assert "set aside: 2 image_broken" in out
    assert path.read_bytes() == before
    assert sorted(os.listdir(built / "set_aside")) == ["00000001.bad"]
    assert len((built / "missing.txt").read_text().splitlines()) == 2  # not those it cannot see
    build_again = tar_bytes(files)
    path.write_bytes(build_again)
    index_shards(built, 1)
    assert repair_shards(built, 1).remaining == []


def test_an_unsafe_tar_goes_aside_whole(built):
    path = built / "00000001.tar"
    data = bytearray(path.read_bytes())
    data[156:157] = b"2"
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    report = repair_shards(built, 1)
    assert (report.set_aside, report.remaining) == ({"unsafe": 1}, [])
    assert (built / "set_aside" / "00000001.bad").read_bytes().startswith(data)
    assert path.read_bytes() == tar_bytes([])


def test_a_second_repair_keeps_what_the_first_set_aside(built, make):
    first, bad = damage(built, make, count=1)
    repair_shards(built, 1)
    second, worse = damage(built, make, count=1)
    repair_shards(built, 1)
    for name, files, [key] in [("00000001", first, bad), ("00000001.2", second, worse)]:
        aside = [(name, data) for name, data in files if name.startswith(key)]
        assert (built / "set_aside" / f"{name}.bad").read_bytes() == tar_bytes(aside)
    assert len((built / "missing.txt").read_text().splitlines()) == 2


def test_a_padded_shard_stays_padded(shards, select, tmp_path, make):
    folder = tmp_path / "padded"
    build_shards(shards, select(*range(21)), folder, shard_size=8, workers=1, pad=1 << 14)
    path = folder / "00000001.tar"
    data = path.read_bytes()
    image = data.index(b"\xff\xd8\xff")
    path.write_bytes(data[:image] + bytes(64) + data[image + 64 :])
    assert repair_shards(folder, 1).set_aside == {"image_broken": 1}
    assert path.stat().st_size % (1 << 14) == 0
    assert len(make.contents(path)) == 7 * 3
    assert check_shards(folder, 1).sound


def test_what_cannot_be_repaired_remains(built, run):
    (built / "00000001.tar").unlink()
    code, out, _ = run("shards", "check", built, "--repair", "--workers", 1)
    assert code == 1
    assert "missing_shard: 00000001.tar: a hole in the numbering" in out


@pytest.mark.parametrize(
    "step", ["copy_stretches", "update_counts", "_list_missing", "update_manifest"]
)
def test_a_repair_that_was_killed_goes_on(built, make, monkeypatch, step):
    damage(built, make)
    damage(built, make, number=2, count=1)
    done = getattr(module, step)
    calls = []

    def dies(*arguments):
        calls.append(arguments)
        if len(calls) == (3 if step == "copy_stretches" else 1):
            raise KeyboardInterrupt
        return done(*arguments)

    monkeypatch.setattr(module, step, dies)
    with pytest.raises(KeyboardInterrupt):
        repair_shards(built, 1)
    monkeypatch.undo()
    report = repair_shards(built, 1)
    assert report.remaining == []
    assert sorted(os.listdir(built / "set_aside")) == ["00000001.bad", "00000002.bad"]
    assert load_index(built).samples == 18
    assert len((built / "missing.txt").read_text().splitlines()) == 3


def test_a_damaged_state_is_told(built):
    (built / "repair.json").write_text('{"../x.tar": {}}')
    with pytest.raises(DataError) as caught:
        repair_shards(built, 1)
    assert str(caught.value) == f"{built / 'repair.json'}: damaged; remove it and repair again"


def test_the_page_shows_problems_and_samples(built, make, tmp_path, run):
    _, bad = damage(built, make)
    page = tmp_path / "check.html"
    code, _, _ = run("shards", "check", built, "--page", page, "--workers", 1)
    assert code == 1
    text = page.read_text()
    assert f"image_broken: 00000001.tar/{bad[0]}" in text
    assert text.count("<img ") == 19
    assert "caption 7" in text
    first = page.read_bytes()
    check_shards(built, 2, page)
    assert page.read_bytes() == first


def test_missing_stats_are_made_of_whole_tars(built, make, run):
    stats = (built / "00000000_stats.json").read_bytes()
    (built / "00000000_stats.json").unlink()
    damage(built, make)
    path = built / "00000002.tar"
    path.write_bytes(path.read_bytes()[:-3000])
    code, out, _ = run("shards", "check", built, "--repair", "--workers", 1)
    assert code == 3
    assert out.splitlines() == [
        "set aside: 2 image_broken",
        "set aside: 1 truncated",
        "counted: 1 shard without stats",
        f"{built}: 2 shards rewritten, sound",
    ]
    assert (built / "00000000_stats.json").read_bytes() == stats
    assert json.loads((built / "meta.json").read_text())["output_count"] == 18
    assert load_index(built).samples == 18


def test_stats_are_not_made_of_a_tar_that_is_not_the_promised_one(built, make):
    (built / "00000000_stats.json").unlink()
    path = built / "00000000.tar"
    path.write_bytes(tar_bytes(make.contents(path)[:-3]))
    damage(built, make)
    report = repair_shards(built, 1)
    assert (report.shards, report.counted) == (["00000001.tar"], [])
    assert not (built / "00000000_stats.json").exists()
    assert json.loads((built / "meta.json").read_text())["output_count"] == 18  # what there is
    assert {problem.kind for problem in report.remaining} == {
        "file_missing", "size", "stats_missing",
    }  # fmt: skip


def test_an_index_of_copied_tars_is_made_anew(built, run):
    for path in built.glob("*.tar"):
        os.utime(path, (1, 1))
    (built / "00000000_stats.json").unlink()
    code, _, err = run("shards", "index", built)
    assert (code, err) == (
        1,
        f"error: {built}: 00000000_stats.json is missing; --keep-going goes on without, "
        "'datacomp shards check --repair' makes it\n",
    )
    code, out, _ = run("shards", "check", built, "--repair", "--workers", 1)
    assert (code, out.splitlines()) == (
        0, ["counted: 1 shard without stats", f"{built}: 0 shards rewritten, sound"],
    )  # fmt: skip
    for path in built.glob("*.tar"):
        os.utime(path, (2, 2))
    assert repair_shards(built, 1).remaining == []
    assert load_index(built).samples == 21


def test_uids_that_are_missing_share_a_line(built, run):
    (built / "00000001.tar").unlink()
    code, out, _ = run("shards", "check", built, "--repair", "--workers", 1)
    assert code == 1
    lines = out.splitlines()
    [missing] = [line for line in lines if line.startswith("missing_uid")]
    assert missing.startswith("missing_uid: sample_ids.npy: 8 uids 0 times instead of 1 (")
    assert missing.count(",") == 3
    assert lines[-2] == "what remains cannot be repaired; fetch or build it again: 00000001.tar"
