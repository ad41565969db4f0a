"""One file under way: gaps in it are known again after a crash."""

import random

import pytest
from datacomp.distribution.getting.job import Job
from datacomp.distribution.getting.order import Wanted
from datacomp.distribution.getting.source import Source

DATA = random.Random(0).randbytes(1000)


@pytest.fixture
def staged(tmp_path):
    path = tmp_path / "staged"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def job(tmp_path):
    """Return a maker of jobs of one file, each as a new process would have it."""
    return lambda: Job(Wanted(0, "a", len(DATA), "0" * 64), tmp_path / "prepared")


def test_what_is_taken_over_is_not_missing(job, staged, tmp_path):
    one = job()
    assert one.resume() == 0
    one.receive(staged, [(200, 300), (700, 900)], Source("peers", "bittorrent"))
    assert one.missing == [(0, 200), (300, 700), (900, 1000)]
    assert one.left == 700
    another = job()
    assert another.resume() == 300
    assert another.missing == one.missing
    another.receive(staged, another.missing, Source("peers", "bittorrent"))
    assert another.left == 0
    assert (tmp_path / "prepared").read_bytes() == DATA
    assert [path.name for path in tmp_path.glob("prepared*")] == ["prepared"]
    assert job().resume() == len(DATA)


def test_a_crash_before_the_bytes_are_there(job, staged, tmp_path):
    one = job()
    (tmp_path / "prepared").write_bytes(DATA[:100])
    assert one.resume() == 100
    one.receive(staged, [(500, 600), (800, 1000)], Source("peers", "bittorrent"))
    (tmp_path / "prepared").write_bytes(DATA[:100] + bytes(400) + DATA[500:550])
    another = job()
    assert another.resume() == 150
    assert another.missing == [(100, 500), (550, 1000)]


@pytest.mark.parametrize(
    "text", ["", "[1]", "[[5, 2]]", "[[0, 2000]]", "[[300, 400], [100, 200]]", "[[-5, 5]]", "{}x"]
)
def test_gaps_that_cannot_be_made_out(job, tmp_path, text):
    (tmp_path / "prepared").write_bytes(DATA)
    (tmp_path / "prepared.gaps").write_text(text)
    one = job()
    assert one.resume() == 0
    assert one.missing == [(0, len(DATA))]
