import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from datacomp.distribution.release import (
    About,
    Plan,
    Release,
    Releases,
    Removal,
    SigningKey,
    Source,
    create_version,
)
from datacomp.distribution.release.create import withdraw
from datacomp.errors import (
    DataError,
    IntegrityError,
    MissingError,
    StorageError,
    UnsafeInputError,
    UsageError,
)

from .conftest import KEY, NOW, PIECE, SIZES, write_files

VIEWS = {
    "SHA256SUMS", "croissant.json", "datasheet.md", "ds-1.hybrid.torrent", "ds-1.meta4",
    "ds-1.torrent", "manifest.json", "manifest.json.sig", "ds",
}  # fmt: skip


def tree(folder):
    """Return the bytes of every file below a folder, but for what the keeper alone needs."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".state" not in path.parts
    }


def touched_up(path, data):
    """Write other bytes into a file as if nothing had happened: same size, same time."""
    status = path.stat()
    assert len(data) == status.st_size
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_what_a_version_consists_of(publish, data, tmp_path):
    report = publish("1")
    folder = tmp_path / "releases"
    assert {p.name for p in folder.iterdir()} == {
        "latest.json", "latest.ipns", "key.pem", "versions", ".state"
    }  # fmt: skip
    assert {p.name for p in (folder / "versions/1").iterdir()} == VIEWS
    for name in SIZES:
        assert (folder / "versions/1/ds" / name).samefile(data / name)
    assert (report.files, report.bytes) == (len(SIZES), sum(SIZES.values()))
    assert (report.read, report.bytes_read, report.copied) == (9, sum(SIZES.values()), 0)
    assert report.root_cid == Releases(folder).latest.manifest.root_cid
    assert not (folder / ".state/staging").exists()


def test_a_second_version_reads_what_is_new_only(publish, data):
    publish("1")
    write_files(data, {"00000003.tar": 2 * PIECE, "ids.npy": 2 * PIECE + 116}, seed=1)
    report = publish("2")
    assert (report.serial, report.read, report.bytes_read) == (2, 2, 4 * PIECE + 116)


PARQUETS = {"a.parquet": 3 * PIECE + 1000, "b.parquet": PIECE - 5, "c.parquet": 2 * PIECE + 9}


def test_files_that_share_pieces_are_not_read_again(publish, data, tmp_path):
    write_files(data, PARQUETS)
    publish("1")
    before = (data / "b.parquet").read_bytes()
    touched_up(data / "b.parquet", bytes(PARQUETS["b.parquet"]))  # whoever reads it, sees that
    report = publish("2")
    assert (report.read, report.bytes_read) == (0, 0)
    first, second = Releases(tmp_path / "releases").versions
    assert second.manifest.torrents["v1"]["infohash"] == first.manifest.torrents["v1"]["infohash"]
    # The torrent of the parent counts only if it is right: else all is read.
    path = second.folder / "ds-2.torrent"
    path.write_bytes(path.read_bytes()[:-1])
    touched_up(data / "b.parquet", before)
    report = publish("3")
    assert (report.read, report.bytes_read) == (0, sum(PARQUETS.values()) + SIZES["ids.npy"])
    third = Releases(tmp_path / "releases").latest.manifest
    assert third.torrents["v1"]["infohash"] == first.manifest.torrents["v1"]["infohash"]


@pytest.mark.parametrize("name", ["0.parquet", "a.parquet", "b.parquet", "d.parquet", "z.parquet"])
def test_what_is_read_again_is_counted(publish, data, tmp_path, name):
    write_files(data, PARQUETS)
    publish("1")
    write_files(data, {name: PIECE + 77}, seed=1)
    report = publish("2")
    publish("2", folder=tmp_path / "anew")
    expected = Releases(tmp_path / "anew").latest.manifest.torrents["v1"]
    assert Releases(tmp_path / "releases").latest.manifest.torrents["v1"] == expected
    large = {**{n: size for n, size in SIZES.items() if n == "ids.npy"}, **PARQUETS}
    row = {n: size for n, size in sorted({**SIZES, **PARQUETS}.items()) if size % PIECE}
    same = sum(size for n, size in row.items() if n < name) // PIECE * PIECE
    again = at = 0
    for n, size in row.items():
        at += size
        again += max(0, min(size, at - same)) if n in large and n != name else 0
    assert (report.read, report.bytes_read) == (1, PIECE + 77 + again)


def test_versions_share_what_is_unchanged(publish, data, tmp_path):
    publish("1")
    write_files(data, {"00000003.tar": PIECE})
    publish("2")
    versions = tmp_path / "releases/versions"
    assert (versions / "1/ds/00000000.tar").samefile(versions / "2/ds/00000000.tar")
    assert not (versions / "1/ds/00000003.tar").exists()


def test_what_looks_unchanged_is_trusted_until_told_otherwise(publish, data, tmp_path):
    publish("1")
    for name in ("00000001.tar", "00000001_stats.json"):
        touched_up(data / name, bytes(SIZES[name]))
    first, second = Releases(tmp_path / "releases").latest.manifest, publish("2")
    assert (second.read, second.bytes_read) == (0, 0)
    after = Releases(tmp_path / "releases").latest.manifest
    assert after.files == first.files
    third = publish("3", rehash=True)
    assert third.read == 9
    changed = Releases(tmp_path / "releases").latest.manifest
    assert {f.path for f in changed.files if f not in first.files} == {
        "00000001.tar", "00000001_stats.json"
    }  # fmt: skip


def test_what_a_failed_run_has_read_is_not_read_again(publish, tmp_path):
    publish("1", folder=tmp_path / "other")
    file = Releases(tmp_path / "other").latest.manifest.by_path["00000001.tar"]
    removal = Removal("1", 1, "asked", ("0" * 32,), ((file.path, file.size, file.sha256),))
    with pytest.raises(DataError, match="has samples that version 1 took back"):
        publish("1", removal=removal)
    assert publish("1").read == 0


def test_a_file_changed_in_place_is_told(publish, data, capsys):
    publish("1")
    with (data / "00000000.tar").open("ab") as file:
        file.write(bytes(PIECE))
    publish("2")
    assert capsys.readouterr().err == (
        f"warning: {data}/00000000.tar: was changed in place, so version 1 has lost it; write a "
        "new file and rename it\n"
    )


def test_tars_that_are_not_padded_are_copied_once(publish, data, tmp_path):
    write_files(data, {"00000003.tar": PIECE + 1024})
    assert publish("1").copied == 1
    assert publish("1").copied == 0
    report = publish("2")
    assert (report.read, report.copied) == (0, 0)
    versions = tmp_path / "releases/versions"
    found = versions / "2/ds/00000003.tar"
    assert found.read_bytes() == (data / "00000003.tar").read_bytes() + bytes(PIECE - 1024)
    assert found.samefile(versions / "1/ds/00000003.tar")
    assert b".pad" not in (versions / "1/ds-1.torrent").read_bytes()


@pytest.fixture
def elsewhere(data):
    """A folder on another file system than the data, which may be in memory or not."""
    here = data.stat().st_dev
    for place in map(Path, ("/dev/shm", "/var/tmp", "/tmp")):
        if place.is_dir() and os.access(place, os.W_OK) and place.stat().st_dev != here:
            with tempfile.TemporaryDirectory(prefix="datacomp-test-", dir=place) as folder:
                yield Path(folder)
            return
    pytest.skip("there is no second file system to copy to")


def test_another_file_system_gets_copies_in_the_same_pass(publish, data, elsewhere):
    folder = elsewhere / "releases"
    first = publish("1", folder=folder)
    assert (first.copied, first.bytes_read) == (9, sum(SIZES.values()))
    second = publish("2", folder=folder)
    assert (second.copied, second.read) == (0, 0)
    found = folder / "versions/2/ds/00000000.tar"
    assert found.read_bytes() == (data / "00000000.tar").read_bytes()
    assert found.samefile(folder / "versions/1/ds/00000000.tar")


def test_workers_change_nothing(publish, tmp_path):
    publish("1", folder=tmp_path / "a", workers=1)
    publish("1", folder=tmp_path / "b", workers=4)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_piece_length_and_profile_stay_those_of_the_parent(publish, tmp_path):
    publish("1", profile="legacy-256k", mirrors=("http://h",), about=About(licence="CC0-1.0"))
    report = publish("2", piece_length=None)
    found = Releases(tmp_path / "releases").latest.manifest
    assert (found.piece_length, found.cid_profile) == (PIECE, "legacy-256k")
    assert (found.mirrors, found.licence) == (("http://h/",), "CC0-1.0")
    assert "&ws=http%3A%2F%2Fh%2Fversions%2F2%2F" in report.magnet


def test_the_chain(publish, tmp_path):
    first = publish("1")
    publish("2")
    newest = Releases(tmp_path / "releases").latest.manifest
    assert newest.parent.sha256 == first.sha256
    assert (newest.parent.version, newest.parent.serial, newest.serial) == ("1", 1, 2)


def test_the_same_call_again_changes_nothing(publish, tmp_path):
    publish("1")
    before = tree(tmp_path / "releases")
    report = publish("1")
    assert (report.there, report.read) == (True, 0)
    assert tree(tmp_path / "releases") == before


def test_a_version_without_anything_new_says_so(publish, data):
    assert (publish("1").same_as, publish("2").same_as) == (None, "1")
    (data / "new.txt").write_bytes(b"new")
    assert publish("3").same_as is None


def test_a_version_never_changes(publish, data, tmp_path):
    publish("1")
    write_files(data, {"more.txt": 5})
    with pytest.raises(UsageError, match=r"versions/1: is there already and differs; versions nev"):
        publish("1")
    publish("2")
    with pytest.raises(UsageError, match=r"version '1' is there and newer ones are; versions neve"):
        publish("1")
    assert [r.manifest.version for r in Releases(tmp_path / "releases").versions] == ["1", "2"]


def test_a_parent_from_elsewhere(publish, tmp_path):
    publish("1")
    old = Release(tmp_path / "releases/versions/1")
    publish("2", folder=tmp_path / "new", parent=old)
    publish("2", folder=tmp_path / "new", parent=old)
    publish("3", folder=tmp_path / "new")
    found = Releases(tmp_path / "new")
    assert [(r.manifest.version, r.manifest.serial) for r in found.versions] == [("2", 2), ("3", 3)]
    assert found.versions[0].manifest.parent.sha256 == old.manifest.sha256
    with pytest.raises(UsageError, match="the newest version is '3', so '1' cannot be the parent"):
        publish("4", folder=tmp_path / "new", parent=old)


def test_another_key_cannot_go_on(publish):
    publish("1")
    with pytest.raises(UsageError, match=r"^version 1 was signed with the key .*, not with "):
        publish("2", key=SigningKey.from_seed(bytes(32)))


def test_another_dataset_cannot_go_on(publish, data, tmp_path):
    publish("1")
    plan = Plan("other", "2", piece_length=PIECE)
    with pytest.raises(UsageError, match="holds the dataset 'ds', not 'other'; choose another fol"):
        create_version(tmp_path / "releases", [Source("a", data / "empty")], plan, KEY)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mirrors": ("ftp://h/",)}, "web seed 'ftp://h/': expected a URL as https://host/path/"),
        ({"trackers": ("nowhere",)}, "tracker 'nowhere': expected a URL as udp://host:1337/announ"),
        ({"piece_length": 1000}, "piece length 1,000: expected a power of two from 16,384 to"),
        ({"profile": "x"}, "unknown CID profile 'x'"),
        ({"version": "../1"}, "version '../1': expected up to 64 letters, digits"),
    ],
)
def test_what_cannot_be_asked_for(publish, tmp_path, options, text):
    with pytest.raises(UsageError) as caught:
        publish(**options)
    assert str(caught.value).startswith(text)
    assert not (tmp_path / "releases").exists()


def test_a_refusal_leaves_what_was_there(publish, tmp_path):
    (tmp_path / "releases").mkdir()
    with pytest.raises(UsageError):
        publish(folder=tmp_path / "releases", piece_length=1000)
    assert list((tmp_path / "releases").iterdir()) == []
    with pytest.raises(UsageError):
        publish(folder=tmp_path / "a/b/c", piece_length=1000)
    assert not (tmp_path / "a").exists()
    publish("1")
    with pytest.raises(UsageError):
        publish("2", piece_length=1000)
    assert publish("2").read == 0


@pytest.mark.parametrize("name", ["../a", "/a", "a\\b", "a\nb"])
def test_names_that_cannot_be_published(tmp_path, data, name):
    with pytest.raises(UnsafeInputError, match="refused"):
        create_version(tmp_path / "r", [Source(name, data / "empty")], Plan("ds", "1"), KEY)


def test_files_that_cannot_be_published(tmp_path, data):
    for name, error, text in [
        ("gone", MissingError, "gone: no such file"),
        ("sub", DataError, "sub: not a regular file"),
    ]:
        with pytest.raises(error, match=text):
            create_version(tmp_path / "r", [Source("a", data / name)], Plan("ds", "1"), KEY)
    with pytest.raises(DataError, match="there is no file to publish"):
        create_version(tmp_path / "r", [], Plan("ds", "1"), KEY)


def test_one_release_at_a_time(publish, tmp_path):
    from datacomp.distribution.release.state import State

    with (
        State(tmp_path / "releases").locked(),
        pytest.raises(StorageError, match=r"another release is being made there; wait for it$"),
    ):
        publish("1")


def test_what_needs_too_large_a_torrent_is_refused_unread(publish, data, tmp_path):
    with (data / "large.tar").open("wb") as file:
        file.truncate(200 << 30)
    with pytest.raises(UsageError, match="refuses; give --piece-length 65536, and shards built"):
        publish("1")
    assert not (tmp_path / "releases").exists()


def test_what_was_taken_back_is_deleted_and_refused(publish, data, tmp_path):
    publish("1")
    old = Releases(tmp_path / "releases").latest.manifest.by_path["00000001.tar"]
    kept = (data / "00000001.tar").read_bytes()
    replacement = write_files(tmp_path / "new", {"00000001.tar": PIECE}, seed=3) / "00000001.tar"
    replacement.replace(data / "00000001.tar")
    removal = Removal("2", 2, "asked", ("0" * 32,), ((old.path, old.size, old.sha256),))
    publish("2", removal=removal)
    first, second = Releases(tmp_path / "releases").versions
    assert first.is_withdrawn("00000001.tar")
    assert not first.is_withdrawn("00000000.tar")
    assert not (first.data / "00000001.tar").exists()
    assert first.record("00000001.tar") is None
    assert second.locate("00000001.tar").stat().st_size == PIECE
    with pytest.raises(MissingError, match=r"00000001\.tar: was taken back after version 1"):
        first.locate("00000001.tar")
    assert (second.folder / "tombstones.tsv").read_text() == f"{'0' * 32}\t2\tasked\n"
    assert withdraw(Releases(tmp_path / "releases")) == 0
    (tmp_path / "again.tar").write_bytes(kept)
    (tmp_path / "again.tar").replace(data / "00000001.tar")
    with pytest.raises(DataError, match=r"00000001\.tar: has samples that version 2 took back"):
        publish("3")


def test_where_files_lie(publish, tmp_path):
    publish("1")
    release = Releases(tmp_path / "releases").version("1")
    assert release.locate("sub/notes.txt").read_bytes()
    assert release.record("ids.npy").cid == release.manifest.by_path["ids.npy"].cid
    with pytest.raises(MissingError, match=r"^1 has no file '\.\./manifest\.json'$"):
        release.locate("../manifest.json")
    place = release.data / "ids.npy"
    place.unlink()
    with pytest.raises(MissingError, match="no such file, though the manifest lists it"):
        release.locate("ids.npy")
    place.write_bytes(b"short")
    with pytest.raises(IntegrityError, match="5 bytes instead of 65,636"):
        release.locate("ids.npy")


def test_a_broken_chain_is_refused(publish, data, tmp_path):
    folder = tmp_path / "releases"
    publish("1")
    publish("2")
    publish("3")
    shutil.rmtree(folder / "versions/2")
    with pytest.raises(
        IntegrityError, match=r"versions/3: does not name '1' as its parent; the ch"
    ):
        _ = Releases(folder).versions


def test_a_version_that_is_lost_is_missed(publish, tmp_path):
    publish("1")
    publish("2")
    shutil.rmtree(tmp_path / "releases/versions/2")
    with pytest.raises(UsageError) as caught:
        publish("3")
    assert str(caught.value) == (
        f"{tmp_path}/releases/latest.json: names version '2' (number 2), which is not here; bring "
        "it back first"
    )


def test_an_altered_manifest_is_refused(publish, tmp_path):
    publish("1")
    path = tmp_path / "releases/versions/1/manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"licence":null', b'"licence":"CC0"'))
    with pytest.raises(IntegrityError, match=r"manifest\.json: its signature is wrong"):
        _ = Releases(tmp_path / "releases").latest


def test_no_release_yet(tmp_path):
    with pytest.raises(MissingError, match="no release there; make one with 'datacomp release cre"):
        _ = Releases(tmp_path).latest


def test_damaged_memory_is_as_good_as_none(publish, tmp_path):
    publish("1")
    state = tmp_path / "releases/.state"
    for path in (state / "records").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1] + b"x")
    before = tree(tmp_path / "releases")
    assert publish("1").read == 9
    (state / "seen.jsonl").write_bytes(b'{"path": "00000000.tar", "si')
    assert publish("1").read == 9
    assert tree(tmp_path / "releases") == before


def test_a_full_disk_leaves_nothing_half_made(publish, data, tmp_path):
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from datacomp.distribution.release import *\n"
        "from datacomp.errors import StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "data = Path(sys.argv[1])\n"
        "files = [Source(p.name, p) for p in data.glob('*.tar')]\n"
        "try:\n"
        f"    create_version(sys.argv[2], files, Plan('ds', '1', piece_length={PIECE}),\n"
        "                   SigningKey.from_seed(bytes(32)))\n"
        "except StorageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, data,
         tmp_path / "releases"], capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.endswith("the file would exceed the largest size allowed here\n")
    assert not (tmp_path / "releases/versions").exists()
    assert not (tmp_path / "releases/latest.json").exists()
    assert publish("1").files == 9


def test_a_disk_without_room_leaves_nothing_half_made(publish, small_disk):
    folder = small_disk(10 * PIECE) / "releases"
    with pytest.raises(StorageError, match=r"^cannot write .*: the disk is full; free some space"):
        publish("1", folder=folder)
    assert not (folder / "versions").exists()
    assert not (folder / "latest.json").exists()
    subprocess.run(["mount", "-o", "remount,size=8m", folder.parent], check=True)
    assert publish("1", folder=folder).files == 9
    assert Releases(folder).latest.manifest.version == "1"


def test_the_manifest_is_what_the_documentation_says(publish, tmp_path):
    publish("1", about=About(authors=("A",), scores={"tasks": {"mnist": 0.5}}))
    value = json.loads((tmp_path / "releases/versions/1/manifest.json").read_bytes())
    assert value["format"] == "datacomp-release"
    assert value["scores"] == {"tasks": {"mnist": 0.5}}
    assert value["authors"] == ["A"]
    page = (Path(__file__).parents[3] / "docs/releases.md").read_text()
    assert [key for key in value if f"`{key}`" not in page] == []
    assert NOW.year == 2026
