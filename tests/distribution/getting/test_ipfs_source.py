"""Folders of IPFS as sources, through a gateway."""

import json

import pytest
from datacomp.distribution.getting import get
from datacomp.distribution.release import SigningKey
from datacomp.errors import DataError, IntegrityError, UsageError

from .conftest import contents, options


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


def plain(path, headers):
    """Make of our server a gateway that knows nothing of releases."""
    return None if path.startswith(("/ipfs/", "/ipns/")) else (404, [])


@pytest.fixture
def named(publish, serving, files, key):
    """Return the name of a release, and two gateways to it that know nothing of releases."""
    from datacomp.distribution.ipfs import ipns

    folder = publish(files | {"gone.txt": b"gone"})
    return f"ipns://{ipns.name_of(key.public)}", serving(folder, plain), serving(folder, plain)


@pytest.mark.parametrize("bad", ["404", "garbage", "older"])
def test_the_next_gateway_is_asked_for_a_name(
    named, publish, serving, files, tmp_path, capsys, bad
):
    source, first, second = named
    both = options(gateways=(first.url, second.url), http=False, update=True)
    if bad == "404":
        first.fault = lambda path, headers: (404, [])
    elif bad == "garbage":

        async def garbled(body, seen):
            return bytes(len(body))

        first.fault = lambda path, headers: garbled if "/ipns/" in path else plain(path, headers)
    else:
        get(source, tmp_path / "got", both)
        publish(files, folder="old")
        first.app = serving(tmp_path / "old").app
        publish(files | {"new.txt": b"new"}, "2")
        get(source, tmp_path / "got", options(gateways=(second.url,), http=False, update=True))
    report = get(source, tmp_path / "got", both)
    assert report.whole
    assert f"; going on with {second.url}" in capsys.readouterr().err


def test_a_wrong_name_is_refused_before_a_gateway_is_asked(named, tmp_path):
    source, first, second = named
    chosen = options(gateways=(first.url, second.url), http=False, key="8" * 64)
    with pytest.raises(IntegrityError, match=r"the name of the key .*, not of 8888"):
        get(source, tmp_path / "got", chosen)
    with pytest.raises(DataError):
        get("ipns://nobody", tmp_path / "got", options(gateways=(first.url,)))
    assert not first.asked + second.asked


def test_a_name_is_followed_through_a_plain_gateway(named, publish, files, tmp_path):
    source, server, _ = named
    chosen = options(gateways=(server.url,), http=False)
    update = options(gateways=(server.url,), http=False, update=True)
    releases = tmp_path / "releases"
    old = (releases / "latest.ipns").read_bytes()
    got = tmp_path / "got"
    report = get(source, got, chosen)
    assert (report.signed, contents(got)) == (False, files | {"gone.txt": b"gone"})
    (got / "mine.txt").write_text("mine")
    newer = {**files, "README.md": b"BIRDS\n", "00003.tar": files["00002.tar"], "more/a": b"a"}
    publish(newer, "2")
    with pytest.raises(
        UsageError, match=r"holds number 1 of ipns://.*; --update makes it number 2"
    ):
        get(source, got, chosen)
    report = get(source, got, update)
    assert contents(got) == newer | {"mine.txt": b"mine"}
    assert report.removed == ["gone.txt"]
    changed = sum(len(newer[path]) for path in ("README.md", "00003.tar", "more/a"))
    assert report.channels == {"ipfs": changed}
    assert get(source, got, chosen).reused_files == len(newer)
    (releases / "latest.ipns").write_bytes(old)
    with pytest.raises(IntegrityError, match="points to number 1, older than number 2 seen before"):
        get(source, got, update)
    server.fault = lambda path, headers: None  # a server of releases cannot bring it back either
    with pytest.raises(IntegrityError, match="number 1"):
        get(source, got, update)
    assert contents(got) == newer | {"mine.txt": b"mine"}
