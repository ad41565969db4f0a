import io
import os
import re

import pytest
from datacomp import progress
from datacomp.progress import Board, Progress, Update, duration, say, tell_through, track, warn


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture(autouse=True)
def _normal():
    yield
    progress.set_verbosity(0)
    tell_through(None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (0.44, "0.4 s"), (38.4, "38 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"),
     (3599.7, "1 h 00 min"), (7500, "2 h 05 min")],
)  # fmt: skip
def test_durations_are_written_as_people_do(seconds, text):
    assert duration(seconds) == text


def test_what_is_quick_says_nothing(clock, capsys):
    with Progress("work", 10) as bar:
        clock[0] += 0.9
        bar.advance(10)
    assert capsys.readouterr() == ("", "")


def test_plain_lines_come_every_ten_seconds_and_at_the_end(clock, capsys):
    with Progress("work", 4000, "shards") as bar:
        for _ in range(8):
            clock[0] += 2.5
            bar.advance(500)
    assert capsys.readouterr().err.splitlines() == [
        "work: 2,000 of 4,000 shards, 200/s, 10 s left",
        "work: 4,000 of 4,000 shards, 200/s, 0.0 s left",
        "work: 4,000 of 4,000 shards, 200/s, 20 s",
    ]


def test_more_than_was_thought_is_no_negative_time(clock, capsys):
    with Progress("work", 10) as bar:
        for _ in range(3):
            clock[0] += 10
            bar.advance(7)
    assert "0.0 s left" in capsys.readouterr().err


def test_nothing_is_foreseen_from_the_start_of_the_work(clock, capsys):
    with Progress("work", 500, "images") as bar:
        clock[0] += 93
        bar.advance()
        clock[0] += 10
        bar.advance()
        clock[0] += 10
        bar.advance()
    assert capsys.readouterr().err.splitlines() == [
        "work: 1 of 500 images",
        "work: 2 of 500 images",
        "work: 3 of 500 images, 0.0/s, 5 h 12 min left",
        "work: 3 of 500 images, 0.0/s, 1 min 53 s",
    ]


def test_nothing_is_foreseen_within_seconds(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    with Progress("work", 90) as bar:
        for _ in range(3):
            clock[0] += 0.9
            bar.advance()
        assert terminal.getvalue() == "\r\033[Kwork: 2 of 90 samples\r\033[Kwork: 3 of 90 samples"
        clock[0] += 0.3
        bar.advance()
    assert "work: 4 of 90 samples, 1.3/s, 1 min 05 s left" in terminal.getvalue()


def test_a_terminal_is_redrawn_in_place(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    assert list(track(slow(clock), "work", 3)) == [0, 1, 2]
    drawn = terminal.getvalue()
    assert re.findall(r"\r\x1b\[K", drawn)
    assert drawn.endswith("work: 3 of 3 samples, 0.5/s, 6.0 s\n")


def slow(clock):
    for i in range(3):
        clock[0] += 2
        yield i


def test_a_failure_is_not_drawn_as_an_end(clock, capsys):
    def fail():
        with Progress("work") as bar:
            clock[0] += 10
            bar.advance()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert capsys.readouterr().err == "work: 1 samples\n"


def test_verbosity_rules_all_but_warnings(clock, capsys):
    say("normal")
    say("detail", 1)
    progress.set_verbosity(1)
    say("detail", 1)
    progress.set_verbosity(-1)
    say("normal")
    warn("careful")
    with Progress("work") as bar:
        clock[0] += 20
        bar.advance()
    assert capsys.readouterr() == ("", "normal\ndetail\nwarning: careful\n")


def test_another_process_is_told_instead(clock, capsys):
    told = []
    tell_through(lambda kind, value: told.append((kind, value)))
    with Progress("work", 4) as bar:
        say("detail", 1)
        warn("careful")
        for _ in range(4):
            clock[0] += 0.3
            bar.advance()
    assert capsys.readouterr() == ("", "")
    assert told == [
        ("progress", Update("work", 0, 4, "samples")),
        ("say", (1, "detail")),
        ("warning", "careful"),
        ("progress", Update("work", 2, 4, "samples")),
        ("progress", Update("work", 4, 4, "samples")),
        ("progress", Update("work", 4, 4, "samples")),
    ]


def test_a_fork_prints_for_itself(capfd):
    tell_through(lambda kind, value: pytest.fail("told through its parent's pipe"))
    child = os.fork()
    if child == 0:
        warn("from the child")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert capfd.readouterr().err == "warning: from the child\n"


def test_a_board_is_redrawn_on_a_terminal(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "20")
    board = Board()
    assert not board.due()
    clock[0] += 0.5
    assert board.due()
    board.draw(["one", "two " * 10])
    assert not board.due()
    board.draw(["three"])
    board.clear()
    board.clear()
    assert terminal.getvalue() == (
        "one\ntwo two two two two\n\033[2A\r\033[Jthree\n\033[1A\r\033[J"
    )


def test_a_board_is_repeated_elsewhere(clock, capsys):
    board = Board()
    clock[0] += 14
    assert not board.due()
    clock[0] += 1
    assert board.due()
    board.draw(["one", "two"])
    board.clear()
    assert capsys.readouterr().err == "one\ntwo\n"
    progress.set_verbosity(-1)
    clock[0] += 60
    assert not board.due()


def test_what_was_done_before_does_not_count_for_the_rate(capsys, monkeypatch):
    clock = iter([0.0, *[10.0] * 50])
    monkeypatch.setattr("datacomp.progress.time.monotonic", lambda: next(clock))
    with Progress("training", 1000) as work:
        work.resume(900)
        work.advance(50)
    assert "training: 950 of 1,000 samples, 5.0/s, 10 s\n" in capsys.readouterr().err


def test_work_that_stands_still_promises_no_end(clock, capsys):
    with Progress("work", 100) as bar:
        for _ in range(4):
            clock[0] += 4.0
            bar.advance(10)
        for _ in range(3):
            clock[0] += 4.0
            bar.advance(0)
    assert capsys.readouterr().err.splitlines() == [
        "work: 30 of 100 samples, 2.5/s, 28 s left",
        "work: 40 of 100 samples, 1.7/s",
        "work: 40 of 100 samples, 1.4/s, 28 s",
    ]
