"""The model of what a pool takes: its table is the page's, its sums are right."""

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def model():
    spec = importlib.util.spec_from_file_location("_scale_model", DOCS / "scale_model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RATES = {
    "filters": {
        name: {"start": 1.0, "per_file": 0.5, "per_row": 1e-6}
        for name in ("no_filter", "basic_filter", "clip_score")
    },
    "index": 1e9, "index_rows": 1e5, "build": 5e8, "hash": 5e8, "fitted_on": 10,
}  # fmt: skip


def test_the_page_has_the_table(model):
    rates = model.json.loads(model.RATES.read_text())
    assert model.table(rates) in (DOCS / "scale.md").read_text()


def test_work_is_shared_and_the_start_is_not(model):
    assert model.seconds_of(RATES, "no_filter", 4e6, 4, 1) == pytest.approx(1 + 2 + 4)
    assert model.seconds_of(RATES, "no_filter", 4e6, 4, 3) == pytest.approx(1 + 2)
    assert model.shard_seconds(RATES, "hash", 1e5, 10) == pytest.approx(3.5e9 / 5e8 / 10)
    assert model.shard_seconds(RATES, "build", 1e5, 10) == pytest.approx(
        1e5 / model.LOOKED_UP + 3.5e9 / 5e8 / 10
    )
    assert model.shard_seconds(RATES, "index", 1e5, 2) == pytest.approx(3.5 / 2)
    assert model.shard_seconds(RATES, "index", 1e5, 10) == pytest.approx(1)  # one process writes
    # Three filters, and 5 seconds for a gigabyte of images, at 4 cents an hour.
    rows = 1e9 / model.IMAGE_BYTES
    filters = 3 * (1 + 0.5 + rows * 1e-6)
    assert model.dollars(RATES, rows) == pytest.approx((filters + 5) / 3600 * 0.04)


def test_numbers_are_written_for_people(model):
    assert [model.size(n) for n in (3.01e9, 65.5e12, 16)] == ["3.01 GB", "65.5 TB", "16 B"]
    assert [model.duration(s) for s in (0.16, 101, 600, 9000, 1e6)] == [
        "0.16 s", "101 s", "10 min", "2.5 h", "11.6 d",
    ]  # fmt: skip
    assert [model.hours(s) for s in (5020, 3600 * 1234.5)] == ["1.4", "1,200"]


def test_a_run_is_compared_with_what_was_predicted(model, commonpool, tmp_path):
    folder = commonpool(tmp_path / "metadata", files=2, rows=30)
    lines = model.check(RATES, folder, ["no_filter"])
    assert lines[0] == "60 rows in 2 files; fitted on 10"
    found = re.fullmatch(r"no_filter: predicted 2\.0 s, took ([\d.]+) s \([+-]\d+%\)", lines[1])
    assert found is not None
    assert 0.3 < float(found[1]) < 200
