"""Pushing releases to a node by Kubo's RPC, and to a pinning service."""

import pytest
from datacomp.distribution.ipfs import car, dag, ipns
from datacomp.distribution.ipfs.cid import CID
from datacomp.distribution.ipfs.kubo import Kubo, check_root
from datacomp.distribution.ipfs.pinning import PinningService
from datacomp.distribution.ipfs.push import push_to_kubo, push_to_service
from datacomp.distribution.ipfs.service import Service, ServiceError
from datacomp.distribution.release import Releases, Removal
from datacomp.errors import DataError, MissingError, RunError, UnsafeInputError, UsageError

from .node import Node, PinningBook, running


@pytest.fixture
def node():
    return Node()


@pytest.fixture
def kubo(node):
    with running(node) as url:
        yield Kubo(url)


def read(node, root, path):
    end, _ = dag.resolve(node.get, CID.parse(root), path.split("/"))
    return dag.read_file(node.get, end, 1 << 24)


def test_a_release_is_imported_pinned_and_named(publish, files, node, kubo, key):
    releases = Releases(publish(files))
    done = push_to_kubo(releases, kubo)
    root = releases.latest.manifest.root_cid
    assert done.to_dict() == {
        "version": "1", "root_cid": root, "files_sent": 5,
        "bytes_sent": sum(map(len, files.values())), "updated_from": None, "unpinned": (),
        "name": ipns.name_of(key.public),
    }  # fmt: skip
    assert node.pins == {root: "birds 1"}
    for path, data in files.items():
        assert read(node, root, path) == data
    record = ipns.read_record(node.records[done.name], done.name)
    assert (record.value, record.sequence) == (f"/ipfs/{root}", 1)


def test_a_second_push_sends_nothing(publish, files, node, kubo):
    releases = Releases(publish(files))
    push_to_kubo(releases, kubo)
    sent = len(node.cars)
    done = push_to_kubo(releases, kubo)
    assert (done.files_sent, done.bytes_sent, len(node.cars)) == (0, 0, sent)


def test_a_new_version_sends_what_is_new_and_updates_the_pin(publish, files, shard, node, kubo):
    publish(files)
    push_to_kubo(Releases(publish(files)), kubo)
    node.cars.clear()
    new = shard(9)
    releases = Releases(publish(files | {"00009.tar": new}, "2"))
    done = push_to_kubo(releases, kubo)
    first, second = (release.manifest.root_cid for release in releases.versions)
    assert (done.files_sent, done.bytes_sent, done.updated_from) == (1, len(new), first)
    assert sum(map(len, node.cars)) < len(new) + 3000
    assert ("pin/update", first, second) in node.asked
    assert set(node.pins) == {first, second}
    assert read(node, second, "00009.tar") == new
    # The older version can be pushed by name; the name points to the newest and stays.
    assert push_to_kubo(releases, kubo, "1").name is None


def test_a_push_that_broke_off_goes_on(publish, files, node, kubo):
    releases = Releases(publish(files))
    node.fail = "pin/add"
    with pytest.raises(RunError, match="the disk is full"):
        push_to_kubo(releases, kubo)
    node.fail = None
    tar = CID.parse(releases.latest.manifest.by_path["00000.tar"].cid)
    del node.blocks[tar.digest]
    node.cars.clear()
    done = push_to_kubo(releases, kubo)
    assert done.files_sent == 1
    assert read(node, done.root_cid, "00000.tar") == files["00000.tar"]


def test_roots_without_leaves_are_seen_when_pinning_and_all_is_sent(publish, files, node, kubo):
    releases = Releases(publish(files))
    manifest = releases.latest.manifest
    push_to_kubo(releases, kubo)
    node.pins.clear()
    node.collect_garbage({CID.parse(file.cid).digest for file in manifest.files})
    done = push_to_kubo(releases, kubo)
    assert done.files_sent == 5
    assert read(node, done.root_cid, "00003.tar") == files["00003.tar"]


def test_what_was_taken_back_is_unpinned(publish, files, shard, node, kubo):
    first = Releases(publish(files)).latest.manifest
    push_to_kubo(Releases(publish(files)), kubo)
    old = first.by_path["00001.tar"]
    removal = Removal("2", 2, "a wish", ("0" * 32,), (("00001.tar", old.size, old.sha256),))
    releases = Releases(publish(files | {"00001.tar": shard(77)}, "2", removal=removal))
    done = push_to_kubo(releases, kubo)
    assert done.unpinned == (first.root_cid,)
    assert set(node.pins) == {done.root_cid}
    node.collect_garbage()
    assert CID.parse(old.cid).digest not in node.blocks
    with pytest.raises(MissingError, match=r"'00001.tar' and 0 more not at hand"):
        push_to_kubo(releases, kubo, "1")


def test_an_older_kubo_gets_the_record_in_the_older_way(publish, files, node, kubo):
    node.missing_commands.add("name/put")
    done = push_to_kubo(Releases(publish(files)), kubo)
    assert list(node.records) == [f"/ipns/{done.name}"]


def test_a_node_that_speaks_less_of_the_rpc(publish, files, shard, node, kubo, capsys):
    node.missing_commands |= {"pin/update", "name/put", "routing/put"}
    node.counts = False
    push_to_kubo(Releases(publish(files)), kubo)
    releases = Releases(publish(files | {"00009.tar": shard(9)}, "2"))
    done = push_to_kubo(releases, kubo)
    assert (done.files_sent, done.name) == (1, None)
    assert set(node.pins) == {one.manifest.root_cid for one in releases.versions}
    name = ipns.name_of(releases.latest.manifest.key)
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.endswith(f": has no command to publish names; {name} is not published there")


def test_without_the_record_there_is_no_name(publish, files, kubo):
    folder = publish(files)
    (folder / "latest.ipns").unlink()
    assert push_to_kubo(Releases(folder), kubo).name is None


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("version", "/api/v0/version: 500 Internal Server Error: the disk is full"),
        ("dag/import", "/api/v0/dag/import: 500 Internal Server Error: the disk is full"),
        ("name/put", "/api/v0/name/put: 500 Internal Server Error: the disk is full"),
    ],
)
def test_what_kubo_refuses_is_told(publish, files, node, kubo, command, message):
    node.fail = command
    with pytest.raises(RunError) as found:
        push_to_kubo(Releases(publish(files)), kubo)
    assert str(found.value).endswith(message)


def test_an_import_without_counts_and_its_last_block_has_broken_off(kubo, node):
    node.counts = False
    last = "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq"
    with pytest.raises(RunError, match="Kubo broke off the import"):
        kubo.import_car([car.header([CID.parse(last)])], last)


def test_a_file_that_was_changed_is_not_sent(publish, files, node, kubo):
    releases = Releases(publish(files))
    place = releases.latest.locate("00002.tar")
    data = bytearray(files["00002.tar"])
    data[-1] ^= 1
    place.unlink()
    place.write_bytes(data)
    with pytest.raises(DataError, match="are not what was released"):
        push_to_kubo(releases, kubo)
    assert not node.pins


def test_nobody_answers():
    with pytest.raises(MissingError, match=r"http://127.0.0.1:1: does not answer .*; is it up\?"):
        Kubo("http://127.0.0.1:1").version()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:5001", "expected a URL as http://127.0.0.1:5001"),
        ("ftp://localhost", "expected a URL as"),
        ("http://", "expected a URL as"),
        ("http://[", "not a URL"),
        ("http://x:notaport", "not a URL"),
        ("http://localhost/?a=b", "expected a URL as"),
        ("http://user:pass@example.org", "a secret is only sent over https; use https://"),
        ("http://user:pass@127.example.org", "http://127.example.org: a secret is only sent"),
    ],
)
def test_addresses(url, message):
    with pytest.raises(UsageError) as found:
        Service(url)
    assert message in str(found.value)
    assert "pass" not in str(found.value)


def test_a_password_does_not_leak(kubo):
    service = Service("https://user:secret@127.0.0.1:1/base/")
    assert service.name == "https://127.0.0.1:1/base"
    with pytest.raises(MissingError) as found:
        service.ask("GET", "/x")
    assert "secret" not in str(found.value)


def test_only_cids_reach_an_rpc():
    assert check_root("bafkqaaa") == "bafkqaaa"
    for text in ("bafkqaaa&unpin=true", "BAFKQAAA", "/ipfs/bafkqaaa"):
        with pytest.raises(DataError, match="not a CID"):
            check_root(text)


# -- pinning services ------------------------------------------------------------------------


@pytest.fixture
def book():
    return PinningBook("secret")


@pytest.fixture
def service(book):
    with running(book) as url:
        yield PinningService(url, "secret")


def test_a_version_is_pinned_and_the_next_takes_its_place(publish, files, book, service):
    first = push_to_service(Releases(publish(files)), service, origins=["/ip4/192.0.2.1/tcp/4001"])
    assert (first.status, first.delegates) == ("queued", ("/dns/pins.example.org/tcp/4001",))
    assert book.pins["r1"]["pin"] == {
        "cid": first.cid,
        "name": "birds 1",
        "origins": ["/ip4/192.0.2.1/tcp/4001"],
    }
    book.pins["r1"]["status"] = "pinned"
    assert push_to_service(Releases(publish(files)), service).status == "pinned"
    releases = Releases(publish(files | {"new": b"x"}, "2"))
    second = push_to_service(releases, service)
    assert list(book.pins) == ["r2"]
    assert ("POST", "/pins/r1") in book.asked
    assert second.cid == releases.latest.manifest.root_cid
    releases = Releases(publish(files | {"new": b"y"}, "3"))
    push_to_service(releases, service, keep=True)
    assert list(book.pins) == ["r2", "r3"]
    push_to_service(releases, service, version="1")
    assert list(book.pins) == ["r2", "r3", "r4"]
    service.remove("r4")
    assert list(book.pins) == ["r2", "r3"]


def test_pins_of_what_was_taken_back_are_removed(publish, files, shard, book, service):
    first = Releases(publish(files)).latest.manifest
    push_to_service(Releases(publish(files)), service)
    push_to_service(Releases(publish(files | {"new": b"x"}, "2")), service, keep=True)
    assert list(book.pins) == ["r1", "r2"]
    old = first.by_path["00001.tar"]
    removal = Removal("3", 3, "a wish", ("0" * 32,), (("00001.tar", old.size, old.sha256),))
    releases = Releases(publish(files | {"00001.tar": shard(77)}, "3", removal=removal))
    push_to_service(releases, service, keep=True)
    assert {pin["pin"]["cid"] for pin in book.pins.values()} == {releases.latest.manifest.root_cid}


def test_a_failed_pin_is_asked_for_again(publish, files, book, service):
    releases = Releases(publish(files))
    push_to_service(releases, service)
    book.pins["r1"]["status"] = "failed"
    assert push_to_service(releases, service).request == "r2"


def test_more_versions_than_fit_one_question(book, service):
    cids = [f"bafk{number}" for number in range(25)]
    for cid in cids:
        book.pin({"cid": cid})
    assert [pin.cid for pin in service.find(cids)] == cids
    assert len(book.asked) == 3


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        ((200, {"results": [{"pin": 1}]}), DataError, "something else than a pin"),
        ((200, {"results": [{"requestid": "r", "status": "lost", "pin": {"cid": "x"}}]}),
         DataError, "something else than a pin"),
        ((200, {"results": [{"requestid": "../x", "status": "queued", "pin": {"cid": "x"}}]}),
         DataError, "something else than a pin"),
        ((200, {"results": 7}), DataError, "answers without results"),
        ((200, [1]), DataError, "answers with something else than a JSON object"),
        ((409, {"error": {"reason": "INSUFFICIENT_FUNDS", "details": "pay\nfirst"}}),
         ServiceError, "/pins: 409 Conflict: pay first"),
        ((500, None), ServiceError, "500 Internal Server Error: no reason given"),
        ((200, "x" * (17 << 20)), UnsafeInputError, "an answer of over 16,777,216 bytes"),
    ],
)  # fmt: skip
def test_answers_of_services(book, service, answer, kind, message):
    book.answer_with = answer
    with pytest.raises(kind) as found:
        service.find(["x"])
    assert message in str(found.value)
    assert "\n" not in str(found.value)


def test_a_wrong_token_is_told(book):
    with running(book) as url, pytest.raises(ServiceError, match=r"401 Unauthorized: bad token"):
        PinningService(url, "wrong").find(["x"])
