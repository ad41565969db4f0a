"""Records put in order: in buckets that are small, however many samples there are."""

import numpy as np
import pytest
from datacomp.curate.shards import ordered
from datacomp.curate.shards.ordered import RECORD, Ordered
from datacomp.pools.tar import BLOCK


def records_of(files, blocks):
    found = np.zeros(len(files), RECORD)
    found["file"], found["block"], found["blocks"] = files, blocks, 1
    found["high"] = np.arange(len(files))
    return found


def test_there_may_be_more_samples_than_32_bits_count(tmp_path):
    often = (1 << 32) - 1
    found = Ordered([(3, 3 * BLOCK)], None, tmp_path)
    found.add(records_of([0, 0, 0], [2, 0, 1]), np.array([often, 2, often]))
    assert (found.total, found.blocks) == (2 * often + 2,) * 2
    ends = found.read(often, often + 4)
    assert list(zip(ends["block"].tolist(), ends["copy"].tolist(), strict=True)) == [
        (1, often - 2), (1, often - 1), (2, 0), (2, 1),
    ]  # fmt: skip
    assert found.read(found.total - 1, found.total)["copy"].tolist() == [often - 1]


@pytest.mark.parametrize("tars", [[1000], [0, 3, 900, 1, 96, 0]])
def test_a_bucket_is_a_part_of_a_large_tar(tmp_path, monkeypatch, tars):
    monkeypatch.setattr(ordered, "GROUP", 50)
    rng = np.random.default_rng(0)
    files, blocks, sizes = [], [], []
    for number, rows in enumerate(tars):
        ends = np.cumsum(rng.integers(1, 4, rows))
        files += [number] * rows
        blocks += [0, *ends.tolist()][:rows]
        sizes.append(int(ends.max(initial=0)) * BLOCK)
    records = records_of(files, blocks)
    found = Ordered(list(zip(tars, sizes, strict=True)), None, tmp_path)
    found.add(records[rng.permutation(1000)], np.ones(1000, np.int64))
    assert found._buckets.rows.max() < 80
    assert (found.read(0, 1000) == records).all()
