"""Synthetic sets as sources of a pool."""

import json
import re

import pytest
from datacomp.errors import DataError, MissingError, UsageError
from datacomp.filters import parse, run_filters
from datacomp.pools import Pool
from datacomp.pools.sources import open_source
from datacomp.pools.synthetic.build import Plan, build
from datacomp.pools.synthetic.rcdb import RCDB
from datacomp.pools.synthetic.visualatom import VisualAtom


def test_a_set_that_was_made_is_read(tmp_path):
    out = tmp_path / "set"
    build(Plan(VisualAtom(classes=20, instances=3), out, per_shard=25), 1)
    source = open_source("visualatom", out)
    assert source.estimate() == 60
    with Pool.create(tmp_path / "pool.duckdb") as pool:
        report = pool.add(source)
        assert (report.added, report.set_aside) == (60, {})
        types = pool.columns()
        assert {types[name] for name in ("class", "instance", "vertices", "orbits")} == {"BIGINT"}
        assert {types[name] for name in ("ink", "noise", "drift", "x")} == {"DOUBLE"}
        assert pool.scalar("SELECT count(DISTINCT class) FROM samples") == 20
        assert pool.scalar("SELECT min(width) FROM samples") == 512
        blank = pool.scalar("SELECT count(*) FROM samples WHERE ink < 0.01")
        assert 0 < blank < 15
        assert len(pool.uids("ink >= 0.01")) == 60 - blank


def test_options_make_the_set_first(tmp_path):
    options = {"classes": 4, "instances": 3, "size": 32, "seed": 5, "per_shard": 5}
    source = open_source("rcdb", tmp_path / "set", **options)
    assert source.options() == options
    before = source.signature()
    with Pool.create(tmp_path / "pool.duckdb") as pool:
        assert pool.add(source).added == 12
        assert pool.add(open_source("rcdb", tmp_path / "set", **options)).unchanged == 12
        subset = run_filters(pool, [parse("caption_length")])
        assert len(subset.uids) == 12
    assert source.signature() == before
    assert len(list((tmp_path / "set").glob("*.tar"))) == 3
    other = open_source("rcdb", tmp_path / "set", **{**options, "seed": 6})
    assert other.signature() != before
    with pytest.raises(UsageError, match="seed is 5 there, 6 was asked for"):
        list(other.records())


def test_presets_are_options(tmp_path):
    source = open_source("visualatom", tmp_path, preset="visualatom-21k", instances=2)
    assert source.estimate() == 42_000
    with pytest.raises(UsageError) as caught:
        open_source("visualatom", tmp_path, preset="visualatom-2k")
    assert str(caught.value) == (
        "visualatom: no preset 'visualatom-2k' (did you mean 'visualatom-21k'?); there are: "
        "visualatom-1k, visualatom-21k, visualatom-1k-authors"
    )


def test_what_is_refused(tmp_path):
    out = tmp_path / "set"
    with pytest.raises(MissingError) as missing:
        open_source("visualatom", out).estimate()
    assert str(missing.value) == (
        f"{out}: no synthetic set; make one with 'datacomp synth visualatom {out}', or give "
        "options, such as classes=100"
    )
    with pytest.raises(UsageError, match="visualatom: classes is 0, expected"):
        open_source("visualatom", out, classes=0)
    with pytest.raises(UsageError, match="option per_shard is '5', expected int"):
        open_source("visualatom", out, per_shard="5")
    build(Plan(RCDB(classes=2, instances=2, size=32), out, per_shard=2), 1)
    with pytest.raises(UsageError) as kind:
        list(open_source("visualatom", out).records())
    assert str(kind.value) == f"{out}: holds rcdb images, not visualatom; use kind rcdb"
    (out / "00001.tar").unlink()
    with pytest.raises(DataError) as half:
        list(open_source("rcdb", out).records())
    assert str(half.value) == (
        f"{out}: 1 of 2 shards are not made yet; run the same 'datacomp synth rcdb' command again"
    )
    build(Plan(RCDB(classes=2, instances=2, size=32), tmp_path / "tree", "folder"), 1)
    with pytest.raises(UsageError, match="have no captions; make the set with --format shards"):
        list(open_source("rcdb", tmp_path / "tree").records())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"options": {"classes": "x"}}, "classes is 'x', expected 1 to 10,000,000"),
        ({"options": {}}, "classes is None, expected 1 to 10,000,000"),
        ({"options": {"classes": 2, "instances": 0}}, "instances is 0, expected 1 to 100,000,000"),
        ({"options": {"classes": True, "instances": 2}}, "classes is True, expected 1 to"),
        ({"per_shard": [1]}, "per_shard is [1], expected 1 to"),
        ({"per_shard": 0}, "per_shard is 0, expected 1 to"),
        ({"kind": ["rcdb"]}, "kind is ['rcdb'], expected one of visualatom, rcdb,"),
        ({"kind": "x\n" * 1000}, "kind is 'x\\nx\\nx\\nx\\n...nx"),
    ],
)
def test_a_broken_configuration_is_named(tmp_path, change, said):
    good = {"kind": "rcdb", "format": "shards", "per_shard": 2,
            "options": {"classes": 2, "instances": 2}}  # fmt: skip
    (tmp_path / "synth.json").write_text(json.dumps({**good, **change}))
    source = open_source("rcdb", tmp_path)
    with pytest.raises(DataError) as caught:
        list(source.records())
    if "options" in change:
        with pytest.raises(DataError, match=re.escape(str(caught.value))):
            source.estimate()
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/synth.json: {said}")
    assert message.endswith(f"; remove {tmp_path} and make the set again")
    assert "\n" not in message


def test_shards_that_are_missing_are_counted_quickly(tmp_path):
    huge = {"kind": "rcdb", "format": "shards", "per_shard": 1,
            "options": {"classes": 10_000_000, "instances": 100_000_000}}  # fmt: skip
    (tmp_path / "synth.json").write_text(json.dumps(huge))
    with pytest.raises(DataError, match="1,000,000,000,000,000 of 1,000,000,000,000,000 shards"):
        list(open_source("rcdb", tmp_path).records())
