import json
import subprocess
import sys
from pathlib import Path

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
        (("{pool}", "(caption_length", "and", "no_filter)", "-o", "{tmp}/a.npy"), 2,
         "filter '(caption_length': it has '(' in it; each filter, word and parenthesis"),
        (("{pool}", "no_filter and language", "-o", "{tmp}/a.npy"), 2,
         "filter 'no_filter and language': it has a space in it; each filter, word and "),
        (("{pool}", "no_filter", "-o", "/proc/a.npy"), 1,
         "cannot write /proc/a.npy: no file can be made there; choose another place"),
        (("{pool}", "no_filter", "-o", "{tmp}/a.npy", "--reasons", "/proc/r.parquet"), 1,
         "cannot write /proc/r.parquet: no file can be made there; choose another place"),
        (("{tmp}/none", "no_filter", "-o", "{tmp}/a.npy"), 1, "{tmp}/none: no such pool, "),
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


def test_list_shows_filters_in_files_with_their_place(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = 'from datacomp.filters import Filter\n\nclass Mine(Filter):\n    """Keep mine."""\n'
    (tmp_path / "my.py").write_text(text)
    code, out, _ = command("filter", "list", "my.py:Mine", "my.py:Mine", "no_filter", "--json")
    assert code == 0
    rows = json.loads(out)
    assert rows[-1] == {"name": "my.py:Mine", "rule": "Keep mine.", "origin": "my.py:3"}
    assert [row["name"] for row in rows[:-1]] == registry.names()
    assert command("filter", "list", "none.py:Mine") == (
        1, "", "error: filter none.py:Mine: no such file none.py\n",
    )  # fmt: skip


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


def test_show_says_the_rule_once_and_without_marks(command):
    code, out, _ = command("filter", "show", "clip_score")
    assert code == 0
    assert "``" not in out
    assert "Keep samples whose image and caption agree" not in out
    assert "The score comes from column, from CommonPool's column of arch" in out
    assert "Source: Hessel et al." in out
    assert "\nexact              bool       true     " in out
    assert "\ncolumn             str        -        any score column" in out


SHARPNESS = f"{Path(__file__).parents[3]}/examples/sharpness.py:Sharpness:min=1"


def test_images_that_cannot_be_read_are_told_and_exit_3(tmp_path, picture, command):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.png").write_bytes(picture(ord(name)))
        (folder / f"{name}.txt").write_text(f"photo {name}")
    pool, subset = tmp_path / "pool.duckdb", tmp_path / "a.npy"
    assert command("pool", "add", pool, folder)[0] == 0
    (folder / "b.png").rename(tmp_path / "b.png")
    code, out, err = command("filter", "run", pool, SHARPNESS, "-o", subset)
    assert code == 3
    assert "1 unreadable" in out
    assert out.endswith(f"{subset}: 1 of 2 samples (50.0%)\n")
    told = err.splitlines()[-1]
    assert told.startswith("warning: 1 image cannot be read, first ")
    assert told.endswith(f" of {folder / 'b.png'}")
    folder.rename(tmp_path / "away")
    # The score of the first is known by now, so it need not be read again.
    assert command("filter", "run", pool, SHARPNESS, "-o", subset)[0] == 3
    other = "clip_score:checkpoint=x"  # told before anything is read
    assert command("filter", "run", pool, other, "-o", subset)[0] == 1
    (tmp_path / "away").rename(folder)
    (tmp_path / "b.png").rename(folder / "b.png")
    code, out, _ = command("filter", "run", pool, SHARPNESS, "-o", subset)
    assert (code, out.endswith(f"{subset}: 2 of 2 samples (100.0%)\n")) == (0, True)


def test_when_no_image_can_be_read_it_failed(tmp_path, picture, command):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(picture())
    (folder / "a.txt").write_text("a photo")
    pool = tmp_path / "pool.duckdb"
    assert command("pool", "add", pool, folder)[0] == 0
    folder.rename(tmp_path / "away")
    code, out, err = command("filter", "run", pool, SHARPNESS, "-o", tmp_path / "a.npy")
    assert (code, out) == (1, "")
    assert err.startswith("error: scoring sharpness: no image can be read (1 tried), first ")
    assert not (tmp_path / "a.npy").exists()


def test_one_is_no_plural(tmp_path, pool_of, command):
    pool = pool_of(width=[300])
    pool.close()
    subset, out = tmp_path / "one.npy", tmp_path / "out.npy"
    assert command("filter", "run", pool.path, "no_filter", "-o", subset)[1].endswith(
        f"{subset}: 1 of 1 sample (100.0%)\n"
    )
    assert command("subset", "union", subset, subset, "-o", out)[1] == f"{out}: 1 uid\n"
    info = command("subset", "info", subset)[1]
    assert "(1 sample)" in info
    assert "(1 uid)" in command("subset", "info", out)[1]


@pytest.mark.parametrize("filters", ["no_filter", "clip_score:arch=b32,threshold=0.004"])
def test_what_a_stored_score_does_without_stays_away(tmp_path, commonpool, filters):
    folder, out = commonpool(tmp_path / "m"), tmp_path / "out.npy"
    script = f"""
import sys
from datacomp.curate.cli.__main__ import main
sys.argv = ["datacomp", "filter", "run", {str(folder)!r}, {filters!r}, "-o", {str(out)!r}]
try:
    main()
except SystemExit as ending:
    assert ending.code == 0
slow = {{"torch", "polars", "pyarrow.parquet", "pyarrow.fs", "multiprocessing.connection"}}
print(slow & set(sys.modules), "datacomp.pools.clip_model" in sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "set() False"
    assert out.is_file()


@pytest.mark.parametrize("how", [[], ["--workers", "2"]])
def test_metadata_that_cannot_be_read_are_named(tmp_path, commonpool, command, how):
    folder, out = commonpool(tmp_path / "m"), tmp_path / "s.npy"
    run = ["filter", "run", str(folder), "no_filter", *how, "-o", str(out)]
    code, _, err = command(*run)
    assert (code, "left out" in err) == (0, False)
    file = folder / "00ab.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    code, _, err = command(*run)
    assert code == 3
    assert f"warning: {folder}: left out, for it cannot be read: 00ab.parquet (" in err
    assert len(load_subset(out)) == 5
    code, _, err = command(*run[:3], "clip_score:arch=b32,threshold=9", *run[4:])
    assert (code, "left out" in err) == (1, True)
    assert len(load_subset(out)) == 5  # what was there stays
    for others in (
        ["filter", "run", str(folder), "no_filter", "--explain"],
        ["filter", "compare", str(out), str(out), "--pool", str(folder)],
        ["pool", "query", str(folder), "SELECT count(*) FROM samples"],
    ):
        code, _, err = command(*others)
        assert (code, "left out, for it cannot be read: 00ab.parquet (" in err) == (0, True)
