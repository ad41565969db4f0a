"""Relays: what passes arrives whole, is counted, is held back as asked, and can be cut."""

import socket
import threading
import time

import pytest
from datacomp.curate.channels.network import Network

DATA = bytes(range(256)) * 4096


@pytest.fixture
def holder():
    """A holder that answers every four bytes with a megabyte; its port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer(one):
        with one:
            try:
                while one.recv(4) == b"give":
                    one.sendall(DATA)
            except OSError:
                pass

    def meet():
        while True:
            try:
                one, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(one,), daemon=True).start()

    threading.Thread(target=meet, daemon=True).start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


def ask(port, times=1):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as one:
        got = b""
        for _ in range(times):
            one.sendall(b"give")
            want = len(got) + len(DATA)
            while len(got) < want and (data := one.recv(1 << 20)):
                got += data
        return got


def test_what_passes_is_whole_and_counted_for_each_holder(holder):
    with Network(0, 0) as network:
        first, second = network.relay(holder), network.relay(holder)
        assert ask(first.port, 2) == DATA * 2
        assert ask(second.port) == DATA
        assert (first.sent, second.sent) == (2 * len(DATA), len(DATA))
        assert network.sent == 3 * len(DATA)


def test_all_connections_to_a_holder_share_its_rate(holder):
    with Network(4e6, 0) as network:
        relay = network.relay(holder)
        started = time.monotonic()
        threads = [threading.Thread(target=ask, args=(relay.port,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        taken = time.monotonic() - started
    assert 2 * len(DATA) / 4e6 - 0.05 < taken < 5


def test_every_way_there_and_back_costs_a_ping(holder):
    with Network(0, 0.1) as network:
        port = network.relay(holder).port
        started = time.monotonic()
        ask(port, 3)
        assert 0.3 <= time.monotonic() - started < 5


def test_a_cut_way_breaks_off_and_is_closed(holder):
    with Network(1e5, 0) as network:
        relay = network.relay(holder)
        with socket.create_connection(("127.0.0.1", relay.port), timeout=10) as one:
            one.sendall(b"give")
            assert one.recv(10)
            network.cut(relay)
            assert breaks_off(one)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", relay.port), timeout=1)
        assert relay.sent < len(DATA)


def test_a_holder_that_is_gone_ends_the_connection():
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with Network(0, 0) as network:
        assert ask_quietly(network.relay(port).port) == b""


def breaks_off(one):
    try:
        while one.recv(1 << 20):
            pass
    except ConnectionResetError:
        pass
    return True


def ask_quietly(port):
    try:
        return ask(port)
    except OSError:
        return b""
