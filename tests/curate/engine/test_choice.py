"""What a user says about the engine is understood, or refused with what would be."""

import os
import socket
import threading

import pytest
from datacomp.curate.engine import LOCAL, EngineChoice, open_engine
from datacomp.curate.engine.choice import bytes_of
from datacomp.errors import MissingError, UsageError
from datacomp.pools.engine import ALL, Local, engine_of


@pytest.mark.parametrize(
    ("text", "kind", "address"),
    [
        ("local", "local", "auto"),
        ("ray", "ray", "auto"),
        ("ray:local", "ray", "local"),
        ("ray:10.0.0.1:6379", "ray", "10.0.0.1:6379"),
        ("ray:[fd00::2]:6379", "ray", "[fd00::2]:6379"),
    ],
)
def test_an_engine_is_read(text, kind, address):
    assert EngineChoice.parse(text, 3) == EngineChoice(kind, address, 3)


def test_the_environment_says_which_engine_unless_an_option_does(monkeypatch):
    monkeypatch.delenv("DATACOMP_ENGINE", raising=False)
    assert EngineChoice.parse(None) == LOCAL
    monkeypatch.setenv("DATACOMP_ENGINE", "ray:head:6379")
    assert EngineChoice.parse(None) == EngineChoice("ray", "head:6379")
    assert EngineChoice.parse("local") == LOCAL


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rai", "engine 'rai' is not known (did you mean 'ray'?); expected local, ray, or "
                "ray:ADDRESS"),
        ("local:x", "engine 'local:x': the local engine has no address"),
        ("ray:head", "the address of the Ray cluster is 'head', expected auto, local or HOST:PORT"),
        ("ray:ray://h:1", "the address of the Ray cluster is 'ray://h:1', expected auto, local or "
                          "HOST:PORT; a driver runs on a machine of the cluster, so give HOST:PORT "
                          "of its head"),
    ],
)  # fmt: skip
def test_another_engine_is_refused(text, told):
    with pytest.raises(UsageError) as caught:
        EngineChoice.parse(text)
    assert str(caught.value) == told


def test_workers_and_memory_are_checked():
    with pytest.raises(UsageError, match=r"^workers is 0, expected at least 1$"):
        EngineChoice(workers=0)
    with pytest.raises(UsageError, match=r"^the memory of a worker is '2', expected a size such"):
        EngineChoice(memory="2")
    assert (bytes_of("2GB"), bytes_of("1.5 KiB"), bytes_of("3MB")) == (2 * 10**9, 1536, 3 * 10**6)


def _memory(_):
    return os.environ["DATACOMP_MEMORY"]


def test_a_memory_that_is_none_is_refused(command, tmp_path):
    code, _, told = command("shards", "index", tmp_path, "--memory", "much")
    wanted = "expected a size such as 2GB or a share such as 25%"
    assert (code, told) == (2, f"error: the memory of a worker is 'much', {wanted}\n")
    assert "DATACOMP_MEMORY" not in os.environ


def test_the_local_engine_is_processes_of_this_machine():
    with open_engine(EngineChoice(workers=2, memory="300MB")) as engine:
        assert isinstance(engine, Local)
        assert not engine.distributed
        engine.reach("/nowhere")  # it is this machine that looks
        assert list(engine.map(abs, [-1, -2, -3])) == [1, 2, 3]
        assert list(engine.map(_memory, [0, 0])) == ["300MB", "300MB"]
    with open_engine(EngineChoice(workers=1, memory="200MB")) as engine:  # this process
        assert list(engine.map(_memory, [0])) == ["200MB"]
    assert "DATACOMP_MEMORY" not in os.environ


def test_hints_say_how_many_processes_or_threads_are_worth_it():
    here = os.getpid()
    assert set(Local(4).map(_process, range(8), threads=4)) == {here}
    assert set(Local(4).map(_process, range(8), threads=ALL)) == {here}
    assert set(Local(4).map(_process, range(8), count=1)) == {here}
    assert set(Local().map(_process, range(8), worth=1)) == {here}
    assert here not in set(Local(2).map(_process, range(4)))


def _process(_):
    return os.getpid()


def test_a_number_of_workers_is_an_engine():
    engine = Local(3)
    assert engine_of(engine) is engine
    assert (engine_of(2).workers, engine_of(None).workers) == (2, None)


def test_a_cluster_that_is_not_there_is_told_at_once():
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(MissingError) as caught:
        open_engine(EngineChoice("ray", f"127.0.0.1:{port}"))
    assert str(caught.value) == (
        f"no Ray cluster at 127.0.0.1:{port} ([Errno 111] Connection refused); start one with "
        "'ray start --head', or let --engine ray:local use this machine alone"
    )


def test_workers_larger_than_this_machine_are_refused_before_it_starts():
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with pytest.raises(
        UsageError, match=r"^each worker would have 10,000\.0 GB of memory, but this"
    ):
        open_engine(EngineChoice("ray", "local", memory="10TB"))


def test_something_else_at_the_address_is_told_at_once():
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(MissingError) as caught:
            open_engine(EngineChoice("ray", address))
        thread.join()
    assert str(caught.value).startswith(
        f"no Ray cluster at {address} (what answers there is not Ray); start one with "
    )


def test_auto_is_where_ray_is_told_to_look(monkeypatch, command, tmp_path):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(MissingError, match=r"^no Ray cluster at 127\.0\.0\.1:1 \("):
        open_engine(EngineChoice("ray"))
    code, _, told = command("shards", "index", tmp_path, "--engine", "ray")
    assert code == 1
    assert told.startswith("error: no Ray cluster at 127.0.0.1:1 (")


def test_the_extra_is_named_where_it_is_lacking(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingError) as caught:
        open_engine(EngineChoice("ray", "local"))
    assert str(caught.value) == (
        "the engine ray needs the extra of that name: pip install 'datacomp[ray]'"
    )
