"""The page of a seed's status, over a real connection."""

import json
import socket
import urllib.error
import urllib.request

import pytest
from datacomp.distribution.torrents.status import StatusPage, render
from datacomp.errors import StorageError, UsageError

STATUS = {
    "folder": "/data/<b>releases</b>", "listen": "127.0.0.1:0", "port": 6881, "seconds": 61.0,
    "dht_nodes_with_pointer": 0, "peers": 3, "uploaded": 2_500_000, "upload_rate": 1_250_000,
    "torrents": [
        {"version": "1", "kind": "hybrid", "infohash": "0" * 40, "state": "seeding",
         "missing_files": 2, "peers": 3, "uploaded": 2_500_000, "uploaded_ever": 7_000_000,
         "upload_rate": 1_250_000, "errors": ["<i>disk</i>"]},
    ],
}  # fmt: skip


def test_the_page_shows_what_was_told_last():
    with StatusPage("127.0.0.1:0") as page:
        page.tell({**STATUS, "port": 1})
        page.tell(STATUS)
        with urllib.request.urlopen(page.address) as answer:
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
            text = answer.read().decode()
        assert text == render(STATUS)
        with urllib.request.urlopen(page.address + "status.json") as answer:
            assert json.load(answer) == STATUS
        for path in ("nothing", "../latest.json", "status.json?x"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(page.address + path)
            caught.value.close()
            assert caught.value.code == 404
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(page.address, timeout=1)


def test_strange_text_is_shown_as_text():
    page = render(STATUS)
    assert "Seeding /data/&lt;b&gt;releases&lt;/b&gt;" in page
    assert "&lt;i&gt;disk&lt;/i&gt;" in page
    assert "Port 6881: 3 peers, 2.5 MB given in 61 s, 1.25 MB/s now." in page
    assert "seeding, 2 files not there" in page
    assert "<td>7.0</td>" in page


def test_before_anything_is_told_there_is_a_page():
    assert "0 peers" in render({})


@pytest.mark.parametrize("listen", ["", "8081", ":8081", "127.0.0.1:", "127.0.0.1:x", "a:65536"])
def test_an_address_that_is_none(listen):
    with pytest.raises(UsageError, match="expected HOST:PORT"):
        StatusPage(listen)


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(StorageError, match=f"cannot listen on 127.0.0.1:{port}"):
            StatusPage(f"127.0.0.1:{port}")
