import pyarrow.parquet as pq
import pytest
from datacomp.errors import DataError
from datacomp.filters import parse, run_filters
from datacomp.filters.gathering import Gatherer
from datacomp.filters.relations import Relations
from datacomp.pools import Pool
from datacomp.pools.partitions import open_partition, partitions_of
from datacomp.pools.uids import to_hex

SPELT = ["0123456789abcdef0123456789abcdef", "FEDCBA98765432100123456789ABCDEF",
         "ffffffffffffffffffffffffffffffff", "00000000000000000000000000000000",
         "00000000000000010000000000000000"]  # fmt: skip


@pytest.fixture
def asked(monkeypatch):
    """Record the queries by which uids are gathered."""
    queries = []
    gather = Gatherer._gather

    def recording(self, query, counts=None):
        queries.append(query)
        return gather(self, query, counts)

    monkeypatch.setattr(Gatherer, "_gather", recording)
    return queries


def test_uids_written_in_a_file_are_read_as_text(tmp_path, commonpool, asked):
    folder = commonpool(tmp_path / "m", files=1, uid=SPELT)
    with Pool.open(folder) as pool:
        found = run_filters(pool, [parse("no_filter")])
        assert to_hex(found.uids) == sorted(uid.lower() for uid in SPELT)
        assert found.uids.tobytes() == pool.uids().tobytes()
        names = pool.columns()
    assert len(asked) == 1
    assert '"uid:text"' in asked[0]
    assert "uid:text" not in names


def test_so_are_those_of_a_partition(tmp_path, commonpool, asked):
    with Pool.open(commonpool(tmp_path / "m", files=1, uid=SPELT)) as pool:
        (partition,) = partitions_of(pool)
        with open_partition(partition, pool.columns()) as part:
            found = run_filters(part, [parse("no_filter")])
            assert part.columns() == pool.columns()
        assert found.uids.tobytes() == pool.uids().tobytes()
    assert '"uid:text"' in asked[0]


@pytest.mark.parametrize("broken", ["x" * 32, "1" * 31, "1" * 33, None, "é" * 16])
def test_a_uid_that_is_none_is_named(tmp_path, commonpool, broken):
    folder = commonpool(tmp_path / "m", files=1, uid=[*SPELT[:4], broken])
    with Pool.open(folder) as pool, pytest.raises(DataError) as caught:
        run_filters(pool, [parse("no_filter")])
    assert "a uid that is not 32 hex digits: 00ab.parquet: row 5" in str(caught.value)


def test_a_pool_that_was_linked_before_there_was_text(tmp_path, commonpool, asked):
    folder = commonpool(tmp_path / "m")
    with Pool.open(folder) as pool:
        kept = run_filters(pool, [parse("clip_score:arch=b32,threshold=0.005")])
        pool.sql("DROP VIEW samples_written")
        again = run_filters(pool, [parse("clip_score:arch=b32,threshold=0.005")])
    assert len(kept.uids) == 5
    assert again.uids.tobytes() == kept.uids.tobytes()
    assert again.funnel() == kept.funnel()
    assert ["uid:text" in query for query in asked] == [True, False]


def test_a_file_that_has_gone_is_named(tmp_path, commonpool):
    folder = commonpool(tmp_path / "m", files=1)
    with Pool.open(folder) as pool:
        relations = Relations(pool)
        (folder / "00ab.parquet").unlink()
        with pytest.raises(DataError, match=r"00ab\.parquet"):
            relations.show_written()


def test_counts_are_the_same_whichever_way_they_are_counted(tmp_path, commonpool):
    sides = [100, 250, None, 250, 1000]
    folder = commonpool(tmp_path / "m", original_width=sides)
    filters = [parse("image_size"), parse("clip_score:arch=b32,threshold=0.004")]
    with Pool.open(folder) as pool:
        quick = run_filters(pool, filters)
        listed = run_filters(pool, filters, reasons=tmp_path / "why.parquet")
    assert quick.uids.tobytes() == listed.uids.tobytes()
    assert quick.funnel() == listed.funnel()
    assert sum(step["before"] - step["after"] for step in quick.funnel()) == (
        pq.read_metadata(tmp_path / "why.parquet").num_rows
    )
