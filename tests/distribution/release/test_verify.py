import json
import os
from datetime import timedelta

import pytest
from datacomp.distribution.release import Releases, Removal, renew, verify_releases
from datacomp.distribution.release.manifest import encode
from datacomp.errors import IntegrityError, UsageError

from .conftest import KEY, NOW, PIECE, SIZES, write_files
from .test_create import touched_up


@pytest.fixture
def releases(publish, data, tmp_path):
    publish("1")
    write_files(data, {"00000003.tar": PIECE})
    publish("2")
    renew(tmp_path / "releases", KEY)  # now, for verifying asks the clock
    return Releases(tmp_path / "releases")


def faults(folder, **more):
    return [(f.version, f.path, f.kind) for f in verify_releases(folder, **more).faults]


def damage(release, name, change):
    """Change a file of one version alone."""
    path = release.data / name
    data = bytearray(path.read_bytes())
    change(data)
    path.unlink()
    path.write_bytes(data)


def flip(data):
    data[len(data) // 2] ^= 1


@pytest.mark.parametrize("deep", [False, True])
def test_what_is_whole_is_read_once(releases, deep):
    report = verify_releases(releases.folder, deep=deep)
    assert report.sound
    assert (report.versions, report.files) == (["1", "2"], 19)
    assert report.bytes == sum(SIZES.values()) + PIECE


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_kind_of_damage_is_found(releases, deep, workers):
    first, second = releases.versions
    damage(first, "00000000.tar", flip)
    damage(second, "00000001.tar", lambda data: data.pop())
    (second.data / "ids.npy").unlink()
    assert faults(releases.folder, deep=deep, workers=workers) == [
        ("1", "00000000.tar", "digest"),
        ("2", "00000001.tar", "size"),
        ("2", "ids.npy", "missing"),
    ]
    assert faults(releases.folder, version="1") == [("1", "00000000.tar", "digest")]


def test_a_change_that_leaves_size_and_time_is_found(releases):
    touched_up(releases.latest.data / "00000002.tar", bytes(PIECE))
    assert faults(releases.folder) == [("1", "00000002.tar", "digest")]


def test_an_altered_torrent_is_found(releases):
    for path in releases.latest.folder.glob("*.torrent"):
        path.write_bytes(path.read_bytes().replace(b"00000003.tar", b"00000009.tar"))
    (releases.versions[0].folder / "ds-1.torrent").write_bytes(b"x")
    assert faults(releases.folder) == [
        ("1", "ds-1.torrent", "unreadable"),
        ("2", "ds-2.torrent", "digest"),
        ("2", "ds-2.hybrid.torrent", "digest"),
    ]


def test_a_manifest_that_lies_about_a_tree_is_found_deep_down(releases):
    release = releases.latest
    value = json.loads(release.manifest.raw)
    value["files"][0]["pieces_root"] = "0" * 64
    raw = encode(value)
    (release.folder / "manifest.json").write_bytes(raw)
    (release.folder / "manifest.json.sig").write_bytes(KEY.sign(raw))
    renew(releases.folder, KEY)
    assert faults(releases.folder) == []
    assert faults(releases.folder, deep=True) == [("2", "00000000.tar", "tree")]


def test_an_expired_or_older_pointer_is_told(releases, publish, tmp_path):
    renew(releases.folder, KEY, now=NOW - timedelta(days=100))
    [fault] = verify_releases(releases.folder).faults
    assert fault.path == "latest.json"
    assert "expired on 2026-09-11" in fault.detail
    publish("1", folder=tmp_path / "old")
    renew(tmp_path / "old", KEY)
    os.replace(tmp_path / "old/latest.json", releases.folder / "latest.json")
    [fault] = verify_releases(releases.folder).faults
    assert fault.detail == "names version 1, but 2 is the newest"


def test_what_was_taken_back_is_no_fault(releases, publish, data):
    old = releases.latest.manifest.by_path["00000003.tar"]
    (data / "00000003.tar").unlink()
    removal = Removal("3", 3, "asked", ("0" * 32,), ((old.path, old.size, old.sha256),))
    publish("3", removal=removal)
    renew(releases.folder, KEY)
    report = verify_releases(releases.folder)
    assert (report.sound, report.withdrawn) == (True, 1)


def test_nothing_of_an_altered_manifest_is_believed(releases):
    path = releases.latest.folder / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"url":null', b'"url":"x"'))
    with pytest.raises(IntegrityError, match="its signature is wrong"):
        verify_releases(releases.folder)


def test_an_unknown_version(releases):
    with pytest.raises(UsageError, match="no version '22'"):
        verify_releases(releases.folder, "22")
