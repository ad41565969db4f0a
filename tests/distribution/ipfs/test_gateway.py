"""The gateway of a folder of releases: over real HTTP, with routing and names."""

import json
import urllib.error
import urllib.request
from datetime import UTC, datetime

import pytest
from datacomp.distribution.ipfs import dag, ipns
from datacomp.distribution.ipfs.cid import CID
from datacomp.distribution.ipfs.gateway import Gateway, address
from datacomp.distribution.release import Releases, Removal
from datacomp.errors import MissingError, UsageError

STRANGER = "k51qzi5uqu5dg9ufswxt229ntzdy7p4125xzv5rtyjso89ajdujg6csfxcj260"
HOST = {"host": "127.0.0.1:8000"}


def fetch(url, **headers):
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read(), answer.headers


def test_a_tree_is_fetched_block_by_block(publish, serving, files):
    folder = publish(files)
    server = serving(folder)
    root = CID.parse(Releases(folder).latest.manifest.root_cid)

    def blocks(cid):
        data, _ = fetch(f"{server.url}ipfs/{cid}?format=raw")
        cid.check(data)
        return data

    for item in dag.list_folder(blocks, root):
        assert dag.read_file(blocks, item.cid, 1 << 23) == files[item.name]


def test_new_versions_and_what_was_taken_back(publish, files, shard):
    folder = publish(files)
    releases = Releases(folder)
    gateway = Gateway(releases)
    first = releases.latest.manifest
    old = first.by_path["00001.tar"]
    kept = CID.parse(first.by_path["00002.tar"].cid)
    leaf = next(dag.leaves(gateway.blocks.get, CID.parse(old.cid))).cid
    assert CID.parse(first.root_cid) in gateway.blocks
    removal = Removal("2", 2, "a wish", ("0" * 32,), (("00001.tar", old.size, old.sha256),))
    publish(files | {"00001.tar": shard(77)}, "2", removal=removal)
    releases.refresh()
    gateway.refresh()
    second = releases.latest.manifest
    for cid, said, status in (
        (CID.parse(old.cid), "was taken back by its keeper", 410),
        (leaf, "no such block here", 404),  # nobody here knows any more whose it was
    ):
        assert cid not in gateway.blocks
        with pytest.raises(MissingError, match=said):
            gateway.blocks.get(cid)
        assert gateway.answer(f"/ipfs/{cid}", {"format": "raw"}, {}).status == status
    for cid in (CID.parse(second.root_cid), CID.parse(second.by_path["00001.tar"].cid), kept):
        assert cid in gateway.blocks
    assert len(gateway.blocks) == 5


def test_a_file_without_a_record_is_not_served(publish, files):
    folder = publish(files)
    manifest = Releases(folder).latest.manifest
    sha256 = manifest.by_path["00001.tar"].sha256
    (folder / ".state" / "records" / sha256[:2] / sha256).unlink()
    blocks = Gateway(Releases(folder)).blocks
    assert CID.parse(manifest.by_path["00001.tar"].cid) not in blocks
    assert CID.parse(manifest.root_cid) not in blocks
    assert CID.parse(manifest.by_path["00002.tar"].cid) in blocks


def test_the_name_is_answered_with_its_record(publish, serving, files, key):
    folder = publish(files)
    server = serving(folder)
    name = ipns.name_of(key.public)
    root = Releases(folder).latest.manifest.root_cid
    for url in (f"ipns/{name}?format=ipns-record", f"routing/v1/ipns/{name}"):
        data, headers = fetch(server.url + url, accept="application/vnd.ipfs.ipns-record")
        record = ipns.read_record(data, name)
        assert (record.value, record.sequence) == (f"/ipfs/{root}", 1)
        assert headers["content-type"] == "application/vnd.ipfs.ipns-record"
        assert headers["cache-control"] == "public, max-age=300"


def test_who_has_a_block(publish, serving, files, key):
    folder = publish(files)
    server = serving(folder)
    manifest = Releases(folder).latest.manifest
    port = server.url.rstrip("/").rpartition(":")[2]
    peer = {
        "Schema": "peer",
        "ID": ipns.peer_id_of(key.public),
        "Addrs": [f"/ip4/127.0.0.1/tcp/{port}/http"],
        "Protocols": ["transport-ipfs-gateway-http"],
    }
    url = f"{server.url}routing/v1/providers/{manifest.root_cid}"
    data, headers = fetch(url)
    assert json.loads(data) == {"Providers": [peer]}
    assert headers["cache-control"] == "public, max-age=300"
    data, headers = fetch(url, accept="application/x-ndjson")
    assert headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in data.splitlines()] == [peer]
    unknown = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"
    data, headers = fetch(f"{server.url}routing/v1/providers/{unknown}")
    assert json.loads(data) == {"Providers": []}
    assert headers["cache-control"] == "public, max-age=15"
    stranger = "12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB"
    for name, found in ((peer["ID"], [peer]), (stranger, [])):
        data, _ = fetch(f"{server.url}routing/v1/peers/{name}")
        assert json.loads(data) == {"Peers": found}


def test_head_and_conditions(publish, serving, files):
    folder = publish(files)
    server = serving(folder)
    root = Releases(folder).latest.manifest.root_cid
    request = urllib.request.Request(f"{server.url}ipfs/{root}?format=raw", method="HEAD")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.read() == b""
        length, tag = answer.headers["content-length"], answer.headers["etag"]
    assert len(fetch(f"{server.url}ipfs/{root}?format=raw")[0]) == int(length)
    with pytest.raises(urllib.error.HTTPError) as found:
        fetch(f"{server.url}ipfs/{root}?format=raw", **{"if-none-match": tag})
    assert found.value.code == 304
    found.value.close()


@pytest.fixture
def gateway(publish):
    return Gateway(Releases(publish({"a": b"a"})))


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        (f"/ipns/{STRANGER}", 404, "no such name"),
        ("/ipns/example.org", 400, "not a CID"),
        ("/ipns/", 400, "not a CID"),
        ("/routing/v1/providers/x", 400, "'x': not a CID"),
        ("/routing/v1/other/x", 404, "nothing is served there"),
        ("/routing/v1/ipns/x", 400, "not a CID"),
        ("/elsewhere", 404, "nothing is served there"),
        ("/ipfs/", 400, "not a CID"),
    ],
)
def test_refusals(gateway, path, status, message):
    wanted = "ipns-record" if path.startswith("/ipns") else "raw"
    found = gateway.answer(path, {"format": wanted}, HOST)
    assert found.status == status
    assert message in b"".join(found.body).decode()


def test_a_name_wants_its_record(gateway, key):
    found = gateway.answer(f"/ipns/{ipns.name_of(key.public)}", {"format": "raw"}, HOST)
    assert (found.status, b"".join(found.body)) == (
        400,
        b"a name is answered with its record: ask for ?format=ipns-record\n",
    )


def test_a_record_that_is_gone_or_spoilt_is_not_given(gateway, key):
    path = f"/routing/v1/ipns/{ipns.name_of(key.public)}"
    assert gateway.answer(path, {}, HOST).status == 200
    record = gateway.releases.folder / "latest.ipns"
    record.write_bytes(b"\0" * 20)
    assert gateway.answer(path, {}, HOST).status == 404
    past = datetime(2020, 1, 1, tzinfo=UTC)
    record.write_bytes(ipns.create_record(key, "/ipfs/bafkqaaa", 9, past))
    found = gateway.answer(path, {}, HOST)
    assert found.status == 404
    assert "the record expired 2020-01-01 00:00 UTC" in b"".join(found.body).decode()
    record.unlink()
    assert gateway.answer(path, {}, HOST).status == 404


def test_a_folder_without_a_release(tmp_path):
    gateway = Gateway(Releases(tmp_path))
    assert gateway.answer("/ipfs/bafkqaaa", {"format": "raw"}, HOST).status == 200
    assert gateway.answer(f"/routing/v1/ipns/{STRANGER}", {}, HOST).status == 404


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"host": "127.0.0.1:8000"}, "/ip4/127.0.0.1/tcp/8000/http"),
        ({"host": "data.example.org"}, "/dns/data.example.org/tcp/80/http"),
        ({"host": "data.example.org", "x-forwarded-proto": "https"},
         "/dns/data.example.org/tcp/443/https"),
        ({"host": "[::1]:81"}, "/ip6/::1/tcp/81/http"),
    ],
)  # fmt: skip
def test_addresses(headers, expected):
    assert address(headers) == expected


@pytest.mark.parametrize("host", ["", "a/b", "a b", "x" * 300, "a:999999", "é"])
def test_strange_hosts(host):
    with pytest.raises(UsageError, match="a request without a proper Host header"):
        address({"host": host})
