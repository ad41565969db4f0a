import hashlib
import json

import pytest
from datacomp.errors import DataError
from datacomp.pools import Pool
from datacomp.pools.lettering import HELD_OUT_FONTS, POOL_FONTS, characters
from datacomp.pools.sources import open_source
from datacomp.pools.sources.glyphs import DEFECTS, PER_SHARD, plan_glyphs
from datacomp.pools.tar import tar_bytes


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A pool of 300 glyphs."""
    folder = tmp_path_factory.mktemp("glyphs")
    with Pool.create(folder / "pool.duckdb") as pool:
        report = pool.add(open_source("glyphs", folder / "glyphs", samples=300))
        yield folder, pool, report


def test_the_same_settings_give_the_same_bytes_for_ever(small):
    folder, pool, report = small
    assert (report.set_aside, report.added + report.duplicates) == ({}, 300)
    assert pool.digest() == DIGEST
    tars = hashlib.sha256((folder / "glyphs" / "00000.tar").read_bytes()).hexdigest()
    assert tars == TAR


def test_the_truth_about_each_sample_is_there(small):
    _, pool, _ = small
    counts = dict(pool.sql("SELECT truth, count(*) FROM samples GROUP BY 1").fetchall())
    assert set(counts) <= {"clean", "blank", *DEFECTS}
    assert 0.4 < counts["clean"] / pool.count() < 0.6
    assert max(DEFECTS, key=lambda defect: counts.get(defect, 0)) == "mismatched"
    tiny = pool.scalar("SELECT max(greatest(width, height)) FROM samples WHERE truth = 'tiny'")
    assert tiny < 12
    wide = "greatest(width, height) / least(width, height)"
    assert pool.scalar(f"SELECT min({wide}) FROM samples WHERE truth = 'extreme_aspect'") >= 5


def test_the_share_of_spoiled_samples_is_the_one_asked_for(tmp_path):
    for share, clean in ((0.0, 60), (1.0, 0)):
        source = open_source("glyphs", tmp_path / str(share), samples=60, spoiled=share)
        truths = [record.extra["truth"] for record in source.records()]
        # A caption that happens to fit is no defect.
        assert clean <= truths.count("clean") <= clean + 2


def test_every_character_of_the_pools_fonts_is_drawn_in_20_000_samples():
    plan = plan_glyphs(20_000, 0)
    assert len(plan) == 20_000
    assert {g.character for g in plan} == {c for font in POOL_FONTS for c in characters(font)}
    assert {g.font for g in plan} == set(POOL_FONTS)
    assert not {g.font for g in plan} & set(HELD_OUT_FONTS)
    assert all(g.character in characters(g.font) for g in plan[:500])


def test_no_caption_or_url_names_a_held_out_font(small):
    _, pool, _ = small
    names = [font.file for font in HELD_OUT_FONTS]
    fonts = {row[0] for row in pool.sql("SELECT DISTINCT font || '.ttf' FROM samples").fetchall()}
    assert fonts <= {font.file for font in POOL_FONTS}
    assert not fonts & set(names)


def test_another_seed_draws_another_pool(small, tmp_path):
    _, pool, _ = small
    with Pool.create(tmp_path / "pool.duckdb") as other:
        other.add(open_source("glyphs", tmp_path / "g", samples=20, seed=1))
        seen = {row[0] for row in pool.sql("SELECT sha256 FROM samples").fetchall()}
        new = {row[0] for row in other.sql("SELECT sha256 FROM samples").fetchall()}
        assert not seen & new


def test_a_shard_that_is_gone_is_drawn_again_the_same(tmp_path):
    source = open_source("glyphs", tmp_path, samples=PER_SHARD + 20, spoiled=0.9)
    source.render()
    last = tmp_path / "00001.tar"
    before, first = last.read_bytes(), (tmp_path / "00000.tar").stat().st_mtime_ns
    last.unlink()
    (tmp_path / ".00001.tar.partial").write_bytes(b"half drawn when the power went")
    source.render()
    assert last.read_bytes() == before
    assert (tmp_path / "00000.tar").stat().st_mtime_ns == first


@pytest.mark.parametrize("change", [{"samples": 21}, {"seed": 1}, {"spoiled": 0.1}])
def test_other_settings_in_the_same_folder_are_refused(tmp_path, change):
    settings = {"samples": 20, "seed": 0, "spoiled": 0.5}
    open_source("glyphs", tmp_path, **settings).render()
    with pytest.raises(DataError) as caught:
        list(open_source("glyphs", tmp_path, **(settings | change)).records())
    assert str(caught.value) == (
        f"{tmp_path}: holds glyphs drawn with other settings; "
        "choose another folder or remove this one"
    )
    (tmp_path / "glyphs.json").write_text("{broken")
    with pytest.raises(DataError, match="drawn with other settings"):
        open_source("glyphs", tmp_path, **settings).render()


def test_a_strangers_tar_in_the_folder_is_not_read(tmp_path):
    source = open_source("glyphs", tmp_path, samples=5)
    before = list(source.records())
    (tmp_path / "zzz.tar").write_bytes(tar_bytes([("a.txt", b"x")]))
    assert list(source.records()) == before
    assert json.loads((tmp_path / "glyphs.json").read_bytes())["samples"] == 5


DIGEST = "44d9b3cca125f2520da7a76ef50e998810e15784c76a94619f535e23e99e3ad7"
TAR = "43b83efbc11cd9b325d2e1bcc62639aec4fb377530b0c33cfad6fa5d5965d447"


def test_keeping_one_of_each_copy_is_no_mistake(small):
    _, pool, _ = small
    rows = pool.sql(
        "SELECT truth, row_number() OVER (PARTITION BY sha256 ORDER BY uid) FROM samples"
    ).fetchall()
    dropped = [truth for truth, place in rows if place > 1]
    assert dropped
    assert set(dropped) == {"duplicate"}
    assert dropped.count("duplicate") == sum(truth == "duplicate" for truth, _ in rows)


def test_the_url_says_nothing_of_what_is_drawn(small):
    _, pool, _ = small
    told = "url != 'glyph://' || printf('%032x', uid)"
    assert pool.scalar(f"SELECT count(*) FROM samples WHERE {told}") == 0
