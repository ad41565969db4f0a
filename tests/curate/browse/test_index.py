import json
import os
import shutil

import pytest
from datacomp.curate.browse import index
from datacomp.curate.browse.alike import Alike
from datacomp.curate.browse.app import Browse
from datacomp.curate.browse.lending import Lender
from datacomp.curate.browse.overview import draw, overview_of, rows_at, rows_of
from datacomp.curate.browse.renewing import Renewal
from datacomp.curate.browse.searching import Asked, count, search
from datacomp.pools import Pool

ASKED = [
    {},
    {"words": "shoe"},
    {"words": "SHOES 1"},
    {"words": "straße"},
    {"words": "写真"},
    {"words": "100% off_now"},
    {"words": "zebra"},
    {"order": "-caption"},
    {"order": "aspect"},
    {"order": "-clip_l14_similarity_score"},
    {"order": "aesthetic"},
    {"words": "shoe", "order": "-width"},
    {"words": "cat", "order": "caption"},
    {"where": "width > 100 AND aesthetic < 9"},
    {"words": "shoe", "where": "width > 100 -- so"},
    {"words": "shoe", "where": "width > 100", "order": "-aesthetic"},
    {"where": "url LIKE '%host1%'"},
    {"words": "shoe", "where": "url LIKE '%host1%'"},
    {"words": "shoe", "where": "url LIKE '%host1%' AND aesthetic > 2", "order": "-aesthetic"},
    {"words": "shoe", "order": "url"},
    {"where": "text LIKE '%SHOE%'", "order": "-width"},
    {"where": "text ILIKE '%Shoe%'"},
    {"where": "text ILIKE '%STRASSE%' OR samples.text ilike '%straße%' -- so"},
    {"where": "width > 3 and TEXT NOT ILIKE '%shoe''s%' AND text ILIKE '%O_F%'"},
    {"where": "'text' <> text /* text ILIKE 'x' */ AND text ILIKE '%E!%%' ESCAPE '!'"},
    {"where": "text ILIKE /* and */ '%写真%' AND text ILIKE upper('%a%')"},
    {"where": "length(text) > 20", "order": "-caption"},
    {"where": "text ILIKE '%shoe%' AND sha256 IS NULL"},
]


@pytest.fixture
def path(browsed, tmp_path):
    """Return the path of a copy of the pool, indexed."""
    path = tmp_path / "pool.duckdb"
    shutil.copy2(browsed, path)
    assert index.prepare(path, least=0)
    return path


@pytest.fixture
def lender(path):
    lender = Lender(path)
    yield lender
    lender.close()


def pages_of(pool, asked, indexed):
    """Return the uids on every page, and what the last page says of how far it looked."""
    seen, after, last = [], 0, None
    while after is not None:
        last = search(pool, Asked(**asked, after=after), page=7, indexed=indexed)
        seen.append([row["uid"] for row in last.rows])
        after = last.after
    return [uid for page in seen for uid in page], last.looked, last.total


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_an_index_finds_what_is_found_without(lender, asked):
    with lender.pool(60) as pool:
        assert lender.indexed
        with_index = pages_of(pool, asked, indexed=True)
        assert with_index == pages_of(pool, asked, indexed=False)
        assert count(pool, Asked(**asked), indexed=True) == len(with_index[0])
        first = search(pool, Asked(**asked), indexed=True).rows
        assert first == search(pool, Asked(**asked), indexed=False).rows


def test_a_random_order_by_the_index(lender):
    with lender.pool(60) as pool:
        orders = [pages_of(pool, {"words": "shoe", "order": "random", "seed": seed}, True)[0]
                  for seed in (0, 0, 1)]  # fmt: skip
        assert orders[0] == orders[1] != orders[2]
        plain = pages_of(pool, {"words": "shoe"}, indexed=False)[0]
        assert sorted(orders[0]) == sorted(orders[2]) == sorted(plain)


def test_samples_are_found_by_their_uids(lender, known):
    with lender.pool(60) as pool:
        wanted = [known.uid(3), known.uid(7), "f" * 32]
        assert {uid: row["text"] for uid, row in rows_of(pool, wanted).items()} == {
            uid: known.caption(number) for uid, number in zip(wanted[:2], (3, 7), strict=True)
        }


def test_an_index_of_another_pool_is_not_used(path):
    assert index.current(path)
    before = index.file_of(path).stat().st_ino
    assert index.prepare(path, least=0)  # nothing to do
    assert index.file_of(path).stat().st_ino == before
    with Pool.open(path) as pool:
        pool.sql("UPDATE samples SET text = 'a zebra' WHERE metadata_row = 9")
    assert not index.current(path)
    browse = Browse(Lender(path), Alike(None))
    try:
        assert "1 shown" in browse.samples(Asked(words="zebra"))[1]
        assert not browse.lender.indexed
        browse.lender.close()
        assert index.prepare(path, least=0)
        assert "1 shown" in browse.samples(Asked(words="zebra"))[1]
        assert browse.count(Asked(words="zebra")) == {"count": 1}
        assert browse.lender.indexed
        assert browse.overview()[0] == 200
    finally:
        browse.lender.close()


def test_a_broken_index_is_told_and_not_used(path, capsys):
    index.file_of(path).write_bytes(b"no index")
    lender = Lender(path)
    with lender.pool(60) as pool:
        assert not lender.indexed
        assert len(search(pool, Asked(words="shoe"), indexed=lender.indexed).rows) == 46
    lender.close()
    errors = capsys.readouterr().err
    assert errors.startswith(f"warning: the index of {path} is not used: ")
    assert errors.count("\n") == 1


def test_what_reads_the_index_reaches_nothing_else(lender, tmp_path):
    (tmp_path / "secret.csv").write_text("a\n1\n")
    from datacomp.errors import DataError

    with lender.pool(60) as pool:
        for statement in (f"FROM '{tmp_path}/secret.csv'", f"ATTACH '{tmp_path}/other.duckdb'",
                          f"DELETE FROM {index.INDEX}"):  # fmt: skip
            with pytest.raises(DataError):
                pool.sql(statement)
    assert not (tmp_path / "other.duckdb").exists()


def test_small_and_linked_pools_have_none(browsed, tmp_path, commonpool):
    path = tmp_path / "pool.duckdb"
    shutil.copy2(browsed, path)
    assert not index.prepare(path)
    assert not index.prepare(commonpool(tmp_path / "m"), least=0)
    with Pool.create(tmp_path / "linked.duckdb") as pool:
        from datacomp.pools.sources import open_source

        pool.add(open_source("commonpool", tmp_path / "m", link=True))
    assert not index.prepare(tmp_path / "linked.duckdb", least=0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["linked.duckdb", "m", "pool.duckdb"]


def test_what_killed_processes_left_is_removed(path):
    left = [path.with_name(f".{path.name}.browse.0123abcd"),
            path.with_name(f"..{path.name}.browse.0123abcd.partial")]  # fmt: skip
    other = path.with_name(f".{path.name}.browse.mine")
    for folder in (*left, other):
        folder.mkdir()
        os.utime(folder, (0, 0))
    index.prepare(path, least=0)
    assert [folder.exists() for folder in (*left, other)] == [False, False, True]


def test_the_drawing_is_kept_and_a_damaged_one_not_used(path, lender, capsys):
    with lender.pool(60) as pool:
        kept = lender.drawing
        assert kept == draw(pool, index.SAMPLE) == draw(pool)
        assert overview_of(pool, kept) == overview_of(pool)
        assert {row["uid"] for row in rows_at(pool, kept.places, "uid")} == {
            int(uid, 16) for end in kept.ends for uid in end.uids
        }
    lender.close()
    file = index.folder_of(path) / "drawing.json"
    good = json.loads(file.read_text())
    for damage in (b"no JSON", b"[]", json.dumps({**good, "places": ["x"]}).encode(),
                   json.dumps({**good, "figures": [["Shares", {"title": "<b>"}]]}).encode(),
                   json.dumps({**good, "figures": [["eval", {}]]}).encode()):  # fmt: skip
        file.write_bytes(damage)
        with lender.pool(60) as pool:
            assert (lender.indexed, lender.drawing) == (False, None)
        lender.close()
        assert capsys.readouterr().err.startswith(f"warning: the index of {path} is not used: ")


def test_markup_in_a_kept_drawing_is_text(path):
    file = index.folder_of(path) / "drawing.json"
    found = json.loads(file.read_text())
    bars = next(figure for name, figure in found["figures"] if name == "Shares")
    bars["values"][0] = bars["title"] = "<script>"
    file.write_text(json.dumps(found))
    browse = Browse(Lender(path), Alike(None))
    page = browse.overview()[1]
    browse.lender.close()
    assert "&lt;script&gt;" in page
    assert "<script>" not in page


def test_an_index_is_made_anew_when_the_pool_has_changed(path):
    renewal = Renewal(path, None, None, least=0, quiet=0)
    lender = Lender(path, renewal=renewal)
    with Pool.open(path) as pool:
        pool.sql("UPDATE samples SET text = 'a zebra' WHERE metadata_row = 9")
    with lender.pool(60) as pool:
        assert not lender.indexed
    renewal.wait(60)
    with lender.pool(60) as pool:
        assert lender.indexed
        assert count(pool, Asked(words="zebra"), indexed=True) == 1
        assert lender.drawing == draw(pool)
    lender.close()


def test_a_pool_that_is_being_filled_is_left_alone(path):
    with Pool.open(path) as pool:
        pool.sql("UPDATE samples SET text = 'a zebra' WHERE metadata_row = 9")
    lender = Lender(path, renewal=Renewal(path, None, None, least=0))
    with lender.pool(60):
        pass
    lender.close()
    assert not index.current(path)
