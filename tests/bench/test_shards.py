"""Building shards: ours against copying the same bytes, and against reading the input once."""

import shutil

import pytest
from datacomp.curate.shards import build_shards, index_shards
from datacomp.pools import tar
from datacomp.pools.uids import from_hex, save_subset

SAMPLES = 8000


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    shards = folder / "shards"
    shards.mkdir()
    uids = [f"{number * 2654435761 % 2**32:08x}" * 4 for number in range(SAMPLES)]
    for first in range(0, SAMPLES, 1000):
        with (shards / f"{first // 1000:08d}.tar").open("wb") as file:
            writer = tar.TarWriter(file)
            for uid in uids[first : first + 1000]:
                writer.add(f"{uid}.jpg", b"\xff" * 37_000)
                writer.add(f"{uid}.json", f'{{"uid": "{uid}"}}'.encode())
                writer.add(f"{uid}.txt", b"caption")
            writer.close()
        (shards / f"{first // 1000:08d}_stats.json").write_text('{"successes": 1000}')
    save_subset(folder / "all.npy", from_hex(uids))
    index_shards(shards)
    return folder


def test_building_shards(source, tmp_path, paired):
    count = iter(range(1000))

    def ours():
        out = tmp_path / f"ours{next(count)}"
        report = build_shards(source / "shards", source / "all.npy", out, workers=2)
        shutil.rmtree(out)
        return report.samples

    def copy():
        out = tmp_path / f"copy{next(count)}"
        shutil.copytree(source / "shards", out)
        shutil.rmtree(out)
        return SAMPLES

    assert ours() == copy()
    paired("build shards of 8,000 samples (300 MB)", ours, copy, against="copying the files")
