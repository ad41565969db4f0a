"""What the tests of embedding share: tars of pictures, pools of them, a recipe."""

import json

import pytest
from datacomp.pools import Pool, tar
from datacomp.pools.embedding.recipe import Recipe
from datacomp.pools.sources import open_source


@pytest.fixture
def write_tar(picture):
    """Return a writer of tars as img2dataset leaves them; some images are cut short."""

    def write_tar(path, numbers, broken=(), captions="a picture of number {}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            writer = tar.TarWriter(file)
            for place, number in enumerate(numbers):
                image = picture(number, width=40, height=34)
                image = image[:300] if number in broken else image
                key = f"{place:09d}"
                writer.add(f"{key}.json", json.dumps({"uid": f"{number:032x}"}).encode())
                writer.add(f"{key}.png", image)
                writer.add(f"{key}.txt", captions.format(number).encode())
            writer.close()
        return path

    return write_tar


@pytest.fixture
def pictures(tmp_path, write_tar):
    """Return a maker of pools whose images lie in tars; the uid of a sample is its number."""
    opened = []

    def pictures(count=20, broken=(), name="pool", per_tar=8):
        folder = tmp_path / f"{name}_tars"
        for first in range(0, count, per_tar):
            numbers = range(first, min(first + per_tar, count))
            write_tar(folder / f"{first // per_tar:05d}.tar", numbers, broken)
        pool = Pool.create(tmp_path / f"{name}.duckdb")
        opened.append(pool)
        assert pool.add(open_source("webdataset", folder, verify=False)).added == count
        return pool

    yield pictures
    for pool in opened:
        pool.close()


@pytest.fixture
def recipe(tiny):
    return Recipe(tiny(0))


@pytest.fixture
def contents():
    """Return what a pool knows of the features of a name, and the bytes of their files."""

    def contents(pool, name="tiny"):
        table, parameters = pool.sql(
            "SELECT rows_table, parameters FROM features WHERE name = ?", [f"{name}_img"]
        ).fetchone()
        rows = pool.sql(f"FROM {table} ORDER BY uid").fetchall()
        scores = pool.scalar(
            "SELECT values_table FROM scores WHERE name = 'clip_score' AND "
            f"parameters->>'weights_sha256' = '{json.loads(parameters)['weights_sha256']}'"
        )
        folder = pool.path.with_name(f"{pool.path.name}.features") / name
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        return rows, pool.sql(f"FROM {scores} ORDER BY uid").fetchall(), files

    return contents
