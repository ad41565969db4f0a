"""Folders of IPFS as sources, through a gateway."""

import json

import pytest
from datacomp.distribution.getting import get
from datacomp.distribution.release import SigningKey
from datacomp.errors import (
    IntegrityError,
)

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
