"""``datacomp release push``: parse, call, print."""

import json

import pytest
from datacomp.distribution.release import Releases

from .node import Node, PinningBook, running


@pytest.fixture
def releases(publish):
    return publish({"a.txt": b"alpha\n", "b.txt": b"beta\n"})


@pytest.fixture
def token(tmp_path):
    path = tmp_path / "token"
    path.write_text("secret\n")
    return path


def test_push_to_a_node(command, releases):
    root = Releases(releases).latest.manifest.root_cid
    with running(Node()) as url:
        code, out, err = command("release", "push", "ipfs", releases, "--api", url)
        assert (code, err) == (0, "")
        name = out.splitlines()[-1].split()[0]
        assert out == (
            f"version 1: ipfs://{root} is pinned\n2 files, 11 bytes sent\n{name} points there\n"
        )
        code, out, _ = command("release", "push", "ipfs", releases, "--api", url, "--json")
        assert json.loads(out)["bytes_sent"] == 0
        assert json.loads(out)["root_cid"] == root


def test_push_to_a_service(command, releases, token):
    root = Releases(releases).latest.manifest.root_cid
    with running(PinningBook("secret")) as url:
        words = ("release", "push", "pin", releases, "--service", url, "--token-file", token)
        assert command(*words) == (0, f"{root}: queued\n", "")
        code, out, _ = command(*words, "--json")
        assert (code, json.loads(out)["request"]) == (0, "r1")


def test_errors(command, releases, token, tmp_path):
    api = ("--api", "http://127.0.0.1:1")
    code, _, err = command("release", "push", "ipfs", releases, *api)
    assert (code, err.startswith("error: http://127.0.0.1:1: does not answer")) == (1, True)
    code, _, err = command(
        "release", "push", "ipfs", releases, *api, "--token-file", tmp_path / "x"
    )
    assert (code, err) == (
        1, f"error: {tmp_path / 'x'}: no such file; put the access token there\n"
    )  # fmt: skip
    for text in ("", "two words", "two\nlines", "é"):
        token.write_text(text)
        words = ("--service", "http://127.0.0.1:1", "--token-file", token)
        code, _, err = command("release", "push", "pin", releases, *words)
        assert (code, err) == (
            2, f"error: {token}: not an access token; expected one line without spaces\n"
        )  # fmt: skip


def test_a_server_that_is_no_node_is_told(command, releases, serving):
    url = serving(releases).url.rstrip("/")
    assert command("release", "push", "ipfs", releases, "--api", url) == (
        1, "", f"error: {url}: is no RPC of an IPFS node (answers 405); that of Kubo is at port "
        "5001, as a rule\n"
    )  # fmt: skip


def test_origins_are_multiaddrs(command, releases, token):
    book = PinningBook("secret")
    with running(book) as url:
        words = ("release", "push", "pin", releases, "--service", url, "--token-file", token)
        assert command(*words, "--origin", "foo") == (
            2, "", "error: --origin 'foo': expected a multiaddr, as "
            "/ip4/203.0.113.5/tcp/4001/p2p/12D3...\n"
        )  # fmt: skip
        origin = "/dns4/node.example.org/udp/4001/quic-v1/p2p/12D3KooWExample"
        assert command(*words, "--origin", origin)[0] == 0
