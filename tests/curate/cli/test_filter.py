import json

import pyarrow.parquet as pq
import pytest
from datacomp.filters import registry
from datacomp.pools.uids import load_subset, to_hex


@pytest.fixture
def pool(pool_of):
    pool = pool_of(width=[300, 100, 250, 900], height=[300, 300, 300, 300])
    pool.close()
    return pool.path


def test_run_writes_subset_and_says_how_it_came_about(pool, tmp_path, command):
    subset, why = tmp_path / "big.npy", tmp_path / "why.parquet"
    code, out, err = command("filter", "run", pool, "image_size:min_side=200",
                             "random_subset:fraction=1",
                             "--reasons", why, "-o", subset)  # fmt: skip
    assert (code, err) == (0, "")
    assert out == (
        "filter                    before  after  dropped\n"
        "------------------------  ------  -----  -----------\n"
        "image_size:min_side=200        4      3  1 too_small\n"
        "random_subset:fraction=1       3      3  -\n"
        f"\n{subset}: 3 of 4 samples (75.0%)\n"
    )
    assert to_hex(load_subset(subset)) == [f"{i:032x}" for i in (0, 2, 3)]
    made = json.loads((tmp_path / "big.json").read_text())
    assert made["pipeline"] == {
        "filters": ["image_size:min_side=200", "random_subset:fraction=1"], "combine": "and",
        "scores": [],
    }  # fmt: skip
    assert made["funnel"][0] == {
        "filter": "image_size:min_side=200", "before": 4, "after": 3, "reasons": {"too_small": 1},
    }  # fmt: skip
    assert pq.read_table(why).to_pylist() == [
        {"uid": f"{1:032x}", "filter": "image_size:min_side=200", "reason": "too_small"},
    ]


def test_run_for_machines(pool, tmp_path, command):
    code, out, _ = command("filter", "run", pool, "language", "--json", "-o", tmp_path / "en.npy")
    assert code == 0
    found = json.loads(out)
    assert found["path"] == str(tmp_path / "en.npy")
    assert found["pool"]["samples"] == 4
    assert found["pipeline"]["scores"][0]["model"] == "lid.176.ftz (embedded)"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("{pool}", "no_filter", "-o", "{tmp}/a.txt"), 2,
         "{tmp}/a.txt: the name of a subset file must end in .npy"),
        (("{pool}", "nofilter", "-o", "{tmp}/a.npy"), 2,
         "unknown filter 'nofilter' (did you mean 'no_filter'?); there are: "),
        (("{tmp}/none", "no_filter", "-o", "{tmp}/a.npy"), 1, "{tmp}/none: no such pool; "),
        (("{pool}", "image_size:min_side=5000", "-o", "{tmp}/a.npy"), 1,
         "the filters keep no sample (4 too_small); loosen them"),
        (("{pool}", "no_filter", "--combine", "xor", "-o", "{tmp}/a.npy"), 2, "combine is 'xor'"),
    ],
)  # fmt: skip
def test_run_says_in_one_line_what_is_wrong(pool, tmp_path, command, arguments, code, message):
    found = command("filter", "run", *(a.format(pool=pool, tmp=tmp_path) for a in arguments))
    assert (found[0], found[1]) == (code, "")
    assert found[2].startswith("error: " + message.format(tmp=tmp_path))
    assert found[2].count("\n") == 1
    assert not (tmp_path / "a.npy").exists()


def test_list_names_every_filter(command):
    code, out, _ = command("filter", "list", "--json")
    assert code == 0
    assert [row["name"] for row in json.loads(out)] == registry.names()
    assert {row["origin"] for row in json.loads(out)} >= {"built in"}
    assert "clip_score" in command("filter", "list")[1]


def test_list_shows_a_broken_plug_in_beside_the_others(command, tmp_path, monkeypatch):
    info = tmp_path / "plug-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\nwide = no_such_plug:Wide\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._plugins.cache_clear()
    try:
        code, out, _ = command("filter", "list", "--json")
    finally:
        registry._plugins.cache_clear()
    assert code == 0
    assert json.loads(out)[-1] == {
        "name": "wide", "origin": "-",
        "rule": "broken: filter 'wide' of no_such_plug:Wide: ModuleNotFoundError: "
        "No module named 'no_such_plug'",
    }  # fmt: skip


def test_show_tells_parameters(command):
    code, out, _ = command("filter", "show", "random_subset")
    assert code == 0
    assert out.startswith("random_subset (built in)\n\nKeep a random fraction of the samples")
    assert "fraction   float  required  part of the samples to keep" in out
    found = json.loads(command("filter", "show", "random_subset", "--json")[1])
    assert found["parameters"][0] == {
        "name": "fraction", "type": "float", "default": None, "required": True,
        "help": "part of the samples to keep",
    }  # fmt: skip
    code, _, err = command("filter", "show", "random")
    assert code == 2
    assert err.startswith("error: unknown filter 'random'")
