"""Filters that look at images, some of which cannot be read, and filters that are interrupted."""

import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from datacomp.errors import MissingError
from datacomp.filters import Decision, Filter, FilterSpec, Scorer, run_filters
from datacomp.pools import Pool
from datacomp.pools.sources import open_source
from datacomp.pools.uids import to_hex


class Where(Filter):
    """Keep everything."""

    def decide(self, view):
        return []


class BytesScorer(Scorer):
    """Writes how long an image's file is; None for an odd one."""

    name = "bytes"
    type = "INTEGER"
    images = True
    batch_size = 2

    def identity(self):
        return {}

    def score(self, batch):
        assert len(batch) == len(batch.images) > 0
        return [None if len(data) % 2 else len(data) for data in batch.images]


class Large(Filter):
    """Keep large files."""

    least: int = 2

    def scorers(self):
        return [BytesScorer()]

    def decide(self, view):
        return [Decision("small", f"{view.score(BytesScorer())} >= {self.least}")]


class Largest(Large):
    """Keep the largest file."""

    set_level = True

    def decide(self, view):
        score = view.score(BytesScorer())
        most = view.scalar(f"SELECT max({score}) FROM {view.relation}")
        return [Decision("not_largest", f"{score} = {most}")]


@pytest.fixture
def photos(tmp_path, picture, monkeypatch):
    """A folder of photos a to d whose files grow, the last of odd length, and their pool."""
    known = {c.__name__: c for c in (Large, Largest, Where)}
    monkeypatch.setattr(FilterSpec, "make", lambda spec: known[spec.use](**spec.parameters))
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate("abcd"):
        data = picture(number, "BMP", width=10 + 10 * number)
        data += b"" if len(data) % 2 == (name == "d") else b"."
        (folder / f"{name}.bmp").write_bytes(data)
        (folder / f"{name}.txt").write_text(f"photo {name}")
    with Pool.create(tmp_path / "photos.duckdb") as pool:
        assert pool.add(open_source("folder", folder)).added == 4
        yield folder, pool


def names_of(pool, chosen):
    rows = pool.sql("SELECT printf('%032x', uid), shard FROM samples").fetchall()
    names = dict(rows)
    return sorted(names[uid][0] for uid in to_hex(chosen.uids))


def scores_in(pool):
    return pool.scalar("SELECT count(*) FROM score_values_1")


def test_an_image_that_cannot_be_read_has_no_score_and_is_read_next_time(photos, tmp_path):
    folder, pool = photos
    (folder / "b.bmp").rename(tmp_path / "away.bmp")
    chosen = run_filters(pool, [FilterSpec("Large")], reasons=tmp_path / "why.parquet")
    assert names_of(pool, chosen) == ["a", "c"]
    assert chosen.steps[0].reasons == {"unreadable": 1, "small": 1}  # d has no score
    uid = pool.scalar("SELECT printf('%032x', uid) FROM samples WHERE shard = 'b.bmp'")
    said = f"1 image cannot be read, first {uid} of {folder / 'b.bmp'}"
    assert str(chosen.unreadable) == said
    assert pq.read_table(tmp_path / "why.parquet").num_rows == 2
    assert scores_in(pool) == 3

    (tmp_path / "away.bmp").rename(folder / "b.bmp")
    again = run_filters(pool, [FilterSpec("Large")])
    assert names_of(pool, again) == ["a", "b", "c"]
    assert (again.unreadable, again.steps[0].reasons) == (None, {"small": 1})
    assert scores_in(pool) == 4


@pytest.mark.parametrize(
    ("combine", "specs", "left", "reasons"),
    [
        ("and", ("Large", "Largest"), "b", [{"unreadable": 1, "small": 1}, {"not_largest": 1}]),
        ("then", ("Large", "Largest"), "b", [{"unreadable": 1, "small": 1}, {"not_largest": 1}]),
        ("then", ("Largest", "Large"), "b", [{"unreadable": 1, "not_largest": 2}, {}]),
        ("or", ("Largest", "Where"), "abcd", [{}, {}]),
        ("or", ("Large", "Largest"), "ab", [{"unreadable": 1, "small": 1}, {}]),
    ],
)
def test_the_unreadable_drop_out_however_filters_join(photos, combine, specs, left, reasons):
    folder, pool = photos
    (folder / "c.bmp").unlink()
    chosen = run_filters(pool, [FilterSpec(name) for name in specs], combine)
    assert "".join(names_of(pool, chosen)) == left
    assert [step.reasons for step in chosen.steps] == reasons
    assert chosen.unreadable is not None
    assert chosen.unreadable.count == 1


def test_when_no_image_can_be_read_nothing_is_decided(photos, tmp_path):
    folder, pool = photos
    folder.rename(tmp_path / "moved")
    with pytest.raises(MissingError) as caught:
        run_filters(pool, [FilterSpec("Large")])
    said = str(caught.value)
    assert said.startswith("scoring bytes: no image can be read (4 tried), first ")
    assert said.endswith(f" of {folder / 'a.bmp'}; are the pool's sources where they were?")
    assert scores_in(pool) == 0
    (tmp_path / "moved").rename(folder)
    assert names_of(pool, run_filters(pool, [FilterSpec("Large")])) == ["a", "b", "c"]


SLOW = """
import os, signal, sys, threading
from pathlib import Path
from datacomp.curate.cli import main

threading.Timer(float(sys.argv.pop()), os.kill, (os.getpid(), signal.SIGINT)).start()
main()
"""
ENDLESS = """
from datacomp.filters import Decision, Filter

class Endless(Filter):
    "Ask what takes for ever."

    def decide(self, view):
        sql = "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range < b.range"
        return [Decision("never", f"({sql}) > {view.scalar(sql)}" if SCALAR else f"({sql}) > 0")]
"""


@pytest.mark.parametrize("scalar", [False, True])
def test_ctrl_c_stops_a_query_of_a_filter(pool_of, tmp_path, scalar):
    path = tmp_path / "endless.py"
    path.write_text(ENDLESS.replace("SCALAR", str(scalar)))
    pool = pool_of(width=[1])
    pool.close()
    command = ["filter", "run", str(pool.path), f"{path}:Endless", "-o", str(tmp_path / "a.npy")]
    done = subprocess.run(
        [sys.executable, "-c", SLOW, *command, "4"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.strip() == "interrupted; run the same command again to go on"
    assert list(tmp_path.glob("*.npy")) == []
