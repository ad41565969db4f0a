"""A release is pushed into a js-ipfs node by Kubo's RPC, and read from it."""

import json
import subprocess
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from datacomp.distribution.ipfs.cid import CID
from datacomp.distribution.ipfs.kubo import Kubo
from datacomp.distribution.ipfs.push import push_to_kubo
from datacomp.distribution.release import Releases, Removal

HERE = Path(__file__).parent


@pytest.fixture
def api(node_js, tmp_path):
    """The address of a node without blocks and without a network."""
    if not (HERE / "node_modules" / "ipfs-http-server").is_dir():
        pytest.skip("js-ipfs is not installed; 'make test-peers' does it")
    with subprocess.Popen(
        [node_js, HERE / "daemon.mjs", tmp_path / "repo"], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        yield url
        process.stdin.close()
        process.wait(30)


def ask(api, command, **query):
    asked = "&".join(f"{name}={quote(value)}" for name, value in query.items())
    try:
        with urlopen(Request(f"{api}/api/v0/{command}?{asked}", method="POST")) as answer:
            return answer.read()
    except HTTPError as error:
        raise AssertionError(f"{command}: {error.read()[:500]!r}") from None


def pinned(api):
    """Return the digests of what is pinned; the node writes CIDs in a base of its own."""
    return {
        CID.parse(cid).digest for cid in json.loads(ask(api, "pin/ls", type="recursive"))["Keys"]
    }


def test_versions_are_imported_pinned_and_unpinned(publish, files, shard, api):
    first = Releases(publish(files))
    done = push_to_kubo(first, Kubo(api))
    root = first.latest.manifest.root_cid
    assert (done.files_sent, done.bytes_sent) == (5, sum(map(len, files.values())))
    assert CID.parse(root).digest in pinned(api)
    for path, data in files.items():
        assert ask(api, "cat", arg=f"{root}/{path}") == data
    assert push_to_kubo(first, Kubo(api)).files_sent == 0
    # What a second version has anew is sent; what it takes back is unpinned.
    old = first.latest.manifest.by_path["00001.tar"]
    removal = Removal("2", 2, "a wish", ("0" * 32,), (("00001.tar", old.size, old.sha256),))
    second = Releases(publish(files | {"00001.tar": shard(77)}, "2", removal=removal))
    done = push_to_kubo(second, Kubo(api))
    assert (done.files_sent, done.updated_from, done.unpinned) == (1, root, (root,))
    assert ask(api, "cat", arg=f"{done.root_cid}/00001.tar") == shard(77)
    assert CID.parse(done.root_cid).digest in pinned(api)
    assert CID.parse(root).digest not in pinned(api)
