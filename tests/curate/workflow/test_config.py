from pathlib import Path

import pytest
from datacomp.curate.workflow.checks import check_inputs
from datacomp.curate.workflow.config import features_of_runs, load_study
from datacomp.curate.workflow.study import evaluation_tasks, plan
from datacomp.errors import ConfigError, MissingError
from datacomp.pools.sources import KINDS

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
    assert study.filters_of(scored)[1].label() == "clip_score:checkpoint=run:all,fraction=0.5"
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
        ("seeds = [0, 1]", "seeds = 3", 21,
         "train.seeds is 3, expected a list, e.g. seeds = [0, 1, 2]"),
        ("seeds = [0, 1]", "seeds = [0, 0]", 21, "train.seeds is [0, 0], expected seeds that "
         "differ, e.g. seeds = [0, 1, 2]"),
        ("seeds = [0, 1]", 'seeds = [0,\n"a"]', 22, "an entry of train.seeds is 'a', expected a "
         "whole number, e.g. seeds = [0, 1, 2]"),
        ("seeds = [0, 1]", "seeds = []", 21, "train.seeds is [], expected at least 1 of them, "),
        ("seeds = [0, 1]", "seeds = [-1]", 21,
         "an entry of train.seeds is -1, expected at least 0"),
        ("seeds = [0, 1]", "workers = true", 21, "train.workers is true, expected a whole number"),
        ("seeds = [0, 1]", "workers = 1.5", 21, "train.workers is 1.5, expected a whole number"),
        ("seeds = [0, 1]", "parallel = 0", 21, "train.parallel is 0, expected at least 1"),
        ("seeds = [0, 1]", 'device = "gpu"', 21,
         "train.device is 'gpu', expected auto, cpu, cuda or cuda:N"),
        ("seeds = [0, 1]", "accumulation = 3", 21,
         "train.accumulation is 3, expected a divisor of scale demo's batch of 128"),
        ("seeds = [0, 1]", "samples_seen = 5", 21, "train.samples_seen is 5, but scale demo needs "
         "at least 640 (5 checkpoints of one batch)"),
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
            "train.scale: unknown scale 'demoo' (did you mean 'demo'?); there are: demo, debug, "
            "small, medium, large, xlarge",
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
            f"pool.source.kind is 'glyph', expected one of: {', '.join(KINDS)} "
            "(did you mean 'glyphs'?)",
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
            "filter basic_filter: parameter min_side is 'big', expected a whole number",
        ),
        ("min_side = 32", "min_side = true", 15,
         "filter basic_filter: parameter min_side is true, expected a whole number"),
        ('[[pool.source]]\nkind = "glyphs"\nsamples = 100', '[shards]\nview = true\n'
         '[[pool.source]]\nkind = "folder"\npath = "photos"', 5, "shards.view is true, but the "
         "source of kind folder is none of tars; expected sources that are folders of tars: "
         "webdataset or glyphs"),
        ("fraction = 0.5", "fraction = 1.5", 16, "filter clip_score: parameter fraction is 1.5, "),
        ("run:all", "run:scored", 16, "dataset.scored scores with run:scored, expected a dataset "
         "that stands before it: all"),
        ('name = "scored"', 'name = "all"', 13,
         "dataset.name is 'all', expected a name that no dataset before it has"),
        ('name = "scored"', 'nam = "scored"', 13,
         "unknown key 'dataset.nam' (did you mean 'name'?)"),
        ('{ use = "no_filter" }', '"no_filter"', 10, "an entry of dataset.filters is 'no_filter', "
         'expected a table, e.g. filters = [{ use = "no_filter" }]'),
        ('{ use = "no_filter" }', '{ usee = "no_filter" }', 10, "dataset.filters.use is missing "
         "(it has 'usee'), expected a filter's name, or file.py:Class"),
        ('filters = [{ use = "no_filter" }]', "", 8, "dataset.filters is missing, expected "
         'filters, or groups of them, in order, e.g. filters = [{ use = "no_filter" }]'),
        ('output = "out"', 'output = "a\\u0000b"', 2, r"study.output is 'a\x00b', expected a path"),
        ("[study]", "home = 'x'\n[study]", 1, "unknown key 'home', expected one of: study, pool, "
         "assets, dataset, truth, shards, train, evaluate"),
        ("[study]", "[[study]]", 1, "study is a list of tables, expected a [study] section"),
        ("[[pool.source]]", "[pool]\nmemory = 'much'\n[[pool.source]]", 5, "pool.memory is 'much', "
         "expected a size such as 2GB or a share such as 25%, e.g. memory = \"2GB\""),
        ("[[pool.source]]", "[pool.source]", 4, "pool.source is a table, expected at least one "
         "section [[pool.source]], in double brackets"),
        ('suite = "demo"', 'suite = "demo"\ntasks = 3', 25, "evaluate.tasks is 3, expected a list, "
         'e.g. tasks = ["imagenet1k", "vtab/*"]'),
        ('suite = "demo"', 'suite = "demo"\ntasks = [\n"demo/digits",\n"demo/digit",\n]', 27,
         "evaluate.tasks: unknown task 'demo/digit' (did you mean 'demo/digits'?)"),
        ('suite = "demo"', 'suite = "datacomp"', 24, "evaluate.data is missing, expected the "
         "folder of suite datacomp's evaluation sets"),
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


GROUP = """\
filters = [
    { combine = "or", not = true, filters = [
        { use = "caption_length" },
        { filters = [{ use = "image_size", min_side = 9 }, { use = "min_ink" }] },
    ] },
    { use = "random_subset", fraction = 0.5 },
]"""


def test_groups_of_filters_stand_within_each_other(write):
    study = load_study(write(MINIMAL.replace('filters = [{ use = "no_filter" }]', GROUP)))
    nodes = study.filters_of(study.dataset[0])
    assert [node.label() for node in nodes] == [
        "not (caption_length or (image_size:min_side=9 and min_ink))",
        "random_subset:fraction=0.5",
    ]
    assert [place for place, _ in study.dataset[0].sections()] == [
        ("filters", 0, "filters", 0), ("filters", 0, "filters", 1, "filters", 0),
        ("filters", 0, "filters", 1, "filters", 1), ("filters", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"caption_length"', '"caption_lenght"', "unknown filter 'caption_lenght' (did you mean "
         "'caption_length'?); "),
        ("min_side = 9", 'min_side = "x"', "filter image_size: parameter min_side is 'x', expected "
         "a whole number"),
        ('combine = "or"', 'combine = "nor"', "dataset.filters.combine is 'nor', expected 'and', "
         "'or', 'then' or 'minus'"),
        ('combine = "or"', 'join = "or"', "unknown key 'dataset.filters.join', expected one of: "
         "filters, combine, not"),
        ('[{ use = "image_size", min_side = 9 }, { use = "min_ink" }]', "[]",
         "dataset.filters.filters.filters is [], expected at least 1 of them"),
        ('[{ use = "image_size", min_side = 9 }, { use = "min_ink" }]', '"x"',
         "dataset.filters.filters.filters is 'x', expected a list"),
        ('{ use = "min_ink" }', '{ used = "min_ink" }',
         "dataset.filters.filters.filters.use is missing (it has 'used'), expected a filter's "
         "name, or file.py:Class"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_group_is_told_like_elsewhere(write, before, after, message):
    assert before in GROUP
    group = GROUP.replace(before, after)
    path = write(MINIMAL.replace('filters = [{ use = "no_filter" }]', group))
    with pytest.raises(ConfigError) as error:
        load_study(path)
    assert str(error.value).startswith(f"{path}:1")
    assert message in str(error.value)


def test_features_of_a_run_are_named_when_its_weights_are_known(write):
    group = '{ use = "vas_d", features = "run:all" }, { use = "neg_clip_loss", arch = "run:all" }'
    truth = f"[truth]\nfilters = [{{ filters = [{group}] }}]\n[train]"
    study = load_study(write(MINIMAL.replace("[train]", truth)))
    assert study.runs_needed(study.truth) == ["all"]
    (node,) = study.filters_of(study.truth)
    images, pairs = node.filters
    assert images.label() == "vas_d:features=run:all"
    assert features_of_runs(images) == {"features": ("run:all", True)}
    assert features_of_runs(pairs) == {"arch": ("run:all", False)}
    with pytest.raises(ConfigError, match="score with run:none, expected one of the datasets"):
        load_study(write(MINIMAL.replace("[train]", truth.replace("run:all", "run:none"))))


def test_filters_held_against_the_truth_are_checked_like_others(write):
    truth = '[truth]\nfilters = [\n{ use = "dfn", checkpoint = "run:all" },\n]\n[train]'
    study = load_study(write(MINIMAL.replace("[train]", truth)))
    assert study.runs_needed(study.truth) == ["all"]
    (task,) = [task for task in plan(study, evaluation_tasks(study)) if task.key == "truth"]
    assert task.needs == ("pool", "train-all-seed0")
    with pytest.raises(ConfigError) as error:
        load_study(write(MINIMAL.replace("[train]", truth.replace("run:all", "run:none"))))
    assert str(error.value).endswith(
        "truth.filters score with run:none, expected one of the datasets: all, scored"
    )
    with pytest.raises(ConfigError, match="unknown filter 'dfm'"):
        load_study(write(MINIMAL.replace("[train]", truth.replace("dfn", "dfm"))))


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


def test_sources_that_make_their_files_do_not_share_a_folder(write, tmp_path):
    more = '[[pool.source]]\nkind = "glyphs"\nseed = 1\n\n[[dataset]]\nname = "all"'
    study = load_study(write(MINIMAL.replace('[[dataset]]\nname = "all"', more)))
    assert [s.path for s in study.sources()] == [tmp_path / "out/glyphs", tmp_path / "out/glyphs-2"]


FOLDER = MINIMAL.replace('kind = "glyphs"\nsamples = 100', 'kind = "folder"\npath = "photos"')


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (FOLDER, 6, "pool.source.path is 'photos', expected an existing folder; {home}/photos is "
         "not there"),
        (MINIMAL.replace("run:all", "best.pt"), 16, "filter clip_score: checkpoint is 'best.pt', "
         "expected an existing file or folder; {home}/best.pt is not there"),
        (MINIMAL.replace("run:all", "empty"), 16, "filter clip_score: no run at {home}/empty: "
         "info.json is not there"),
        (MINIMAL.replace("min_side = 32", 'model = "lid.bin"'), 15, "filter basic_filter: model is "
         "'lid.bin', expected an existing file or folder; {home}/lid.bin is not there"),
        (MINIMAL + 'data = "sets"\n', 25, "evaluate.data: no evaluation sets at {home}/sets: "
         "no such folder; 'datacomp evalsets demo {home}/sets' builds the demo suite"),
        (MINIMAL + 'data = "empty"\n', 25, "evaluate.data: "),
        (MINIMAL.replace('"out"', '"file"'), 2,
         "study.output is 'file', a file; expected a folder"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told_before_anything_runs(write, tmp_path, text, line, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    study = load_study(write(text))
    with pytest.raises(ConfigError) as error:
        check_inputs(study)
    expected = f"{tmp_path}/datacomp.toml:{line}: {message.format(home=tmp_path)}"
    assert str(error.value).startswith(expected)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (MINIMAL.replace('"out"', '"s3://bucket/out"'), 2, "study.output is 's3://bucket/out', "
         "expected a path on a file system, not a URL"),
        (FOLDER.replace("photos", "s3://bucket/photos"), 6, "pool.source.path is "
         "'s3://bucket/photos', expected a path on a file system, not a URL"),
        (MINIMAL.replace('kind = "glyphs"', 'kind = "rcdb"\nweights = "s3://b/w.npy"'), 6,
         "pool.source.weights is 's3://b/w.npy', expected a path on a file system, not a URL"),
        (MINIMAL.replace("run:all", "s3://bucket/x.pt"), 16, "filter clip_score: checkpoint is "
         "'s3://bucket/x.pt', a URL; expected a path on a file system"),
        (MINIMAL + '[assets]\nwordnet = "s3://bucket/wordnet"\n', 26, "assets.wordnet is "
         "'s3://bucket/wordnet', expected a path on a file system, not a URL"),
    ],
)  # fmt: skip
def test_a_url_is_not_taken_for_a_path(write, tmp_path, text, line, message):
    with pytest.raises(ConfigError) as error:
        load_study(write(text))
    assert str(error.value) == f"{tmp_path}/datacomp.toml:{line}: {message}"


def test_evaluation_sets_may_lie_at_a_url(write, tmp_path):
    place = f"file://{tmp_path}/store"
    study = load_study(write(MINIMAL + f'data = "{place}"\ntasks = ["demo/digits"]\n'))
    assert study.eval_data == place
    assert "evalsets" not in [task.key for task in plan(study, evaluation_tasks(study))]
    with pytest.raises(ConfigError) as error:
        check_inputs(study)
    assert str(error.value) == (
        f"{tmp_path}/datacomp.toml:25: evaluate.data: {place}: 1 of 1 tasks have no folder there: "
        "wds_demo-digits_test; is that the right place?"
    )
    (tmp_path / "store/wds_demo-digits_test/test").mkdir(parents=True)
    (tmp_path / "store/wds_demo-digits_test/test/nshards.txt").write_text("1")
    check_inputs(study)


def test_a_module_that_is_not_installed_is_told_before_anything_runs(write, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from datacomp.filters import Decision, Filter\n"
        "class Mine(Filter):\n"
        '    needs = {"no_such_module": "text"}\n'
        "    def decide(self, view):\n"
        '        return [Decision("never", "true")]\n'
    )
    study = load_study(write(MINIMAL + '\n[truth]\nfilters = [{ use = "mine.py:Mine" }]\n'))
    with pytest.raises(ConfigError, match=r"mine\.py:Mine needs no_such_module, which is not"):
        check_inputs(study)


@pytest.mark.parametrize(
    ("path", "output", "data", "message"),
    [
        (".", "out", "", "pool.source.path is '.', which holds the study's own output 'out'; "
         "expected folders apart, or the output would become samples"),
        ("a/../photos", "photos", "", "pool.source.path is 'a/../photos', which holds the study's "
         "own output 'photos'; "),
        ("photos", "photos/deep/out", "", "pool.source.path is 'photos', which holds "),
        ("shards/all", ".", "", "pool.source.path is 'shards/all', which the study itself makes; "
         "expected samples of yours"),
        ("photos", "out", 'data = "photos/sets"\n', "pool.source.path is 'photos', which holds the "
         "evaluation sets 'photos/sets'; expected folders apart, or models would be trained on "
         "what they are tested on"),
    ],
)  # fmt: skip
def test_no_source_holds_what_the_study_makes(write, tmp_path, path, output, data, message):
    text = FOLDER.replace('"photos"', f'"{path}"').replace('"out"', f'"{output}"')
    (tmp_path / "a").mkdir()
    with pytest.raises(ConfigError) as error:
        load_study(write(text + data))
    assert str(error.value).startswith(f"{tmp_path}/datacomp.toml:6: {message}")


@pytest.mark.parametrize(("path", "output"), [("photos", "."), ("out-of-town", "out")])
def test_a_source_beside_the_output_is_fine(write, tmp_path, path, output):
    text = FOLDER.replace('"photos"', f'"{path}"').replace('"out"', f'"{output}"')
    assert load_study(write(text)).sources()[0].path == tmp_path / path


def test_what_is_there_is_fine(write, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "best.pt").touch()
    study = load_study(write(FOLDER.replace("run:all", "best.pt")))
    check_inputs(study)
    (spec,) = study.filters_of(study.get_dataset("scored"))[1:]
    assert spec.parameters["checkpoint"] == f"{tmp_path}/best.pt"
    assert spec.label() == "clip_score:checkpoint=best.pt,fraction=0.5"


def settings_of(study, key):
    return next(task for task in plan(study, evaluation_tasks(study)) if task.key == key).settings


def test_a_filter_counts_by_the_files_it_reads(write, tmp_path):
    run = tmp_path / "best"
    run.mkdir()
    (run / "info.json").write_text("1")
    study = load_study(write(MINIMAL.replace("run:all", "best")))
    before = settings_of(study, "filter-scored")
    assert settings_of(study, "filter-scored") == before
    (run / "info.json").write_text("2")
    assert settings_of(study, "filter-scored") != before


def test_a_run_of_the_study_counts_as_a_stage_not_as_a_file(write, tmp_path):
    study = load_study(write(MINIMAL))
    before = settings_of(study, "filter-scored")
    study.run_dir("all", 0).mkdir(parents=True)
    (study.run_dir("all", 0) / "info.json").write_text("done")
    assert settings_of(study, "filter-scored") == before


def test_tasks_without_a_score_compare_no_datasets(write, tmp_path):
    (tmp_path / "evalsets").mkdir()
    text = MINIMAL.replace('suite = "demo"', 'suite = "datacomp"\ndata = "evalsets"')
    assert text != MINIMAL
    keys = {task.key for task in evaluation_tasks(load_study(write(text)))}
    assert len(keys) == 38
    assert "wilds/fmow" in keys
    assert not keys & {"fairness/fairface", "fairness/utkface"}
