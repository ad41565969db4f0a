"""Getting releases over HTTP: whole, verified, resumed, repaired, updated, from good and bad."""

import json
import os
import re
from datetime import UTC, datetime

import pytest
from datacomp.distribution.getting import Options, get
from datacomp.distribution.release import Releases, SigningKey, sign_pointer
from datacomp.durable import canonical_json
from datacomp.errors import (
    DataError,
    IntegrityError,
    MissingError,
    StorageError,
    UnsafeInputError,
    UsageError,
)

HTTP = Options(bittorrent=False, patience=1.0)


def contents(folder):
    """Return the files of a folder that a person sees, with their bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".datacomp" not in path.parts
    }


def by_source(report):
    return {one["source"].split("/versions")[0] + "/": one for one in report.sources}


def options(**more):
    return Options(**{"bittorrent": False, "patience": 1.0, **more})


# -- from one honest server -------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "latest.json", "versions/1/manifest.json"])
def test_a_version_arrives_whole(publish, serving, files, tmp_path, path):
    server = serving(publish(files))
    report = get(server.url + path, tmp_path / "got", HTTP)
    assert contents(tmp_path / "got") == files
    total = sum(map(len, files.values()))
    assert (report.whole, report.signed, report.version) == (True, True, "1")
    assert (report.files, report.fetched_files, report.bytes) == (5, 5, total)
    assert report.channels == {"http": total}
    assert report.to_dict()["sources"][0]["standing"] == "used"


def test_what_is_there_is_not_fetched_again(publish, serving, files, tmp_path):
    server = serving(publish(files))
    get(server.url, tmp_path / "got", HTTP)
    before = server.given
    report = get(server.url, tmp_path / "got", HTTP)
    assert (report.reused_files, report.fetched, report.sources) == (5, 0, [])
    assert server.given - before < 10_000
    assert not list((tmp_path / "got/.datacomp/partial").iterdir())


def test_copies_made_by_others_are_checked_and_kept(publish, serving, files, tmp_path):
    server = serving(publish(files))
    (tmp_path / "got").mkdir()
    (tmp_path / "got/00000.tar").write_bytes(files["00000.tar"])
    report = get(server.url, tmp_path / "got", HTTP)
    assert (report.reused_files, report.fetched_files) == (1, 4)
    assert contents(tmp_path / "got") == files


def test_only_the_wrong_blocks_of_a_damaged_file_are_fetched(publish, serving, files, tmp_path):
    server = serving(publish(files))
    get(server.url, tmp_path / "got", HTTP)
    with (tmp_path / "got/00002.tar").open("r+b") as file:
        file.seek((1 << 20) + 5)
        file.write(b"wrong")
    report = get(server.url, tmp_path / "got", HTTP)
    assert (report.fetched, report.reused_files) == (1 << 20, 4)
    assert contents(tmp_path / "got") == files


def test_rehash_finds_what_the_clock_hides(publish, serving, files, tmp_path):
    server = serving(publish(files))
    get(server.url, tmp_path / "got", HTTP)
    place = tmp_path / "got/00002.tar"
    status = place.stat()
    with place.open("r+b") as file:
        file.write(b"wrong")
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert get(server.url, tmp_path / "got", HTTP).fetched == 0
    assert get(server.url, tmp_path / "got", options(rehash=True)).fetched == 1 << 20
    assert contents(tmp_path / "got") == files


def test_an_unfinished_file_goes_on_where_it_stopped(publish, serving, files, tmp_path):
    server = serving(publish(files))
    partial = tmp_path / "got/.datacomp/partial"
    partial.mkdir(parents=True)
    manifest = json.loads((tmp_path / "releases/versions/1/manifest.json").read_text())
    digest = next(f["sha256"] for f in manifest["files"] if f["path"] == "00003.tar")
    (partial / digest).write_bytes(files["00003.tar"][: 2 << 20])
    report = get(server.url, tmp_path / "got", options(connections=1))
    assert contents(tmp_path / "got") == files
    assert report.fetched == report.bytes - (2 << 20)
    assert ("/versions/1/birds/00003.tar", f"bytes={2 << 20}-") in server.asked


def test_a_wrong_beginning_costs_its_blocks_only(publish, serving, files, tmp_path):
    server = serving(publish({"00000.tar": files["00000.tar"]}))
    partial = tmp_path / "got/.datacomp/partial"
    partial.mkdir(parents=True)
    manifest = json.loads((tmp_path / "releases/versions/1/manifest.json").read_text())
    (partial / manifest["files"][0]["sha256"]).write_bytes(
        bytes(100) + files["00000.tar"][100 : 2**21]
    )
    report = get(server.url, tmp_path / "got", HTTP)
    assert contents(tmp_path / "got") == {"00000.tar": files["00000.tar"]}
    assert report.fetched == (1 << 20) + len(files["00000.tar"]) - 2**21
    assert report.sources[0]["reasons"] == []  # nobody is blamed for what was there before


def test_equal_and_empty_files_and_folders(publish, serving, tmp_path):
    files = {"a/one.txt": b"same", "a/b/two.txt": b"same", "empty": b"", "none": b""}
    server = serving(publish(files))
    report = get(server.url, tmp_path / "got", HTTP)
    assert contents(tmp_path / "got") == files
    assert (report.fetched_files, report.fetched) == (4, 4)


def test_names_that_urls_must_quote(publish, serving, tmp_path):
    files = {"a b/ü#?%41&.txt": b"one", "{1..2}.txt": b"two"}
    server = serving(publish(files))
    get(server.url, tmp_path / "got", HTTP)
    assert contents(tmp_path / "got") == files


# -- versions ---------------------------------------------------------------------------------


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


# -- what is in the way -----------------------------------------------------------------------


def test_a_stranger_s_file_is_not_overwritten(publish, serving, files, tmp_path):
    server = serving(publish(files))
    (tmp_path / "got").mkdir()
    (tmp_path / "got/README.md").write_text("my notes")
    with pytest.raises(UsageError, match=r"README\.md: is there already and is another file"):
        get(server.url, tmp_path / "got", HTTP)
    assert contents(tmp_path / "got") == {"README.md": b"my notes"}


def test_a_link_out_of_the_folder_is_not_followed(publish, serving, tmp_path):
    server = serving(publish({"a/one.txt": b"one"}))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "got").mkdir()
    (tmp_path / "got/a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeInputError, match="a link on the way leaves the folder"):
        get(server.url, tmp_path / "got", HTTP)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_one_at_a_time(publish, serving, files, tmp_path):
    from datacomp.distribution.getting.folder import Folder

    server = serving(publish(files))
    with (
        Folder(tmp_path / "got"),
        pytest.raises(StorageError, match="another 'datacomp get' fills it"),
    ):
        get(server.url, tmp_path / "got", HTTP)


def test_a_disk_too_small_is_told_before(publish, serving, files, tmp_path, monkeypatch):
    import shutil

    server = serving(publish(files))
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match=r"bytes are still to come, but only 1,000 are free"):
        get(server.url, tmp_path / "got", HTTP)


def test_what_is_no_source(tmp_path):
    with pytest.raises(UsageError, match="not a source; expected the URL of a manifest"):
        get("no-such-thing", tmp_path / "got", HTTP)
    with pytest.raises(UsageError, match="names no torrent"):
        get("magnet:?dn=birds", tmp_path / "got", HTTP)
    with pytest.raises(UsageError, match="name an IPFS gateway with --gateway"):
        get("ipfs://bafkqaaa", tmp_path / "got", HTTP)


def test_nobody_answers(tmp_path):
    with pytest.raises(StorageError, match=r"latest\.json: the server cannot be reached"):
        get("http://127.0.0.1:9/", tmp_path / "got", HTTP)


def test_a_server_without_releases(serving, publish, files, tmp_path):
    server = serving(publish(files))
    with pytest.raises(MissingError, match=r"latest\.json: no such file \(404\)"):
        get(server.url + "elsewhere/", tmp_path / "got", HTTP)


# -- mirrors that fail ------------------------------------------------------------------------


def pair(serving, folder, fault):
    """Return an honest server, a faulty one, and options that name both."""
    good, bad = serving(folder), serving(folder, fault)
    return good, bad, options(mirrors=(bad.url,))


def test_two_mirrors_share_the_work(publish, serving, files, tmp_path):
    good, _, both = pair(serving, publish(files), lambda path, headers: None)
    report = get(good.url, tmp_path / "got", both)
    assert contents(tmp_path / "got") == files
    assert report.fetched == report.bytes
    assert all(one["bytes"] > 0 for one in report.sources)


def test_a_flipped_bit_is_found_named_and_fetched_elsewhere(
    publish, serving, files, flip, tmp_path, capfd
):
    shards = [name for name in files if name.endswith(".tar")]
    good, bad, _ = pair(serving, publish(files), flip(1_500_000, shards))
    # The faulty one is asked first.
    report = get(bad.url, tmp_path / "got", options(mirrors=(good.url,), connections=1))
    assert contents(tmp_path / "got") == files
    assert report.whole
    found = by_source(report)
    assert found[good.url]["standing"] == "used"
    assert found[bad.url]["standing"] == "used only where there is no other"
    assert re.search(r"gave 1 wrong block", found[bad.url]["reasons"][0])
    assert f"warning: {bad.url}versions/1/birds/ gave 1 wrong block of" in capfd.readouterr().err
    # Of each file it spoilt one block was fetched again, no more.
    spoilt = len(found[bad.url]["reasons"])
    assert report.fetched == report.bytes + spoilt * (1 << 20)


def test_a_lying_mirror_alone_gives_what_is_right(publish, serving, files, flip, tmp_path):
    server = serving(publish(files), flip(5))
    report = get(server.url, tmp_path / "got", HTTP)
    right = {name: data for name, data in files.items() if name != "00001.tar"}
    assert contents(tmp_path / "got") == right
    assert not report.whole
    assert re.search("gave 1 wrong block", report.failed["00001.tar"])
    assert not (tmp_path / "got/.datacomp/manifest.json").exists()
    server.fault = lambda path, headers: None
    report = get(server.url, tmp_path / "got", HTTP)
    assert (report.whole, report.fetched) == (True, 1 << 20)
    assert contents(tmp_path / "got") == files


def test_a_truncated_shard(publish, serving, files, tmp_path):
    folder = publish(files)
    import shutil

    shutil.copytree(folder, tmp_path / "copy")
    place = tmp_path / "copy/versions/1/birds/00001.tar"
    place.write_bytes(files["00001.tar"][:-5])
    good, bad = serving(folder), serving(tmp_path / "copy")
    report = get(good.url, tmp_path / "got", options(mirrors=(bad.url,)))
    assert contents(tmp_path / "got") == files
    alone = get(bad.url, tmp_path / "alone", HTTP)
    assert set(alone.failed) <= set(files)
    assert "00001.tar" in alone.failed
    assert "00001.tar" not in contents(tmp_path / "alone")
    assert report.whole


def test_a_silent_mirror_is_left(publish, serving, files, stall, tmp_path):
    good, _, both = pair(serving, publish(files), stall(100_000))
    report = get(good.url, tmp_path / "got", both)
    assert contents(tmp_path / "got") == files
    assert report.seconds < 10


def test_a_silent_mirror_alone_is_an_end(publish, serving, files, stall, tmp_path, monkeypatch):
    monkeypatch.setattr("datacomp.distribution.getting.source.REST", 0.1)
    server = serving(publish(files), stall(100_000))
    report = get(server.url, tmp_path / "got", options(patience=0.3))
    assert set(report.failed) == {name for name in files if name.endswith(".tar")}
    assert report.sources[0]["standing"] == "dropped"
    assert report.sources[0]["reasons"] == ["has been silent for 0.3 s"]
    assert report.seconds < 20


def test_answers_without_ranges(publish, serving, files, tmp_path):
    server = serving(publish(files))
    get(server.url, tmp_path / "got", HTTP)
    with (tmp_path / "got/00002.tar").open("r+b") as file:
        file.seek((1 << 20) + 5)
        file.write(b"wrong")
    server.fault = lambda path, headers: "no ranges"
    report = get(server.url, tmp_path / "got", HTTP)
    assert report.fetched == 1 << 20  # the rest of what came was thrown away
    assert contents(tmp_path / "got") == files


def test_a_mirror_that_lacks_a_file(publish, serving, files, tmp_path):
    def fault(path, headers):
        return (404, []) if path.endswith("00002.tar") else None

    good, bad, both = pair(serving, publish(files), fault)
    report = get(good.url, tmp_path / "got", both)
    assert contents(tmp_path / "got") == files
    assert all(one["standing"] == "used" for one in report.sources)
    alone = get(bad.url, tmp_path / "alone", HTTP)
    assert list(alone.failed) == ["00002.tar"]
    assert alone.failed["00002.tar"].endswith("answers 404")


def test_a_redirect_to_another_site_is_not_followed(publish, serving, files, tmp_path):
    folder = publish(files)
    good = serving(folder)

    def fault(path, headers):
        return (302, [(b"location", (good.url + path[1:]).encode())]) if "birds/" in path else None

    bad = serving(folder, fault)
    report = get(bad.url, tmp_path / "got", HTTP)
    assert set(report.failed) == set(files)
    assert report.sources[0]["standing"] == "dropped"
    assert "sends us to another site" in report.sources[0]["reasons"][0]
    assert not any("birds/" in path for path, _ in good.asked)
    report = get(bad.url, tmp_path / "got", options(mirrors=(good.url,)))
    assert contents(tmp_path / "got") == files


def test_a_busy_mirror_is_asked_again(publish, serving, files, tmp_path, monkeypatch):
    monkeypatch.setattr("datacomp.distribution.getting.source.REST", 0.1)
    left = [2]

    def fault(path, headers):
        if path.endswith("README.md") and left[0]:
            left[0] -= 1
            return 503, []
        return None

    server = serving(publish(files), fault)
    report = get(server.url, tmp_path / "got", HTTP)
    assert report.whole
    assert report.sources[0]["reasons"] == ["answers 503 Service Unavailable"]


def test_a_slow_mirror_hands_over_at_the_end(publish, serving, shard, tmp_path):
    import asyncio

    def fault(path, headers):
        async def slow(body, seen):
            await asyncio.sleep(1.0)
            return body

        return slow if path.endswith(".tar") else None

    files = {f"{n:05d}.tar": shard(n, 12) for n in range(2)}
    good, bad, _ = pair(serving, publish(files), fault)
    report = get(good.url, tmp_path / "got", options(mirrors=(bad.url,), connections=1, patience=8))
    assert contents(tmp_path / "got") == files
    assert report.seconds < 10
    assert all(one["standing"] == "used" for one in report.sources)


@pytest.mark.parametrize("path", ["", "versions/1/manifest.json"])
def test_any_mirror_can_tell_of_the_version(publish, serving, files, tmp_path, path, capfd):
    good = serving(publish(files))
    dead = "http://127.0.0.1:9/"
    report = get(dead + path, tmp_path / "got", options(mirrors=(good.url,)))
    assert contents(tmp_path / "got") == files
    assert report.whole
    assert f"try again later; going on with {good.url}" in capfd.readouterr().err


def test_a_stale_mirror_is_named_and_another_asked(publish, serving, files, shard, tmp_path, capfd):
    import shutil

    folder = publish(files)
    shutil.copytree(folder, tmp_path / "old")
    server, stale = serving(folder), serving(tmp_path / "old")
    newer = files | {"00004.tar": shard(4, 1)}
    publish(newer, "2")
    get(server.url, tmp_path / "got", HTTP)
    report = get(stale.url, tmp_path / "got", options(mirrors=(server.url,), rehash=True))
    assert (report.version, contents(tmp_path / "got")) == ("2", newer)
    assert "older than 2 (number 2) seen before; refused; going on with" in capfd.readouterr().err


# -- samples taken back -----------------------------------------------------------------------


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


# -- Metalinks and gateways -------------------------------------------------------------------


def test_a_metalink_beside_its_manifest_is_signed(publish, serving, files, tmp_path):
    folder = publish(files)
    server = serving(folder)
    publish(files | {"more.txt": b"more"}, "2", mirrors=(server.url,))
    place = folder / "versions/2/birds-2.meta4"
    report = get(str(place), tmp_path / "got", HTTP)
    assert (report.signed, report.whole) == (True, True)
    assert contents(tmp_path / "got") == files | {"more.txt": b"more"}


def test_a_metalink_of_others_is_enough(serving, publish, files, tmp_path):
    import hashlib

    server = serving(publish(files))
    digest = hashlib.sha256(files["00000.tar"]).hexdigest()
    text = (
        '<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="00000.tar">'
        f'<size>{len(files["00000.tar"])}</size><hash type="sha-256">{digest}</hash>'
        f"<url>{server.url}versions/1/birds/00000.tar</url></file></metalink>"
    )
    (tmp_path / "one.meta4").write_text(text)
    report = get(str(tmp_path / "one.meta4"), tmp_path / "got", HTTP)
    assert contents(tmp_path / "got") == {"00000.tar": files["00000.tar"]}
    assert not report.signed


def test_a_metalink_that_contradicts_the_manifest_is_refused(publish, serving, files, tmp_path):
    folder = publish(files)
    server = serving(folder)
    publish(files | {"more.txt": b"more"}, "2", mirrors=(server.url,))
    text = (folder / "versions/2/birds-2.meta4").read_text()
    digest = re.search(r'type="sha-256">([0-9a-f]{64})', text)[1]
    (tmp_path / "bad.meta4").write_text(text.replace(digest, "0" * 64))
    with pytest.raises(IntegrityError, match="is another file than in the signed manifest"):
        get(str(tmp_path / "bad.meta4"), tmp_path / "got", HTTP)


def test_a_metalink_with_a_document_type_is_refused(tmp_path):
    (tmp_path / "bomb.meta4").write_text('<!DOCTYPE a [<!ENTITY b "c">]><metalink/>')
    with pytest.raises(UnsafeInputError, match="has a document type; refused"):
        get(str(tmp_path / "bomb.meta4"), tmp_path / "got", HTTP)
    (tmp_path / "up.meta4").write_text(
        '<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="../up"/></metalink>'
    )
    with pytest.raises(UnsafeInputError, match="is not a plain relative path"):
        get(str(tmp_path / "up.meta4"), tmp_path / "got", HTTP)
    (tmp_path / "none.meta4").write_text("<metalink/>")
    with pytest.raises(DataError, match="not a Metalink 4"):
        get(str(tmp_path / "none.meta4"), tmp_path / "got", HTTP)


@pytest.mark.parametrize("signed", [True, False])
def test_a_folder_of_ipfs_arrives_block_by_block(publish, serving, files, tmp_path, signed):
    files = files | {"a/b.txt": b"deep"}
    folder = publish(files)
    root = json.loads((folder / "versions/1/manifest.json").read_text())["root_cid"]
    server = serving(folder)
    if not signed:
        server.fault = lambda path, headers: None if path.startswith("/ipfs/") else (404, [])
    report = get(f"ipfs://{root}", tmp_path / "got", options(gateways=(server.url,), http=False))
    assert contents(tmp_path / "got") == files
    assert report.signed is signed
    assert report.channels == {"ipfs": report.bytes}


def test_a_block_that_is_not_what_its_cid_says(publish, serving, files, tmp_path):
    folder = publish(files)
    root = json.loads((folder / "versions/1/manifest.json").read_text())["root_cid"]
    good = serving(folder)

    def fault(path, headers):
        async def bend(body, seen):
            return bytes([body[0] ^ 1]) + body[1:] if len(body) > 100_000 else body

        return bend if path.startswith("/ipfs/") else None

    bad = serving(folder, fault)
    both = options(gateways=(bad.url, good.url), http=False)
    report = get(f"ipfs://{root}", tmp_path / "got", both)
    assert contents(tmp_path / "got") == files
    wrong = next(one for one in report.sources if one["source"] == bad.url)
    assert wrong["standing"] == "dropped"
    assert "gave bytes that are not those of the block" in wrong["reasons"][0]


def test_a_name_of_ipns_leads_to_the_newest_version(publish, serving, files, shard, tmp_path, key):
    from datacomp.distribution.ipfs import ipns

    folder = publish(files)
    old = (folder / "latest.ipns").read_bytes()
    server = serving(folder)
    newer = files | {"00004.tar": shard(4, 1)}
    publish(newer, "2")
    source = f"ipns://{ipns.name_of(key.public)}"
    chosen = options(gateways=(server.url,), http=False)
    report = get(source, tmp_path / "got", chosen)
    assert (contents(tmp_path / "got"), report.version) == (newer, "2")
    (folder / "latest.ipns").write_bytes(old)
    with pytest.raises(IntegrityError, match=r"points to number 1, older than 2 \(number 2\) seen"):
        get(source, tmp_path / "got", chosen)
    other = SigningKey.from_seed(b"o" * 32)
    with pytest.raises(IntegrityError, match="the name of the key"):
        get(f"ipns://{ipns.name_of(other.public)}", tmp_path / "got", chosen)


# -- the command ------------------------------------------------------------------------------


def test_the_command_tells_what_it_did(publish, serving, files, tmp_path, command):
    server = serving(publish(files))
    code, out, _ = command("get", server.url, tmp_path / "got", "--no-bittorrent")
    *_, row, last = out.splitlines()
    total = sum(map(len, files.values()))
    assert code == 0
    assert row.split() == [f"{server.url}versions/1/birds/", "http", "5", str(total), "used"]
    start = f"{tmp_path}/got: birds 1, 5 of 5 files there and verified, 0 of them before; fetched "
    assert last.startswith(f"{start}{total:,} bytes in ")
    code, out, _ = command("get", server.url, tmp_path / "got", "--no-bittorrent", "--json")
    assert (code, json.loads(out)["fetched_bytes"]) == (0, 0)


def test_the_command_names_what_is_missing(publish, serving, files, flip, tmp_path, command):
    server = serving(publish(files), flip(5))
    code, out, err = command("get", server.url, tmp_path / "got", "--no-bittorrent")
    assert code == 1
    assert f"missing: 00001.tar: {server.url}versions/1/birds/ gave 1 wrong block" in out
    assert "not whole: run the same command again, or name another --mirror" in out
    assert "warning: " in err


def test_the_command_says_in_one_line_what_is_wrong(tmp_path, command):
    code, out, err = command("get", "nowhere", tmp_path / "got")
    assert (code, out) == (2, "")
    assert err == (
        "error: nowhere: not a source; expected the URL of a manifest, a .torrent, a .meta4, "
        "magnet:, ipfs:// or ipns://\n"
    )
