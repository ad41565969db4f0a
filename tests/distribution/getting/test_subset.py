"""``get --subset``: the bytes of the chosen samples, and of no other."""

import io
import json
import random
import tarfile

import numpy as np
import pytest
from datacomp.curate.shards import index_shards
from datacomp.curate.shards.published import get_subset
from datacomp.curate.shards.remove import remove_samples
from datacomp.distribution.getting import Options
from datacomp.distribution.release import SigningKey
from datacomp.errors import DataError, IntegrityError, MissingError, UsageError
from datacomp.pools.uids import save_subset, to_hex

HTTP = Options(bittorrent=False)


@pytest.fixture
def indexed(tmp_path, picture):
    """Return the files of an indexed folder of shards, and the members of each uid."""
    folder, members = tmp_path / "indexed", {}
    folder.mkdir()
    for shard in range(3):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for number in range(60):
                uid = f"{shard:016x}{number:016x}"
                noise = random.Random(uid).randbytes(20_000)
                members[uid] = [picture(number), b"a caption %d" % number, noise]
                parts = zip(("png", "txt", "bin"), members[uid], strict=True)
                for name, data in [*parts, ("json", json.dumps({"uid": uid}).encode())]:
                    entry = tarfile.TarInfo(f"{shard:05d}{number:04d}.{name}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
    index_shards(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}, members


def subset_of(path, uids):
    pairs = sorted((int(uid[:16], 16), int(uid[16:], 16)) for uid in uids)
    save_subset(path, np.array(pairs, dtype="u8,u8"))
    return path


def read(folder):
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            group = {}
            for member in tar:
                key, _, name = member.name.partition(".")
                group.setdefault(key, {})[name] = tar.extractfile(member).read()
        for sample in group.values():
            uid = json.loads(sample["json"])["uid"]
            found[uid] = [sample["png"], sample["txt"], sample["bin"]]
    return found


def test_only_the_samples_asked_for_are_fetched(indexed, publish, serving, tmp_path):
    files, members = indexed
    chosen = [uid for uid in sorted(members) if int(uid, 16) % 29 == 3]
    assert 3 < len(chosen) < 10
    server = serving(publish(files))
    subset = subset_of(tmp_path / "chosen.npy", chosen)
    report = get_subset(server.url, subset, tmp_path / "few", HTTP)
    assert read(tmp_path / "few") == {uid: members[uid] for uid in chosen}
    assert (report.build.samples, report.build.complete) == (len(chosen), True)
    assert to_hex(np.load(subset)) == chosen
    whole = sum(map(len, files.values()))
    assert server.given < whole / 2
    assert not list(tmp_path.glob(".few*"))
    assert get_subset(server.url, subset, tmp_path / "few", HTTP).build.reused == 1


def test_samples_that_are_not_there_are_listed(indexed, publish, serving, tmp_path):
    files, members = indexed
    server = serving(publish(files))
    subset = subset_of(tmp_path / "chosen.npy", [min(members), "f" * 32])
    report = get_subset(server.url, subset, tmp_path / "few", HTTP)
    assert report.build.missing == {"not_in_source": 1}
    assert "f" * 32 in (tmp_path / "few/missing.txt").read_text()


def test_a_version_without_a_sample_that_was_taken_back(indexed, publish, serving, tmp_path):
    files, members = indexed
    gone, *left = chosen = sorted(members)[:3]
    server = serving(publish(files))
    subset = subset_of(tmp_path / "chosen.npy", chosen)
    get_subset(server.url, subset, tmp_path / "few", HTTP)
    (tmp_path / "few/mine.txt").write_text("mine")
    remove_samples(tmp_path / "indexed", [gone], ["00000.tar"])
    newer = {path.name: path.read_bytes() for path in (tmp_path / "indexed").iterdir()}
    publish({name: data for name, data in newer.items() if name in files}, "2")
    with pytest.raises(UsageError, match="few: holds another build"):
        get_subset(server.url, subset, tmp_path / "few", HTTP)
    update = Options(bittorrent=False, update=True)
    other = subset_of(tmp_path / "other.npy", left)
    with pytest.raises(UsageError, match="few: holds another build"):
        get_subset(server.url, other, tmp_path / "few", update)
    assert set(read(tmp_path / "few")) == set(chosen)
    report = get_subset(server.url, subset, tmp_path / "few", update)
    assert (report.version, report.build.missing) == ("2", {"not_in_source": 1})
    assert read(tmp_path / "few") == {uid: members[uid] for uid in left}
    assert (tmp_path / "few/mine.txt").read_text() == "mine"
    assert get_subset(server.url, subset, tmp_path / "few", update).build.reused == 1
    remove_samples(tmp_path / "indexed", left, ["00000.tar"])
    newer = {path.name: path.read_bytes() for path in (tmp_path / "indexed").iterdir()}
    publish({name: data for name, data in newer.items() if name in files}, "3")
    with pytest.raises(DataError, match=r"birds 3: has none of the samples of .*chosen.npy$"):
        get_subset(server.url, subset, tmp_path / "few", update)
    assert read(tmp_path / "few") == {}
    assert not (tmp_path / ".few.index").exists()


@pytest.fixture
def updated(indexed, publish, serving, tmp_path):
    """Return the subset of a folder of samples of version 2, and a server of version 1 alone."""
    files, members = indexed
    subset = subset_of(tmp_path / "chosen.npy", sorted(members)[:2])
    old = serving(publish(files, folder="old"))
    server = serving(publish(files))
    get_subset(server.url, subset, tmp_path / "few", HTTP)
    publish(files | {"more.txt": b"more"}, "2")
    update = Options(bittorrent=False, update=True)
    assert get_subset(server.url, subset, tmp_path / "few", update).version == "2"
    return subset, old, update


@pytest.mark.parametrize("path", ["", "versions/1/manifest.json"])
def test_an_older_version_is_refused(updated, tmp_path, path):
    subset, old, update = updated
    before = read(tmp_path / "few")
    with pytest.raises(IntegrityError, match=r"\(number 1\),? .*older than 2 \(number 2\)"):
        get_subset(f"{old.url}{path}", subset, tmp_path / "few", update)
    assert read(tmp_path / "few") == before


@pytest.mark.parametrize("path", ["", "versions/1/manifest.json"])
def test_another_key_is_refused(updated, indexed, publish, serving, tmp_path, path):
    subset, _, update = updated
    other = SigningKey.from_seed(b"o" * 32)
    theirs = publish(indexed[0], folder="theirs", signer=other)
    for version in ("2", "3"):
        publish(indexed[0] | {"n.txt": version.encode()}, version, folder="theirs", signer=other)
    before = read(tmp_path / "few")
    server = serving(theirs)
    source = f"{server.url}{path.replace('1', '3')}"
    with pytest.raises(IntegrityError, match=f"signed with the key {other.public}, not with"):
        get_subset(source, subset, tmp_path / "few", update)
    assert read(tmp_path / "few") == before


def test_a_pointer_seen_before_an_interruption_counts(updated, indexed, publish, serving, tmp_path):
    subset, old, _ = updated
    server = serving(tmp_path / "releases", lambda path, headers: (
        (404, []) if path.endswith(".parquet") else None))  # fmt: skip
    with pytest.raises(MissingError, match=r"index\.parquet"):
        get_subset(server.url, subset, tmp_path / "new", HTTP)
    with pytest.raises(IntegrityError, match="older than 2"):
        get_subset(old.url, subset, tmp_path / "new", HTTP)


def test_the_command(indexed, publish, serving, tmp_path, command):
    files, members = indexed
    server = serving(publish(files))
    subset = subset_of(tmp_path / "chosen.npy", [*sorted(members)[:2], "f" * 32])
    code, out, _ = command("get", server.url, tmp_path / "few", "--subset", subset)
    assert code == 3
    assert "2 samples of birds 1 in 1 shard; fetched" in out
    assert "1 sample not in source: see missing.txt" in out


def test_a_release_without_an_index(publish, serving, files, tmp_path):
    server = serving(publish(files))
    subset = subset_of(tmp_path / "chosen.npy", ["0" * 32])
    with pytest.raises(MissingError, match=r"birds 1: was published without the index"):
        get_subset(server.url, subset, tmp_path / "few", HTTP)
    assert not [path.name for path in tmp_path.iterdir() if "few" in path.name]


def test_a_mirror_with_other_shards(indexed, publish, serving, tmp_path, capsys):
    files, members = indexed
    chosen = [uid for uid in sorted(members) if int(uid, 16) % 29 == 3]
    honest = serving(publish(files))
    lying = serving(publish(files | {"00001.tar": files["00002.tar"]}, folder="lying"))
    honest_app = honest.app
    subset = subset_of(tmp_path / "chosen.npy", chosen)

    async def as_told(scope, receive, send):
        app = lying if scope["path"].endswith(".tar") else honest_app
        await app(scope, receive, send)

    honest.app = as_told
    wrong = (
        r"versions/1/birds/00001\.tar: bytes [\d,]+ to [\d,]+ are not those of the file that was"
    )
    with pytest.raises(IntegrityError, match=wrong):
        get_subset(honest.url, subset, tmp_path / "few", HTTP)
    assert not list((tmp_path / "few").glob("*.tar"))
    other = serving(tmp_path / "releases")
    more = Options(bittorrent=False, mirrors=(other.url,))
    report = get_subset(honest.url, subset, tmp_path / "few", more)
    assert read(tmp_path / "few") == {uid: members[uid] for uid in chosen}
    assert report.mirror == f"{other.url}versions/1/birds/"
    assert f"use another mirror; going on with {other.url}versions" in capsys.readouterr().err


def test_a_mirror_that_sends_us_to_another_site(indexed, publish, serving, tmp_path, capsys):
    files, members = indexed
    folder = publish(files)
    good = serving(folder)
    moved = serving(folder, lambda path, headers: (
        (302, [(b"location", (good.url + path[1:]).encode())]) if path.endswith(".tar") else None
    ))  # fmt: skip
    subset = subset_of(tmp_path / "chosen.npy", [min(members)])
    with pytest.raises(
        DataError, match=r"sends us to another site .*; name that one with --mirror"
    ):
        get_subset(moved.url, subset, tmp_path / "few", HTTP)
    assert not good.asked
    more = Options(bittorrent=False, mirrors=(good.url,))
    get_subset(moved.url, subset, tmp_path / "few", more)
    assert read(tmp_path / "few") == {min(members): members[min(members)]}
    assert "sends us to another site" in capsys.readouterr().err


def test_one_wrong_byte_is_found(indexed, publish, serving, flip, tmp_path):
    files, members = indexed
    server = serving(publish(files), flip(70_000, ("00000.tar",)))
    first, *_ = chosen = sorted(members)[:60]
    subset = subset_of(tmp_path / "chosen.npy", chosen)
    with pytest.raises(IntegrityError, match="are not those of the file that was signed"):
        get_subset(server.url, subset, tmp_path / "few", HTTP)
    subset = subset_of(tmp_path / "one.npy", [first])
    get_subset(server.url, subset, tmp_path / "one", HTTP)
    assert read(tmp_path / "one") == {first: members[first]}


def test_a_server_that_proves_nothing(indexed, publish, serving, tmp_path):
    files, members = indexed
    folder = publish(files)
    server = serving(folder)
    for path in (folder / ".state/records").rglob("*"):
        if path.is_file():
            path.unlink()
    subset = subset_of(tmp_path / "chosen.npy", [min(members)])
    with pytest.raises(DataError, match="does not prove what it gives; use a mirror that runs"):
        get_subset(server.url, subset, tmp_path / "few", HTTP)


def test_what_is_told_when_all_is_there(indexed, publish, serving, tmp_path, command):
    files, members = indexed
    server = serving(publish(files))
    subset = subset_of(tmp_path / "chosen.npy", sorted(members)[:2])
    said = [
        command("get", server.url, tmp_path / "few", "--subset", subset, "--no-bittorrent")
        for _ in range(2)
    ]
    assert [code for code, _, _ in said] == [0, 0]
    assert "bytes of samples and" in said[0][1]
    assert "1 of them there before; fetched what was missing and" in said[1][1]


def test_samples_of_what_leads_to_no_server_are_refused_at_once(
    indexed, publish, tmp_path, command
):
    files, members = indexed
    torrent = publish(files) / "versions/1/birds-1.torrent"
    subset = subset_of(tmp_path / "chosen.npy", sorted(members)[:2])
    code, _, err = command("get", torrent, tmp_path / "few", "--subset", subset)
    assert (code, err) == (
        2,
        (
            f"error: {torrent}: leads to no signed release on an HTTP server, but samples are read "
            "from one; give its address, or name it with --mirror\n"
        ),
    )
