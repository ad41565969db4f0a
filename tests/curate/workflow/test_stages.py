import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from datacomp.curate.workflow import stages
from datacomp.curate.workflow.config import load_study
from datacomp.curate.workflow.scheduler import Record, Scheduler
from datacomp.curate.workflow.study import evaluation_tasks, plan, set_aside, unread
from datacomp.durable import write_json
from datacomp.errors import ConfigError, UsageError
from datacomp.evaluate.data import find_shards
from datacomp.evaluate.loader import read_shard
from datacomp.pools import Pool
from datacomp.pools.sources import open_source
from PIL import Image

SHARPNESS = f"{Path(__file__).parents[3]}/examples/sharpness.py:Sharpness"

STUDY = """\
[study]
output = "out"

[[pool.source]]
kind = "folder"
path = "photos"

[[dataset]]
name = "all"
filters = [{ use = "no_filter" }]

[evaluate]
suite = "demo"
"""


@pytest.fixture
def study(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(4):
        photo(tmp_path, number)
    (tmp_path / "datacomp.toml").write_text(STUDY)
    return load_study(tmp_path / "datacomp.toml")


def photo(folder, number, caption="a plain colour"):
    path = folder / f"photos/{number}.png"
    Image.new("RGB", (32, 32), (number * 40, 80, 20)).save(path)
    path.with_suffix(".txt").write_text(f"{caption} {number}")


def texts(study):
    with Pool.open(study.pool_path, read_only=True) as pool:
        return {row[0] for row in pool.sql("SELECT text FROM samples").fetchall()}


def test_a_pool_of_changed_sources_is_made_anew(study, tmp_path):
    assert stages.make_pool(study)["samples"] == 4
    before = stages.make_pool(study)["digest"]
    photo(tmp_path, 0, "another caption")
    (tmp_path / "photos/3.png").unlink()
    again = stages.make_pool(study)
    assert again["digest"] != before
    assert texts(study) == {"another caption 0", "a plain colour 1", "a plain colour 2"}


def test_a_linked_pool_is_named_by_its_files_and_no_uid_is_sorted(
    tmp_path, commonpool, monkeypatch
):  # fmt: skip
    commonpool(tmp_path / "metadata")
    source = 'kind = "commonpool"\npath = "metadata"\nlink = true'
    text = STUDY.replace('kind = "folder"\npath = "photos"', source)
    (tmp_path / "datacomp.toml").write_text(text)
    study = load_study(tmp_path / "datacomp.toml")
    monkeypatch.setattr(Pool, "digest", None)
    made = stages.make_pool(study)
    assert "digest" not in made
    assert stages.make_pool(study)["files"] == made["files"]
    assert stages.select(study, "all")["size"] == 10
    commonpool(tmp_path / "metadata", files=3)
    assert stages.make_pool(study)["files"] != made["files"]


def test_a_pool_that_no_study_made_is_never_touched(study, tmp_path):
    with Pool.create(study.pool_path) as pool:
        pool.add(open_source("folder", tmp_path / "photos"))
        digest = pool.digest()
    with pytest.raises(UsageError, match="was not made by a study and would be overwritten"):
        stages.make_pool(study)
    with Pool.open(study.pool_path, read_only=True) as pool:
        assert pool.digest() == digest


def test_a_pool_outside_the_output_folder_is_refused(tmp_path, study):
    path = tmp_path / "datacomp.toml"
    path.write_text('[pool]\npath = "../own.duckdb"\n\n' + STUDY)
    with pytest.raises(ConfigError) as error:
        load_study(path)
    assert str(error.value) == (
        f"{path}:2: pool.path is '../own.duckdb', expected a name inside the output folder"
    )


def test_shards_that_no_study_made_are_never_removed(study):
    stages.make_pool(study)
    stages.select(study, "all")
    mine = study.shards_dir("all") / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(UsageError):
        stages.build(study, "all")
    assert mine.read_text() == "mine"


def test_shards_of_another_subset_are_replaced(study, tmp_path):
    stages.make_pool(study)
    stages.select(study, "all")
    assert stages.build(study, "all")["samples"] == 4
    photo(tmp_path, 4)
    stages.make_pool(study)
    stages.select(study, "all")
    assert stages.build(study, "all")["samples"] == 5


def test_only_samples_with_a_truth_are_judged(study):
    stages.make_pool(study)
    assert stages.select(study, "all")["precision"] is None
    with Pool.open(study.pool_path) as pool:
        pool.sql("ALTER TABLE samples ADD COLUMN truth VARCHAR")
        pool.sql("UPDATE samples SET truth = 'clean' WHERE text LIKE '%1'")
        pool.sql("UPDATE samples SET truth = 'mismatched' WHERE text LIKE '%2'")
    found = stages.select(study, "all")
    assert (found["precision"], found["recall"]) == (0.5, 1.0)
    assert found["kept_defects"] == {"clean": 1, "mismatched": 1}


def test_a_plug_in_gets_a_polars_frame(study, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from datacomp.filters import Decision, Filter, Scorer\n"
        "class Length(Scorer):\n"
        "    name, columns = 'letters', ('text',)\n"
        "    def identity(self): return {}\n"
        "    def score(self, batch): return batch.frame()['text'].str.len_chars().to_list()\n"
        "class Long(Filter):\n"
        "    def scorers(self): return [Length()]\n"
        "    def decide(self, view):\n"
        "        return [Decision('short', f'{view.score(Length())} > 16')]\n"
    )
    text = STUDY.replace('use = "no_filter"', 'use = "mine.py:Long"')
    (tmp_path / "datacomp.toml").write_text(text)
    photo(tmp_path, 5, "a much longer caption")
    study = load_study(tmp_path / "datacomp.toml")
    stages.make_pool(study)
    assert stages.select(study, "all")["size"] == 1


def test_images_that_are_gone_for_a_moment_are_read_on_the_next_run(tmp_path, capsys):
    text = STUDY.replace("no_filter", str(SHARPNESS)).replace("}]", ", min = 0 }]")
    (tmp_path / "photos").mkdir()
    for number in range(3):
        photo(tmp_path, number)
    (tmp_path / "datacomp.toml").write_text(text)
    study = load_study(tmp_path / "datacomp.toml")
    stages.make_pool(study)
    (tmp_path / "photos/1.png").rename(tmp_path / "1.png")
    found = stages.select(study, "all")
    assert (found["size"], found["unreadable"]) == (2, 1)
    assert "warning: 1 image cannot be read, first " in capsys.readouterr().err

    task = next(t for t in plan(study, evaluation_tasks(study)) if t.stage == "filter")
    pool = Record("x", 1.0, {"set_aside": {"image_broken": 2}})
    counts = set_aside([task], {task.key: Record("y", 1.0, found)})
    assert counts == {"filter": 1}
    train = replace(task, key="t", stage="train")
    trained = {"t": Record("z", 1.0, {"set_aside": {"broken": 3}})}
    others = [replace(task, key="p", stage="pool"), task, train]
    assert set_aside(others, {"p": pool, task.key: Record("y", 1.0, found), **trained}) == {
        "pool": 2, "filter": 1, "train": 3,
    }  # fmt: skip
    scheduler = Scheduler(tmp_path / "records", 1)
    scheduler.folder.mkdir()
    write_json(scheduler.folder / f"{task.key}.json", vars(Record("y", 1.0, found)))
    assert unread(task, scheduler)

    (tmp_path / "1.png").rename(tmp_path / "photos/1.png")
    found = stages.select(study, "all")
    assert (found["size"], found["unreadable"]) == (3, 0)
    write_json(scheduler.folder / f"{task.key}.json", vars(Record("y", 1.0, found)))
    assert not unread(task, scheduler)


def test_a_view_holds_what_built_shards_hold(tmp_path):
    """Of glyphs, some of which are copies, and of tars whose samples bring no uid."""
    rows = [("a.jpg", b"not looked at"), ("a.txt", b"a caption"),
            ("b.jpg", b"neither"), ("b.txt", b"another")]  # fmt: skip
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars/0.tar", "w") as tar:
        for name, data in rows:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    text = STUDY.replace(
        'kind = "folder"\npath = "photos"',
        'kind = "glyphs"\nsamples = 60\n\n'
        '[[pool.source]]\nkind = "webdataset"\npath = "tars"\nverify = false',
    )
    config = tmp_path / "datacomp.toml"

    def made(shards):
        config.write_text(text + f"\n[shards]\nsize = 25\n{shards}")
        study = load_study(config)
        pool = stages.make_pool(study)
        stages.select(study, "all")
        found = stages.build(study, "all")
        samples = [
            found
            for shard in find_shards(study.shards_dir("all")).shards
            for _, *found in read_shard(shard)
        ]
        assert len(samples) == found["samples"] == pool["samples"]
        return study, found, sorted(samples)

    _, built, expected = made("")
    study, view, found = made("view = true")
    assert found == expected
    assert not list(study.shards_dir("all").glob("*.tar"))
    assert (view["shards"], view["set_aside"]) == (built["shards"], {})
    # The index that a view needs lies beside the tars; the source has not changed for that.
    assert (tmp_path / "tars/index.parquet").exists()
    assert made("view = true")[1] == view
    assert made("")[1]["digest"] == built["digest"]


def test_a_source_of_tars_is_the_same_whatever_lies_beside_them(tmp_path):
    (tmp_path / "0.tar").write_bytes(b"")
    before = open_source("webdataset", tmp_path).signature()
    (tmp_path / "index.parquet").touch()
    assert open_source("webdataset", tmp_path).signature() == before
    (tmp_path / "1.tar").touch()
    assert open_source("webdataset", tmp_path).signature() != before
