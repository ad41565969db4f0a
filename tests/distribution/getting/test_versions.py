"""Which version is believed, and how a folder goes from one to the next."""

import json
from datetime import UTC, datetime

import pytest
from datacomp.distribution.getting import get
from datacomp.distribution.release import Releases, SigningKey, sign_pointer
from datacomp.durable import canonical_json
from datacomp.errors import (
    IntegrityError,
    UnsafeInputError,
    UsageError,
)

from .conftest import HTTP, contents, options


def test_an_update_transfers_only_what_is_new(publish, serving, files, shard, tmp_path):
    server = serving(publish(files))
    get(server.url, tmp_path / "got", HTTP)
    (tmp_path / "got/mine.txt").write_text("mine")
    newer = {name: data for name, data in files.items() if name != "README.md"}
    newer |= {"00004.tar": shard(4, 1), "moved.tar": newer.pop("00003.tar")}
    publish(newer, "2")
    with pytest.raises(UsageError, match=r"holds version 1; --update makes it 2, or use another"):
        get(server.url, tmp_path / "got", HTTP)
    assert contents(tmp_path / "got") == files | {"mine.txt": b"mine"}
    report = get(server.url, tmp_path / "got", options(update=True))
    assert contents(tmp_path / "got") == newer | {"mine.txt": b"mine"}
    assert (report.fetched, report.fetched_files) == (1 << 20, 1)
    assert report.removed == ["00003.tar", "README.md"]


def test_an_older_version_is_refused(publish, serving, files, shard, tmp_path):
    server = serving(publish(files))
    old = (tmp_path / "releases/latest.json").read_bytes()
    publish(files | {"00004.tar": shard(4, 1)}, "2")
    get(server.url, tmp_path / "got", HTTP)
    (tmp_path / "releases/latest.json").write_bytes(old)
    with pytest.raises(IntegrityError, match=r"names version 1 \(number 1\), older than 2"):
        get(server.url, tmp_path / "got", HTTP)
    with pytest.raises(IntegrityError, match=r"version 1 \(number 1\) is older than 2"):
        get(server.url + "versions/1/manifest.json", tmp_path / "got", HTTP)


def test_another_key_is_refused(publish, serving, files, tmp_path, key):
    other = SigningKey.from_seed(b"o" * 32)
    server = serving(publish(files))
    false = serving(publish(files, folder="false", signer=other))
    with pytest.raises(IntegrityError, match=r"not with .* as expected; refused"):
        get(server.url, tmp_path / "got", options(key=other.public))
    assert contents(tmp_path / "got") == {}
    get(server.url, tmp_path / "got", options(key=key.public))
    with pytest.raises(IntegrityError, match=r"not with .* as expected; refused"):
        get(false.url, tmp_path / "got", options(update=True))


def test_an_altered_manifest_is_refused(publish, serving, files, tmp_path):
    folder = publish(files)
    place = folder / "versions/1/manifest.json"
    server = serving(folder)  # it was right when the server began
    place.write_bytes(place.read_bytes().replace(b"README.md", b"READ.ME.m"))
    with pytest.raises(IntegrityError, match=r"signature is wrong|altered|not canonical"):
        get(server.url, tmp_path / "got", HTTP)


def test_an_expired_pointer_is_refused(publish, serving, files, tmp_path, key):
    folder = publish(files)
    server = serving(folder)
    before = datetime(2020, 1, 1, tzinfo=UTC)
    manifest = Releases(folder).latest.manifest
    (folder / "latest.json").write_bytes(sign_pointer(manifest, key, before))
    with pytest.raises(IntegrityError, match=r"latest\.json: expired on"):
        get(server.url, tmp_path / "got", HTTP)


def test_another_dataset_is_refused(publish, serving, files, tmp_path):
    server = serving(publish(files))
    get(server.url, tmp_path / "got", HTTP)
    state = tmp_path / "got/.datacomp"
    manifest = (state / "manifest.json").read_bytes().replace(b'"birds"', b'"fishes"')
    (state / "manifest.json").write_bytes(manifest)
    with pytest.raises(UsageError, match="holds fishes, not birds; use another folder"):
        get(server.url, tmp_path / "got", HTTP)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../up.tar", "is not a plain relative path"),
        ("/etc/up.tar", "is absolute"),
        ("00000.TAR", "collides with '00000.TAR'"),
        ("00000.tar/in.tar", "needs a folder where '00000.tar' is a file"),
        ("a\\b.tar", "has a backslash"),
        ("a\nb.tar", "has control characters"),
    ],
)
def test_a_signed_manifest_with_names_that_would_do_harm(
    publish, serving, files, tmp_path, key, name, message
):
    folder = publish(files)
    server = serving(folder)
    place = folder / "versions/1/manifest.json"
    fields = json.loads(place.read_bytes())
    next(f for f in fields["files"] if f["path"] == "00001.tar")["path"] = name
    fields["files"].sort(key=lambda file: file["path"])
    data = canonical_json(fields) + b"\n"
    place.write_bytes(data)
    (folder / "versions/1/manifest.json.sig").write_bytes(key.sign(data))
    with pytest.raises(UnsafeInputError, match=message):
        get(f"{server.url}versions/1/manifest.json", tmp_path / "got", HTTP)
    assert not (tmp_path / "got").exists()
    # Named by a pointer of another manifest, it is refused before it is looked at.
    with pytest.raises((UnsafeInputError, IntegrityError)):
        get(server.url, tmp_path / "got", HTTP)
    assert not (tmp_path / "up.tar").exists()


def test_what_was_taken_back_is_deleted_and_never_accepted(
    publish, serving, files, shard, tmp_path
):
    from datacomp.distribution.release import Removal

    folder = publish(files)
    server = serving(folder)
    get(server.url, tmp_path / "got", HTTP)
    manifest = json.loads((folder / "versions/1/manifest.json").read_text())
    old = next(f for f in manifest["files"] if f["path"] == "00001.tar")
    removal = Removal(
        "2", 2, "asked for", ("0" * 32,), ((old["path"], old["size"], old["sha256"]),)
    )
    newer = files | {"00001.tar": shard(77, 1)}
    publish(newer, "2", removal=removal)
    report = get(server.url, tmp_path / "got", options(update=True))
    assert report.withdrawn == ["00001.tar"]
    assert report.fetched == 1 << 20
    assert contents(tmp_path / "got") == newer
    # A copy under a stranger's hand is found by its bytes.
    (tmp_path / "other").mkdir()
    (tmp_path / "other/00001.tar").write_bytes(files["00001.tar"])
    report = get(server.url, tmp_path / "other", HTTP)
    assert report.withdrawn == ["00001.tar"]
    assert contents(tmp_path / "other") == newer


def test_a_file_of_an_old_version_that_was_taken_back_cannot_be_had(
    publish, serving, tmp_path, command
):
    from datacomp.distribution.release import Removal

    folder = publish({"a.txt": b"a", "b.txt": b"b"})
    server = serving(folder)
    manifest = json.loads((folder / "versions/1/manifest.json").read_text())
    old = manifest["files"][0]
    removal = Removal("2", 2, "asked", ("0" * 32,), ((old["path"], old["size"], old["sha256"]),))
    publish({"b.txt": b"b"}, "2", removal=removal)
    url = f"{server.url}versions/1/manifest.json"
    code, out, _ = command("get", url, tmp_path / "got", "--no-bittorrent")
    assert code == 1
    assert "missing: a.txt: " in out
    assert out.splitlines()[-1] == (
        "not whole: 1 file of this version taken back by the keeper, not to be had any more; get "
        "the newest version"
    )
    code, out, _ = command("get", url, tmp_path / "got", "--no-bittorrent", "--json")
    assert (code, json.loads(out)["gone"]) == (1, ["a.txt"])


def test_what_is_half_there_of_what_was_taken_back_is_deleted(publish, files, shard, tmp_path):
    import libtorrent as lt
    from datacomp.distribution.getting.folder import Folder
    from datacomp.distribution.getting.there import withdraw
    from datacomp.distribution.release import Removal

    old = Releases(publish(files)).latest.manifest.by_path["00001.tar"]
    removal = Removal(
        "2", 2, "asked for", ("0" * 32,),
        (("../../latest.json", 1, "e" * 64), (old.path, old.size, old.sha256)),
    )  # fmt: skip
    folder = publish(files | {"00001.tar": shard(77)}, "2", removal=removal)
    manifest = Releases(folder).latest.manifest

    def left(version):
        """Return what is left of an interrupted download of a version, and what it was."""
        with Folder(tmp_path / version) as got:
            for path in (
                got.state / "latest.json", got.partial / old.sha256, got.partial / "other",
                got.partial / f"{old.sha256}.gaps", got.torrent / "birds/00001.tar",
                got.torrent / "birds/00002.tar",
            ):  # fmt: skip
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"[]")
            torrent = folder / f"versions/{version}/birds-{version}.hybrid.torrent"
            resume = lt.write_resume_data_buf(lt.load_torrent_buffer(torrent.read_bytes()))
            (got.torrent / "torrent.resume").write_bytes(resume)
            withdraw(got, manifest)
        return {path.name for path in got.state.rglob("*") if path.is_file()}

    stay = {"lock", "latest.json", "other", "00002.tar", "torrent.resume"}
    assert left("1") == stay
    assert left("2") == stay | {"00001.tar"}
