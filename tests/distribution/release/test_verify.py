import json
import os
import shutil
from datetime import timedelta

import pytest
from datacomp.distribution import bencode
from datacomp.distribution.release import (
    Releases,
    Removal,
    SigningKey,
    renew,
    verify_releases,
)
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


def flipped(data):
    changed = bytearray(data)
    flip(changed)
    return bytes(changed)


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


def test_a_change_that_leaves_size_and_time_is_found_in_all_versions(releases):
    touched_up(releases.latest.data / "00000002.tar", bytes(PIECE))
    assert faults(releases.folder) == [
        ("1", "00000002.tar", "digest"),
        ("2", "00000002.tar", "digest"),
    ]


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
    layer = ("2", "ds-2.hybrid.torrent", "digest")
    assert faults(releases.folder) == [layer]
    assert faults(releases.folder, deep=True) == [layer, ("2", "00000000.tar", "tree")]


@pytest.mark.parametrize("name", ["latest.json", "latest.ipns", "key.pem"])
def test_garbage_in_the_pointers_and_the_key_is_found(releases, name):
    (releases.folder / name).write_bytes(b"garbage")
    assert faults(releases.folder) == [("2", name, "digest")]
    (releases.folder / name).unlink()
    kind = "digest" if name == "latest.json" else "missing"
    assert faults(releases.folder) == [("2", name, kind)]


def test_the_key_and_the_record_of_another_are_found(releases, publish, tmp_path):
    other = SigningKey.from_seed(b"o" * 32)
    publish("1", folder=tmp_path / "theirs", key=other)
    renew(tmp_path / "theirs", other)
    for name in ("latest.ipns", "key.pem"):
        os.replace(tmp_path / "theirs" / name, releases.folder / name)
    record, key = verify_releases(releases.folder).faults
    assert "not signed by the key" in record.detail
    assert str(key) == "digest: 2/key.pem: is not what the manifest makes of it"


@pytest.mark.parametrize("change", [lambda data: data[1:], lambda data: data + b"\n", flipped])
def test_altered_lists_are_found(releases, publish, data, change):
    old = releases.latest.manifest.by_path["00000003.tar"]
    (data / "00000003.tar").unlink()
    removal = Removal("3", 3, "asked", ("0" * 32,), ((old.path, old.size, old.sha256),))
    publish("3", removal=removal)
    renew(releases.folder, KEY)
    third = releases.folder / "versions/3"
    for name in ("SHA256SUMS", "tombstones.tsv"):
        (third / name).write_bytes(change((third / name).read_bytes()))
    (releases.folder / "versions/1/tombstones.tsv").write_text("0\t1\tnever\n")
    assert faults(releases.folder) == [
        ("1", "tombstones.tsv", "digest"),
        ("3", "SHA256SUMS", "digest"),
        ("3", "tombstones.tsv", "digest"),
    ]


@pytest.mark.parametrize("damage", ["flipped", "short", "none"])
def test_wrong_layers_of_pieces_are_found(releases, damage):
    path = releases.latest.folder / "ds-2.hybrid.torrent"
    value = bencode.decode(path.read_bytes(), 1 << 20)
    layers = value[b"piece layers"]
    root = bytes.fromhex(releases.latest.manifest.by_path["00000001.tar"].pieces_root)
    if damage == "flipped":
        layers[root] = flipped(layers[root])
    elif damage == "short":
        layers[root] = layers[root][:-32]
    else:
        del value[b"piece layers"]
    path.write_bytes(bencode.encode(value))
    [fault] = verify_releases(releases.folder).faults
    assert (fault.path, fault.kind) == ("ds-2.hybrid.torrent", "digest")
    name = "00000000.tar" if damage == "none" else "00000001.tar"
    assert fault.detail == f"its piece layer of {name} is missing or not that of the file"


def test_a_torrent_that_leads_elsewhere_is_found(releases):
    path = releases.latest.folder / "ds-2.torrent"
    value = bencode.decode(path.read_bytes(), 1 << 20)
    value[b"announce"] = b"http://elsewhere.example/announce"
    path.write_bytes(bencode.encode(value))
    assert faults(releases.folder) == [("2", "ds-2.torrent", "digest")]


def test_an_expired_or_older_pointer_is_told(releases, publish, tmp_path):
    renew(releases.folder, KEY, now=NOW - timedelta(days=100))
    fault, record = verify_releases(releases.folder).faults
    assert (fault.path, record.path) == ("latest.json", "latest.ipns")
    assert "expired on 2026-09-11" in fault.detail
    assert "expired 2026-09-11" in record.detail
    publish("1", folder=tmp_path / "old")
    renew(tmp_path / "old", KEY)
    for name in ("latest.json", "latest.ipns"):
        os.replace(tmp_path / "old" / name, releases.folder / name)
    fault, record = verify_releases(releases.folder).faults
    assert fault.detail == "names version 1, but 2 is the newest"
    assert "points to number 1, /ipfs/" in record.detail


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
    damage(releases.versions[0], "00000000.tar", flip)
    report = verify_releases(releases.folder)
    assert report.versions == ["1"]
    assert str(report.faults[0]) == (
        f"untrusted: 2/manifest.json: {path}: its signature is wrong; it was altered or is not "
        "theirs; put manifest.json and manifest.json.sig back from another copy of this version"
    )
    assert faults(releases.folder)[1:] == [("1", "00000000.tar", "digest")]
    assert faults(releases.folder, version="2") == [("2", "manifest.json", "untrusted")]
    assert faults(releases.folder, version="1") == [("1", "00000000.tar", "digest")]


def test_an_altered_manifest_between_others_is_named(releases, publish, data):
    write_files(data, {"00000004.tar": PIECE})
    publish("3")
    renew(releases.folder, KEY)
    path = releases.folder / "versions/2/manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"url":null', b'"url":"x"'))
    report = verify_releases(releases.folder)
    assert (report.versions, len(report.faults)) == (["1", "3"], 1)
    assert faults(releases.folder) == [("2", "manifest.json", "untrusted")]
    with pytest.raises(IntegrityError, match=r"versions/2/manifest\.json: its signature is wrong"):
        _ = Releases(releases.folder).versions
    path.write_bytes(b"garbage")
    assert faults(releases.folder) == [("2", "manifest.json", "untrusted")]
    shutil.rmtree(path.parent)
    [fault] = verify_releases(releases.folder).faults
    assert (fault.version, fault.kind) == ("3", "untrusted")
    assert "versions/3: does not name '1' as its parent" in fault.detail


def test_an_unknown_version(releases):
    with pytest.raises(UsageError, match="no version '22'"):
        verify_releases(releases.folder, "22")
