"""A mirror whose answers end early has broken off; it has not lied."""

import contextlib
import socket
import threading

import pytest
from datacomp.distribution.getting.mirror import Mirror
from datacomp.distribution.getting.trouble import Consequence, SourceTrouble


@pytest.fixture
def answering():
    """Return a starter of servers that give one connection the bytes told, whatever is asked."""
    with contextlib.ExitStack() as stack:

        def answering(data):
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def answer():
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(data)

            thread = threading.Thread(target=answer)
            thread.start()
            stack.callback(thread.join)
            return f"http://127.0.0.1:{server.getsockname()[1]}/"

        yield answering


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n" + b"x" * 90,
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nContent-Range: bytes 5-9/90\r\n\r\n"
        b"xxxxx",
    ],
)
def test_a_file_of_another_size_is_not_read(answering, answer):
    mirror = Mirror(answering(answer))
    with pytest.raises(SourceTrouble, match=r"^has 90 bytes instead of 100$") as caught:
        next(mirror.read("a.tar", 100, 5, 10))
    mirror.close()
    assert caught.value.consequence is Consequence.SKIP


def test_a_small_file_cut_short_is_asked_for_again(answering):
    mirror = Mirror(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 40))
    with pytest.raises(SourceTrouble, match="broke off") as caught:
        mirror.small("latest.json", 1000)
    mirror.close()
    assert caught.value.consequence is Consequence.RETRY


@pytest.mark.parametrize(
    "head",
    [
        b"200 OK\r\nContent-Length: " + b"9" * 5000,
        b"206 Partial\r\nContent-Length: 5\r\nContent-Range: bytes 0-4/*",
    ],
)
def test_a_size_that_is_not_told_is_taken_as_right(answering, head):
    mirror = Mirror(answering(b"HTTP/1.1 " + head + b"\r\n\r\nbirds"))
    assert b"".join(mirror.read("a.txt", 9, 0, 5)) == b"birds"
    mirror.close()


@pytest.mark.parametrize("total", ["9" * 5000, "x"])
def test_ranges_that_make_no_sense(answering, total):
    head = f"HTTP/1.1 206 Partial\r\nContent-Length: 5\r\nContent-Range: bytes 0-4/{total}"
    mirror = Mirror(answering(head.encode() + b"\r\n\r\nbirds"))
    with pytest.raises(SourceTrouble, match="other ranges than asked for") as caught:
        next(mirror.read("a.txt", 9, 0, 5))
    assert caught.value.consequence is Consequence.DROP
