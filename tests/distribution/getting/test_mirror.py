"""A mirror whose answers end early has broken off; it has not lied."""

import socket
import threading

import pytest
from datacomp.distribution.getting.mirror import Mirror
from datacomp.distribution.getting.trouble import Consequence, SourceTrouble


@pytest.fixture
def cut():
    """Return the address of a server that promises 100 bytes and sends 40."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 40)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        thread.join()


def test_a_small_file_cut_short_is_asked_for_again(cut):
    mirror = Mirror(cut)
    with pytest.raises(SourceTrouble, match="broke off") as caught:
        mirror.small("latest.json", 1000)
    mirror.close()
    assert caught.value.consequence is Consequence.RETRY
