"""The answers of a trustless gateway, block by block as the specification wants them."""

import io

import pytest
from datacomp.distribution.ipfs import car, dag
from datacomp.distribution.ipfs.blocks import BlockMap
from datacomp.distribution.ipfs.cid import CID
from datacomp.distribution.ipfs.trustless import answer
from datacomp.distribution.ipfs.unixfs import FileTree
from datacomp.errors import IntegrityError, MissingError

from .conftest import made, name

BIG = made("seq251_5000000")
FILES = {
    "a.tar": BIG,
    "sub/b.tar": made("seq251_2500000"),
    "sub/m.json": b"{}",
    "zeros": bytes(3 << 20),
    **{f"many/{'x' * 220}{number}": b"%d" % (number % 3) for number in range(1100)},
}


def ask(blocks, path, accept=None, **query):
    query = {key.replace("_", "-"): value for key, value in query.items()}
    return answer(blocks, path, query, {"accept": accept} if accept else {})


def unpack(found):
    """Return the roots and CIDs of a CAR, each block verified."""
    assert found.status == 200, found
    reader = car.Reader(io.BytesIO(b"".join(found.body)), "answer")
    return reader.roots, [cid for cid, _ in reader]


@pytest.fixture
def served(on_disk):
    return on_disk(FILES)


def test_every_block_of_a_tree_is_given_raw(served):
    blocks, folder = served
    root = CID.parse(folder.cid)
    for cid, block in dag.walk(blocks.get, root):
        found = ask(blocks, str(cid), format="raw")
        assert found.status == 200
        assert b"".join(found.body) == block
        assert found.length == len(block)
    assert found.headers == {
        "content-type": "application/vnd.ipld.raw",
        "content-disposition": f'attachment; filename="{cid}.bin"',
        "content-location": f"/ipfs/{cid}?format=raw",
        "content-length": str(len(block)),
        "etag": f'"{cid}.raw"',
        "cache-control": "public, max-age=31536000, immutable",
        "x-content-type-options": "nosniff",
        "x-ipfs-path": f"/ipfs/{cid}",
        "vary": "accept",
    }


def test_the_accept_header_asks_too(served):
    blocks, folder = served
    for accept in ("application/vnd.ipld.raw", "text/html, application/vnd.ipld.raw;q=0.5"):
        assert ask(blocks, folder.cid, accept).headers["content-type"] == "application/vnd.ipld.raw"
    found = ask(blocks, folder.cid, "application/vnd.ipld.raw", format="car")
    assert found.headers["content-type"].startswith("application/vnd.ipld.car")


def test_a_whole_tree_comes_as_a_car(served):
    blocks, folder = served
    found = ask(blocks, folder.cid, format="car")
    kind = "application/vnd.ipld.car; version=1; order=dfs; dups=n"
    assert found.headers["content-type"] == kind
    assert found.headers["content-disposition"] == f'attachment; filename="{folder.cid}.car"'
    assert found.length is None
    roots, cids = unpack(found)
    assert roots == (CID.parse(folder.cid),)
    assert len(cids) == len(set(cids))
    assert cids == list(dict(dag.walk(blocks.get, roots[0])))


def test_blocks_that_are_met_twice_are_sent_twice_on_demand(served):
    blocks, _ = served
    zeros = name(FILES["zeros"]).cid
    leaf = name(bytes(1 << 20)).cid
    assert list(map(str, unpack(ask(blocks, zeros, format="car"))[1])) == [zeros, leaf]
    for found in (
        ask(blocks, zeros, format="car", car_dups="y"),
        ask(blocks, zeros, "application/vnd.ipld.car; order=dfs; dups=y"),
    ):
        assert found.headers["content-type"].endswith("dups=y")
        assert list(map(str, unpack(found)[1])) == [zeros, leaf, leaf, leaf]


def test_scopes(served):
    blocks, folder = served
    root, a = folder.cid, name(BIG).cid

    def cids(path, **query):
        return list(map(str, unpack(ask(blocks, path, format="car", **query))[1]))

    assert cids(root, dag_scope="block") == [root]
    assert cids(root, dag_scope="entity") == [root]
    assert len(cids(a, dag_scope="entity")) == 6
    assert cids(f"{root}/a.tar", dag_scope="block") == [root, a]
    # A large folder is listed by all of its shards, and none of its files.
    many = cids(f"{root}/many", dag_scope="entity")
    assert many[0] == root
    assert all(CID.parse(cid).codec == 0x70 for cid in many)
    assert set(many[1:]) < set(folder.blocks)
    assert len(many) > 200


def test_a_path_leads_through_folders_and_shards(served):
    blocks, folder = served
    path = f"{folder.cid}/many/{'x' * 220}7"
    found = ask(blocks, path, format="car")
    roots, cids = unpack(found)
    assert roots == (CID.parse(name(b"1").cid),)
    assert str(cids[0]) == folder.cid
    read = {cid: blocks.get(cid) for cid in cids}
    end, passed = dag.resolve(read.__getitem__, cids[0], path.split("/")[1:])
    assert [*passed, end] == cids
    assert found.headers["x-ipfs-path"] == f"/ipfs/{path}"


@pytest.mark.parametrize(
    ("wanted", "leaves"),
    [
        ("0:0", [0]),
        ("0:*", [0, 1, 2, 3, 4]),
        ("1048575:1048576", [0, 1]),
        ("1048576:1048576", [1]),
        ("2097152:4194303", [2, 3]),
        ("4194304:99999999", [4]),
        ("-1:*", [4]),
        ("-2000000:-1000000", [2, 3]),
        ("-99999999:0", [0]),
        ("499:-4500000", [0]),
        ("5000000:*", []),
        ("5000000:6000000", []),
        ("4:-4999999", []),
    ],
)
def test_byte_ranges_need_no_more_than_their_leaves(served, wanted, leaves):
    blocks, _ = served
    cid = name(BIG).cid
    found = unpack(ask(blocks, cid, format="car", entity_bytes=wanted))[1]
    tree = [str(one) for one, _ in dag.walk(blocks.get, CID.parse(cid))]
    assert [str(one) for one in found] == [cid, *(tree[1 + leaf] for leaf in leaves)]


def test_byte_ranges_of_a_folder_mean_nothing(served):
    blocks, folder = served
    found = ask(blocks, folder.cid, format="car", entity_bytes="0:10")
    assert list(map(str, unpack(found)[1])) == [folder.cid]


def test_entity_tags_tell_answers_apart(served):
    blocks, folder = served
    asked = [{}, {"dag_scope": "block"}, {"dag_scope": "entity"}, {"entity_bytes": "0:10"},
             {"entity_bytes": "0:11"}, {"car_dups": "y"}]  # fmt: skip
    tags = [ask(blocks, folder.cid, format="car", **one).headers["etag"] for one in asked]
    assert len(set(tags)) == len(tags)
    for tag, one in zip(tags, asked, strict=True):
        query = {key.replace("_", "-"): value for key, value in one.items()} | {"format": "car"}
        again = answer(blocks, folder.cid, query, {"if-none-match": f'"x", {tag}'})
        assert (again.status, list(again.body)) == (304, [])
    raw = {"format": "raw"}
    assert answer(blocks, folder.cid, raw, {"if-none-match": "*"}).status == 304
    assert answer(blocks, folder.cid, raw, {"if-none-match": '"other"'}).status == 200


def test_the_probe():
    blocks = BlockMap()
    found = ask(blocks, "bafkqaaa", format="raw")
    assert (found.status, b"".join(found.body), found.length) == (200, b"", 0)
    roots, cids = unpack(ask(blocks, "bafkqaaa", format="car"))
    assert (roots, cids) == ((CID.parse("bafkqaaa"),), [])


UNKNOWN = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"


@pytest.mark.parametrize(
    ("path", "query", "headers", "status", "message"),
    [
        ("", {"format": "raw"}, {}, 400, "'': not a CID"),
        ("hello", {"format": "raw"}, {}, 400, "'hello': not a CID"),
        (UNKNOWN, {"format": "raw"}, {}, 404, f"{UNKNOWN}: no such block here"),
        (UNKNOWN, {"format": "car"}, {}, 404, f"{UNKNOWN}: no such block here"),
        (UNKNOWN, {"format": "raw"}, {"cache-control": "only-if-cached"}, 412, "no such block"),
        (UNKNOWN, {}, {}, 400, "this gateway sends what can be verified: ask for ?format=raw"),
        (UNKNOWN, {}, {"accept": "text/html"}, 400, "ask for ?format=raw or car"),
        (UNKNOWN, {"format": "tar"}, {}, 400, "format 'tar'; this gateway has raw and car"),
        (UNKNOWN, {"format": "ipns-record"}, {}, 400, "needs no IPNS record"),
        ("ROOT/a.tar", {"format": "raw"}, {}, 400, "a raw block is asked for by its CID alone"),
        ("ROOT/none", {"format": "car"}, {}, 404, "there is no 'none' in this folder"),
        ("ROOT/a.tar/x", {"format": "car"}, {}, 400, "not a folder, so there is no 'x' in it"),
        ("ROOT" + "/x" * 300, {"format": "car"}, {}, 400, "a path of more than 256 names"),
        ("ROOT", {"format": "car", "dag-scope": "some"}, {}, 400,
         "dag-scope=some: this gateway knows block and entity and all"),
        ("ROOT", {"format": "car", "car-version": "2"}, {}, 400, "version=2: this gateway knows 1"),
        ("ROOT", {"format": "car", "car-order": "bfs"}, {}, 400, "order=bfs"),
        ("ROOT", {"format": "car", "car-dups": "m"}, {}, 400, "dups=m"),
        ("ROOT", {"format": "car", "entity-bytes": "x"}, {}, 400, "expected FROM:TO"),
        ("ROOT", {"format": "car", "entity-bytes": "5:4"}, {}, 400, "ends before it begins"),
        ("ROOT", {"format": "car", "entity-bytes": "-4:-5"}, {}, 400, "ends before it begins"),
        ("ROOT", {"format": "car", "entity-bytes": "0:" + "9" * 30}, {}, 400, "expected FROM:TO"),
    ],
)  # fmt: skip
def test_refusals(served, path, query, headers, status, message):
    blocks, folder = served
    found = answer(blocks, path.replace("ROOT", folder.cid), query, headers)
    text = b"".join(found.body).decode()
    assert found.status == status
    assert message in text
    assert text.count("\n") == 1
    assert found.headers["cache-control"] == "no-store"
    assert found.length == len(text.encode())


def test_a_block_is_found_by_any_cid_of_its_digest(served):
    """A CAR may name a dag-pb block as raw bytes, or in version 0."""
    blocks, folder = served
    cid = CID.parse(folder.cid)
    for other in (CID(1, 0x55, cid.function, cid.digest), CID(0, 0x70, cid.function, cid.digest)):
        assert blocks.get(other) == blocks.get(cid)


def test_a_file_that_was_changed_is_not_sent(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(BIG)
    node = name(BIG)
    blocks = BlockMap([(path, FileTree(node.size, node.leaves))])
    data = bytearray(BIG)
    data[2_000_000] ^= 1
    path.write_bytes(data)
    cids = [leaf.cid for leaf in dag.leaves(blocks.get, CID.parse(node.cid))]
    with pytest.raises(IntegrityError) as error:
        list(ask(blocks, str(cids[1]), format="raw").body)
    assert str(error.value) == (f"{path}: bytes 1,048,576 to 2,097,152 are not what was released")
    body = iter(ask(blocks, node.cid, format="car").body)
    sent = b"".join(next(body) for _ in range(3))
    with pytest.raises(IntegrityError):
        next(body)
    assert len(list(car.Reader(io.BytesIO(sent), "answer"))) == 2
    path.unlink()
    with pytest.raises(MissingError, match="the file that held this block is gone"):
        list(ask(blocks, str(cids[1]), format="raw").body)


def test_a_block_is_read_from_another_place_where_one_is_spoilt(tmp_path):
    node = name(BIG)
    tree = FileTree(node.size, node.leaves)
    places = [tmp_path / place for place in ("gone", "short", "wrong", "right")]
    for path, data in zip(places[1:], (BIG[:100], bytes(len(BIG)), BIG), strict=True):
        path.write_bytes(data)
    blocks = BlockMap([(path, tree) for path in places])
    assert len(blocks) == 1
    assert dag.read_file(blocks.get, CID.parse(node.cid), len(BIG)) == BIG


@pytest.mark.parametrize("profile", ["legacy-256k", "unixfs-v0-2015"])
def test_other_profiles_are_served_too(on_disk, profile):
    files = {"a": BIG, "b/c": b"", "d": bytes(1 << 18)}
    blocks, folder = on_disk(files, profile)
    found = dict(car.Reader(io.BytesIO(b"".join(ask(blocks, folder.cid, format="car").body)), "x"))
    for path, data in files.items():
        end, _ = dag.resolve(found.__getitem__, CID.parse(folder.cid), path.split("/"))
        assert dag.read_file(found.__getitem__, end, len(data)) == data
        assert blocks.length(end) == len(found[end])
