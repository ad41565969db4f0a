from pathlib import Path

import pytest
from datacomp.curate.workflow.config import line_of, load_study
from datacomp.errors import ConfigError, MissingError

MINIMAL = """\
[study]
output = "out"

[[pool.source]]
kind = "glyphs"
samples = 100

[[dataset]]
name = "all"
filters = [{ use = "no_filter" }]

[[dataset]]
name = "scored"
filters = [
    { use = "basic_filter", min_side = 32 },
    { use = "clip_score", checkpoint = "run:all", fraction = 0.5 },
]

[train]
scale = "demo"
seeds = [0, 1]

[evaluate]
suite = "demo"
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "datacomp.toml"
        path.write_text(text)
        return path

    return write


def test_a_study_knows_where_everything_goes(write, tmp_path):
    study = load_study(write(MINIMAL))
    assert study.output == tmp_path / "out"
    assert study.pool_path == tmp_path / "out/pool.duckdb"
    assert study.eval_data == tmp_path / "out/evalsets"
    assert study.run_dir("all", 1) == tmp_path / "out/runs/all-seed1"
    assert [source.path for source in study.sources()] == [tmp_path / "out/glyphs"]


def test_run_references_become_the_folder_of_the_first_seed(write, tmp_path):
    study = load_study(write(MINIMAL))
    scored = study.get_dataset("scored")
    assert study.runs_needed(scored) == ["all"]
    assert study.filters_of(scored)[1].parameters == {
        "checkpoint": str(tmp_path / "out/runs/all-seed0"),
        "fraction": 0.5,
    }


def test_the_repository_s_own_study_is_valid():
    study = load_study(Path(__file__).parents[3] / "datacomp.toml")
    assert [dataset.name for dataset in study.dataset] == [
        "no_filter", "basic", "exact_dedup", "clip_score", "basic_and_clip",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "line", "message"),
    [
        ("seeds = [0, 1]", "seeds = 3", 21, "train.seeds is 3, expected a valid list"),
        ("seeds = [0, 1]", "seeds = [0, 0]", 21, "train.seeds is [0, 0], expected different seeds"),
        ("seeds = [0, 1]", 'seeds = ["a"]', 21, "train.seeds is 'a', expected a valid integer"),
        (
            "seeds = [0, 1]",
            "sede = [0, 1]",
            21,
            "unknown key 'train.sede' (did you mean 'seeds'?), expected one of: scale, seeds, "
            "samples_seen, precision, device, workers, threads, parallel, accumulation",
        ),
        (
            'scale = "demo"',
            'scale = "demoo"',
            20,
            "unknown scale 'demoo' (did you mean 'demo'?); there are: demo, debug, small, "
            "medium, large, xlarge",
        ),
        (
            'suite = "demo"',
            'suite = "demi"',
            24,
            "evaluate.suite is 'demi', expected 'demo' or 'datacomp'",
        ),
        (
            'kind = "glyphs"',
            'kind = "glyph"',
            5,
            "pool.source.kind is 'glyph', expected one of: folder, webdataset, parquet, csv, "
            "glyphs (did you mean 'glyphs'?)",
        ),
        (
            "samples = 100",
            "sample = 100",
            6,
            "source glyphs: unknown option 'sample' (did you mean 'samples'?); options: verify, "
            "samples, seed, spoiled",
        ),
        (
            'use = "no_filter"',
            'use = "nofilter"',
            10,
            "unknown filter 'nofilter' (did you mean 'no_filter'?); there are: ",
        ),
        (
            "min_side = 32",
            'min_side = "big"',
            15,
            "filter basic_filter: parameter min_side is 'big', expected: a valid integer",
        ),
        ("fraction = 0.5", "fraction = 1.5", 16, "filter clip_score: parameter fraction is 1.5, "),
        ("run:all", "run:scored", 14, "dataset.scored scores with run:scored, expected a dataset "
         "that stands before it: all"),
        ('name = "scored"', 'name = "all"', 1, "two datasets are called 'all'; names must differ"),
        ('name = "scored"', 'name = "../x"', 13, "dataset.name is '../x', expected "),
        ("[train]", "[trian]", 19, "unknown key 'trian' (did you mean 'train'?), expected one"),
        ("[train]", "[train", 19, "not TOML: "),
    ],
)  # fmt: skip
def test_an_error_names_file_line_key_found_and_expected(write, before, after, line, message):
    assert before in MINIMAL
    path = write(MINIMAL.replace(before, after))
    with pytest.raises(ConfigError) as error:
        load_study(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_sections_and_files(write, tmp_path):
    with pytest.raises(ConfigError, match=r"\.toml:1: pool is missing, expected a \[pool\]"):
        load_study(write("[study]\n"))
    with pytest.raises(MissingError, match="no such file"):
        load_study(tmp_path / "none.toml")
    path = write("")
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 0"):
        load_study(path)


def test_a_source_needs_a_path(write):
    path = write(MINIMAL.replace('kind = "glyphs"\nsamples = 100', 'kind = "folder"'))
    with pytest.raises(ConfigError, match=r":4: pool.source.path is missing, expected the folder"):
        load_study(path)


def test_line_of_follows_inline_tables():
    text = "[a]\nx = 1\n\n[[d]]\ny = 1\n\n[[d]]\nf = [\n  { u = 1 },\n  { u = 2 },\n]\n"
    assert line_of(text, ("d", 1, "f", 1)) == 10
    assert line_of(text, ("d", 0, "y")) == 5
    assert line_of(text, ("a", "x")) == 2
    assert line_of(text, ("nowhere",)) == 1
