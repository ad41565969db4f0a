"""What img2dataset itself has begun is taken over, or told why it cannot be."""

import os

import pyarrow.parquet as pq
import pytest
from datacomp.curate.shards.index import load_index
from datacomp.errors import DataError, UsageError


@pytest.fixture
def begun(web, urls, urls_pool, tmp_path, bare):
    """A pool of 25 URLs and the folder of a bare img2dataset, killed in the last of 3 shards."""
    pool = urls_pool(urls(25, bad=(3, 4)), face_bboxes=[[[0.1, 0.1, 0.6, 0.7]]] * 25)
    bare(tmp_path / "pool.parquet", tmp_path / "out", 10)
    (tmp_path / "out/00000002_stats.json").unlink()
    with (tmp_path / "out/00000002.tar").open("r+b") as tar:
        tar.truncate(3_000)
    web.asked.clear()
    return pool


def test_what_img2dataset_has_begun_is_taken_over(web, begun, fetch, states, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="holds what img2dataset itself fetched; --adopt takes"):
        fetch(begun, out)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.name[:8] != "00000002"}
    report = fetch(begun, out, adopt=True)
    assert (report.fetched, report.available, report.failed) == (5, 23, {})
    assert sorted(web.asked) == sorted(f"/img/{i}.jpg" for i in range(20, 25))
    assert {state for state, *_ in states(begun).values()} == {"ok", "failed"}
    assert states(begun)[f"{web.url}/gone/3.jpg"] == ("failed", "http_404", 1)
    assert "took over 2 shards with 20 URLs" in capsys.readouterr().err
    assert (out / "00000002.tar.unfinished").stat().st_size == 3_000
    assert {name: (out / name).read_bytes() for name in before} == before
    assert load_index(out).samples == 23
    again = fetch(begun, out, adopt=True)
    assert (again.tried, again.available) == (0, 23)


def test_shards_of_a_lost_pool_are_taken_over(web, urls, urls_pool, fetch, states, jpeg, tmp_path):
    out, many = tmp_path / "out", urls(10, bad=(3, 4))
    pool = urls_pool(many)
    fetch(pool, out, per_shard=2)
    web.routes["/gone/3.jpg"] = lambda h: h.answer(200, jpeg(3), "image/jpeg")
    fetch(pool, out, per_shard=2, retry=("404",))
    known = states(pool)
    urls_pool([*many, *(f"{web.url}/img/{i}.jpg" for i in (90, 91, 92, 93))], add=True)

    def breaks(job, rows, processes):
        yield job(rows[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # one shard is whole, one is a list of the lost pool
        fetch(pool, out, breaks, per_shard=2)
    for stats in out.glob("*_stats.json"):  # a backup need not keep times
        os.utime(stats, (1e9 - int(stats.name[:8]), 1e9 - int(stats.name[:8])))
    pool.unlink()
    rebuilt = urls_pool([*many, *(f"{web.url}/img/{i}.jpg" for i in (90, 91, 92, 93))])
    message = (
        "holds the images of another pool; choose another folder, or, if that pool is lost, take"
    )
    with pytest.raises(UsageError, match=message):
        fetch(rebuilt, out)
    with pytest.raises(UsageError, match="was fetched with size 512, not 256"):
        fetch(rebuilt, out, adopt=True, size=256)
    web.asked.clear()
    report = fetch(rebuilt, out, adopt=True, per_shard=3)
    assert (report.fetched, report.available, len(web.asked)) == (2, 13, 2)
    assert {url: states(rebuilt)[url] for url in known} == known
    assert load_index(out).samples == 13
    assert fetch(rebuilt, out).tried == 0
    other = urls_pool(["http://x/1"], "other", uid=["f" * 32])
    with pytest.raises(UsageError, match="none of its images is of"):
        fetch(other, out, adopt=True)
    fetch(other, tmp_path / "theirs")
    with pytest.raises(UsageError, match=r"its images are in .*/theirs already; fetch there"):
        fetch(other, out, adopt=True)


def test_what_cannot_be_taken_over_is_told_and_left(begun, urls_pool, fetch, states, tmp_path):
    out = tmp_path / "out"
    there = sorted(path.name for path in out.iterdir())
    stranger = urls_pool(["http://x/1"], "stranger", uid=["f" * 32])
    with pytest.raises(UsageError, match=r"none of its images is of .*stranger.duckdb"):
        fetch(stranger, out, adopt=True)
    table = pq.read_table(out / "00000001.parquet")
    pq.write_table(table.drop_columns(["uid"]), out / "00000001.parquet")
    with pytest.raises(UsageError, match=r"00000001.parquet: no column uid \(img2dataset's save"):
        fetch(begun, out, adopt=True)
    (out / "00000001.parquet").write_bytes(b"PAR1 no parquet")
    with pytest.raises(DataError, match=r"00000001.parquet: "):
        fetch(begun, out, adopt=True)
    (out / "00000001.tar").unlink()
    with pytest.raises(UsageError, match=r"00000001\.tar is missing beside 00000001_stats.json"):
        fetch(begun, out, adopt=True)
    assert sorted(p.name for p in out.iterdir() if p.name != ".lock") == [
        name for name in there if name != "00000001.tar"
    ]
    assert set(states(begun).values()) == {(None, None, None)}
