"""What several folders of tests share: small pictures, small pools, the command line."""

import io
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.curate.cli import main
from datacomp.pools import Pool
from datacomp.pools.sources import open_source


@pytest.fixture
def picture():
    """Return a maker of images: the same number gives the same bytes."""
    from PIL import Image

    def picture(number=0, kind="PNG", width=24, height=24):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind)
        return buffer.getvalue()

    return picture


@pytest.fixture
def pool_of(tmp_path):
    """Return a maker of pools from columns; the uid of row i is i in hex."""
    opened = []

    def pool_of(name="pool", **columns):
        rows = len(next(iter(columns.values())))
        columns = {
            "uid": [f"{i:032x}" for i in range(rows)],
            "url": [f"http://x/{i}" for i in range(rows)],
            "text": [f"a caption of number {i}" for i in range(rows)],
        } | columns
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        pool = Pool.create(tmp_path / f"{name}.duckdb")
        opened.append(pool)
        assert pool.add(open_source("parquet", tmp_path / f"{name}.parquet")).added == rows
        return pool

    yield pool_of
    for pool in opened:
        pool.close()


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the command line; return exit code, output and errors."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["datacomp", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return caught.value.code, captured.out, captured.err

    return command
