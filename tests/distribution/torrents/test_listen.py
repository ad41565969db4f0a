"""An address to listen on that cannot be had is told, though the download goes on without peers."""

import json
import socket

import pytest

pytest.importorskip("libtorrent")


@pytest.mark.parametrize("address", ["192.0.2.1:6881", "127.0.0.1:{busy}"])
def test_it_is_told_where_http_gives_all(publish, serving, files, tmp_path, command, address):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = address.format(busy=taken.getsockname()[1])
        server = serving(publish(files))
        code, out, err = command(
            "get", server.url, tmp_path / "got", "--lan", "--listen", listen, "--json"
        )
    reason = f"cannot take part: {listen}: cannot listen there; choose another --listen"
    [peers] = [one for one in json.loads(out)["sources"] if one["channel"] == "bittorrent"]
    assert (code, peers["standing"], peers["reasons"]) == (0, "dropped", [reason])
    assert err == f"warning: {peers['source']}: {reason}: dropped\n"
