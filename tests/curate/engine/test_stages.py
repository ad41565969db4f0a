"""Every stage gives the same bytes on a Ray cluster as with processes of this machine."""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.curate.embedding import embed_metadata
from datacomp.curate.engine import EngineChoice, open_engine
from datacomp.curate.fetching import FetchOptions, fetch_pool
from datacomp.curate.release import create_release
from datacomp.curate.selection import select
from datacomp.curate.shards import build_shards, check_shards, index_shards
from datacomp.curate.workflow import load_study, stages
from datacomp.distribution.release import Plan, SigningKey, verify_releases
from datacomp.errors import DataError, MissingError, RunError, UsageError
from datacomp.evaluate.harness import evaluate
from datacomp.filters.expression import parse_all
from datacomp.pools import Pool
from datacomp.pools.embedding.embed import embed_pool
from datacomp.pools.embedding.recipe import Recipe
from datacomp.pools.engine import Local
from datacomp.pools.sources import open_source
from datacomp.pools.views import View

PIECE = 16 << 10
WORDNET = Path(__file__).parents[2] / "filters" / "wordnet"
NOW = datetime(2026, 11, 20, tzinfo=UTC)


def test_index(tmp_path, write_shards, cluster, files_of):
    folder = write_shards(tmp_path / "shards")
    report = index_shards(folder, cluster)
    assert (report.shards, report.samples, report.read) == (4, 20, 4)
    found = files_of(folder)
    (folder / "index.parquet").unlink()
    (folder / "index.json").unlink()
    assert index_shards(folder, 1) == report
    assert files_of(folder) == found


def test_build_from_shards_and_from_a_pool(tmp_path, write_shards, subset, cluster, files_of):
    source = write_shards(tmp_path / "shards")
    with Pool.create(tmp_path / "pool.duckdb") as pool:
        pool.add(open_source("webdataset", source))
    for origin in (source, tmp_path / "pool.duckdb"):
        made = []
        for name, engine in (("ray", cluster), ("local", Local(2)), ("one", Local(1))):
            report = build_shards(origin, subset, tmp_path / name, shard_size=3, workers=engine)
            assert (report.samples, report.shards) == (11, 4)
            made.append(files_of(tmp_path / name))
            shutil.rmtree(tmp_path / name)
        assert made[0] == made[1] == made[2]
        assert len(made[0]) == 4 + 4 + 4  # tars, stats, and what is not a shard


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["caption_length", "clip_score:arch=l14,fraction=0.3,exact=false"], 36),
        (["exact_dedup:by=caption", "ssl_prototypes:clusters=2,fraction=0.5"], 19),
    ],
)
def test_filter(tmp_path, commonpool, cluster, files_of, words, kept):
    folder = commonpool(tmp_path / "metadata", files=3, rows=40)
    if "exact_dedup:by=caption" in words:  # those of the first file: others keep none
        texts = pq.read_table(min(folder.glob("*.parquet")))["text"]
        for file in folder.glob("*.parquet"):
            table = pq.read_table(file)
            pq.write_table(table.set_column(2, "text", texts), file)
    filters = parse_all(words).filters
    made = []
    for name, engine in (("ray", cluster), ("local", Local(1)), ("whole", None)):
        (tmp_path / name).mkdir()
        out = tmp_path / name / "subset.npy"
        with Pool.open(folder) as pool:
            found = select(pool, filters, out, "then", out.with_suffix(".parquet"), engine)
        assert found.selection.kept == kept
        made.append(files_of(tmp_path / name))
    assert made[0] == made[1] == made[2]
    assert list(made[0]) == ["subset.json", "subset.npy", "subset.parquet"]


EVEN = """
from datacomp.filters import Decision, Filter, Scorer

class Bytes(Scorer):
    name = "bytes"
    type = "INTEGER"
    images = True
    batch_size = 1

    def identity(self):
        return {}

    def score(self, batch):
        if any(text == BAD for text in batch.columns["text"].to_pylist()):
            raise ValueError("what a caption")
        return [sum(image) for image in batch.images]

    columns = ("text",)

BAD = "none"

class Even(Filter):
    "Keep images whose bytes have an even sum."

    def scorers(self):
        return [Bytes()]

    def decide(self, view):
        return [Decision("odd", f"{view.score(Bytes())} % 2 = 0")]
"""


def test_images_of_a_pool_are_scored_by_the_workers(tmp_path, write_shards, tiny, cluster):
    """Models, the hashes of a set-level filter, and a filter of one's own: in several parts."""
    (tmp_path / "own.py").write_text(EVEN)
    with Pool.create(tmp_path / "pool.duckdb") as pool:
        pool.add(open_source("webdataset", write_shards(tmp_path / "shards")))
    model = tiny(0)
    given = f"checkpoint={model.checkpoint},model=tiny,model_config_file={model.model_config}"
    words = [
        f"clip_score:{given},device=cpu,fraction=0.8", "and", "near_images", "and",
        f"{tmp_path}/own.py:Even",
    ]  # fmt: skip
    filters = parse_all(words).filters
    made = []
    for name, engine in (("ray", cluster), ("local", Local(2)), ("none", None)):
        shutil.copy(tmp_path / "pool.duckdb", tmp_path / f"{name}.duckdb")
        out = tmp_path / f"{name}.npy"
        with Pool.open(tmp_path / f"{name}.duckdb") as pool:
            found = select(pool, filters, out, reasons=tmp_path / f"{name}.parquet", engine=engine)
            tables = pool.sql("SELECT name, values_table FROM scores ORDER BY name").fetchall()
            values = [
                (score, pool.sql(f"FROM {table} ORDER BY uid").fetchall())
                for score, table in tables
            ]
        assert [score for score, _ in values] == [
            "bytes", "clip_score", "first_of_near_images", "perceptual_hash"
        ]  # fmt: skip
        assert [len(rows) for _, rows in values] == [17, 20, 20, 20]
        assert 0 < found.selection.kept < 17
        reasons = (tmp_path / f"{name}.parquet").read_bytes()
        made.append((out.read_bytes(), out.with_suffix(".json").read_bytes(), reasons, values))
    assert made[0] == made[1] == made[2]


def test_a_scorer_that_fails_in_a_worker_is_named(tmp_path, write_shards, cluster):
    (tmp_path / "own.py").write_text(EVEN.replace('BAD = "none"', 'BAD = "caption 7"'))
    with Pool.create(tmp_path / "pool.duckdb") as pool:
        pool.add(open_source("webdataset", write_shards(tmp_path / "shards")))
        filters = parse_all([f"{tmp_path}/own.py:Even"]).filters
        told = []
        for engine in (cluster, None):
            with pytest.raises(RunError) as caught:
                select(pool, filters, tmp_path / "s.npy", engine=engine)
            told.append(str(caught.value))
    assert told[0] == told[1]
    assert "own.py:15: ValueError: what a caption" in told[0]
    assert not (tmp_path / "s.npy").exists()


def test_workers_are_refused_where_none_of_a_pools_images_are_read(tmp_path, pool_of):
    with pytest.raises(UsageError, match="no filter reads images; leave --workers"):
        select(pool_of(text=["a"]), parse_all(["no_filter"]).filters, tmp_path / "s.npy",
               engine=Local(2))  # fmt: skip


OWN = """
from datacomp.filters import Decision, Filter, Scorer

class Long(Scorer):
    name = "long"
    columns = ("text",)
    def identity(self): return {"v": 1}
    def score(self, batch): return [len(text) for text in batch.columns["text"].to_pylist()]

class Mine(Filter):
    "Keep the longer half of the captions, and of the same ones one."
    set_level = True
    def scorers(self): return [Long()]
    def decide(self, view):
        score = view.score(Long())
        limit = view.nth(score, view.count() // 2)
        return [Decision("short", f"{score} >= {limit}"), Decision("again", view.first("text"))]
"""


@pytest.fixture
def varied(tmp_path, commonpool):
    """Metadata whose captions share words, with features that lie apart; beside it a filter."""
    home = tmp_path / "varied"
    numbers = np.random.default_rng(3)
    words = ["a", "the", "dog", "cats", "of", "brown", "house", "green", "beach", "wine"]
    folder = commonpool(home / "metadata", files=3, rows=40)
    for file in sorted(folder.glob("*.parquet")):
        table = pq.read_table(file)
        texts = [" ".join(numbers.choice(words, numbers.integers(2, 6))) for _ in range(40)]
        pq.write_table(table.set_column(2, "text", [texts]), file)
        features = {n: numbers.normal(size=(40, 12)).astype("f2") for n in ("l14_img", "l14_txt")}
        np.savez(file.with_suffix(".npz"), **features)
    np.save(home / "seeds.npy", numbers.normal(size=(5, 12)).astype("f4"))
    (home / "own.py").write_text(OWN)
    shutil.copytree(WORDNET, home / "wordnet")
    (home / "synsets.txt").write_text("n02084071\nn02121620\nn03544360\n")  # dog, cat, house
    return home


def selected(folder, words, out, engine):
    """Run filters; return what was written."""
    out.mkdir()
    with Pool.open(folder) as pool:
        group = parse_all(words)
        select(pool, group.filters, out / "subset.npy", group.combine, out / "r.parquet", engine)
    return [(out / name).read_bytes() for name in ("subset.npy", "subset.json", "r.parquet")]


@pytest.mark.parametrize(
    "words",
    [
        "semdedup:clusters=4,epsilon=0.3",
        "vas_d:fraction=0.5,rounds=3",
        "near_captions:threshold=0.5,letters=3",
        "hierarchical:clusters=6/2,fraction=0.5",
        "wfpp:fraction=0.5,t=0.01",
        "neg_clip_loss:batch_size=30,repeats=2,fraction=0.5",
        "seeds:target_embeddings={home}/seeds.npy,neighbours=9",
        "soft_cap:column=clip_b32_similarity_score,size=90,batch=9,penalty=0.5",
        "text_sampling:wordnet={home}/wordnet,imagenet21k_synsets={home}/synsets.txt,size=110",
        "{home}/own.py:Mine",
    ],
)
def test_filters_in_several_rounds(tmp_path, varied, cluster, words):
    words = [words.format(home=varied)]
    folder = varied / "metadata"
    here = selected(folder, words, tmp_path / "whole", None)
    assert selected(folder, words, tmp_path / "ray", cluster) == here
    assert 128 < len(here[0]) < 128 + 120 * 16  # some, and not all


def test_a_filter_goes_on_when_a_worker_is_killed(tmp_path, varied, cluster):
    words = ["vas_d:fraction=0.5,rounds=4"]
    killed, done = [], threading.Event()

    def kill():
        """Kill who is at the task whose repetition goes on from what the last one wrote."""
        while not killed and not done.wait(0.001):
            for pid, name in workers():
                if name == "ray::_drop" and not killed:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        made = selected(varied / "metadata", words, tmp_path / "ray", cluster)
    finally:
        done.set()
        thread.join()
    assert killed
    assert made == selected(varied / "metadata", words, tmp_path / "whole", None)


def workers():
    """Yield the processes below this one: their ids, and what Ray calls them."""
    waiting = [os.getpid()]
    while waiting:
        pid = waiting.pop()
        with contextlib.suppress(OSError, IndexError):
            yield pid, Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())


def test_fetch(tmp_path, server, picture, pool_of, cluster, files_of):
    """img2dataset's own distributor, and no more connections than a host may have."""
    server.files = {f"/{n}.jpg": (picture(n, "JPEG"), "tag") for n in range(5)}
    pool_of(url=[f"{server.url}/{n}.jpg" for n in range(6)]).close()
    answer, open_now, most = server.do_GET, [], []

    def counted(handler):
        open_now.append(handler)
        most.append(len(open_now))
        time.sleep(0.2)
        open_now.remove(handler)
        answer(handler)

    server.do_GET = counted
    made = []
    # On the cluster a host may have fewer connections than there are workers.
    for name, engine, per_host in (("ray", cluster, 1), ("local", "local", 2)):
        pool = shutil.copy(tmp_path / "pool.duckdb", tmp_path / f"{name}.duckdb")
        options = FetchOptions(
            boxes=None, per_shard=2, allow_private=True, processes=2, threads=2, per_host=per_host
        )
        report = fetch_pool(pool, tmp_path / name, options, engine)
        assert (report.fetched, report.failed, report.shards) == (5, {"http_404": 1}, 3)
        assert max(most) <= per_host
        most.clear()
        found = files_of(tmp_path / name)
        assert found.pop("index.json")  # knows when its shards were written
        made.append({path: data for path, data in found.items() if path != ".lock"})
    assert made[0] == made[1]
    assert sum(path.endswith(".tar") for path in made[0]) == 3


def test_fetch_of_a_folder_of_metadata(tmp_path, server, picture, cluster, files_of, monkeypatch):
    """Files are listed by the workers; some at a time."""
    monkeypatch.setattr("datacomp.curate.fetching.partwise.WAVE", 1)
    server.files = {f"/{n}.jpg": (picture(n, "JPEG"), "tag") for n in range(9)}
    urls = [f"{server.url}/{n}.jpg" for n in range(10)]
    folder = tmp_path / "metadata"
    folder.mkdir()
    for part in range(3):
        rows = range(part, 10, 3)
        columns = {"uid": [f"{n:032x}" for n in rows], "url": [urls[n] for n in rows]}
        pq.write_table(pa.table(columns), folder / f"{part}.parquet")
    made = []
    for name, engine in (("ray", cluster), ("local", Local(2))):
        options = FetchOptions(boxes=None, per_shard=2, allow_private=True, threads=2)
        report = fetch_pool(folder, tmp_path / name, options, engine)
        assert (report.fetched, report.failed, report.shards) == (9, {"http_404": 1}, 6)
        found = files_of(tmp_path / name)
        kept = {path: pq.read_table(tmp_path / name / path).drop_columns("updated")
                for path in found if path.startswith("outcomes/")}  # fmt: skip
        assert len(kept) == 3
        others = found.keys() - kept.keys() - {".lock", "index.json"}
        made.append((kept, {path: found[path] for path in others}))
    assert made[0] == made[1]


def test_a_worker_that_dies_while_it_fetches_is_one_line(
    tmp_path, server, pool_of, cluster, monkeypatch
):
    class Dying:
        def __init__(self, job):
            pass

        def __call__(self, row):
            os._exit(1)

    monkeypatch.setattr("datacomp.curate.fetching.spread.Reporting", Dying)
    pool_of(url=[f"{server.url}/0.jpg"]).close()
    options = FetchOptions(boxes=None, allow_private=True)
    with pytest.raises(RunError) as caught:
        fetch_pool(tmp_path / "pool.duckdb", tmp_path / "out", options, cluster)
    told = str(caught.value)
    assert told.startswith("the worker of a partition died whenever it was tried (")
    assert told.endswith("); run the same command again to go on")
    assert "\n" not in told


def test_check(tmp_path, write_shards, cluster):
    folder = write_shards(tmp_path / "shards")
    data = bytearray((folder / "00000002.tar").read_bytes())
    data[600:700] = bytes(100)
    (folder / "00000002.tar").write_bytes(data)
    found = check_shards(folder, cluster)
    assert [problem.kind for problem in found.problems] == ["image_broken"]
    assert found == check_shards(folder, 1)


def test_release(tmp_path, write_shards, cluster, files_of):
    made = []
    # Padded shards are linked, others are copied with padding by the worker that hashes them.
    for pad in (PIECE, 512):
        for name, engine in (("ray", cluster), ("local", Local(2))):
            home = tmp_path / f"{name}{pad}"
            data = write_shards(home / "data", pad)
            plan = Plan("cats", "1", "2026-11-20", piece_length=PIECE, workers=engine)
            key = SigningKey.from_seed(bytes(32))
            report = create_release(data, home / "releases", plan, key, now=NOW)
            assert report.read == 9  # tars, stats and the index
            published = files_of(home / "releases")
            made.append({p: data for p, data in published.items() if not p.startswith(".state")})
            report = verify_releases(home / "releases", deep=True, workers=engine)
            assert report.faults == []
    assert made[0] == made[1]
    assert made[2] == made[3]
    assert sum(path.endswith(".tar") for path in made[0]) == 4
    (tmp_path / "ray512/releases/versions/1/cats/00000001.tar").write_bytes(b"other")
    faults = verify_releases(tmp_path / "ray512/releases", workers=cluster).faults
    assert [(fault.path, fault.kind) for fault in faults] == [("00000001.tar", "size")]


def test_embed(tmp_path, write_shards, tiny, cluster, files_of, monkeypatch):
    monkeypatch.setattr("datacomp.pools.embedding.embed.PART", 4)
    source = write_shards(tmp_path / "shards")
    with Pool.create(tmp_path / "pool.duckdb") as pool:
        pool.add(open_source("webdataset", source))
    made = []
    for name, engine in (("ray", cluster), ("local", None), ("shards", cluster)):
        shutil.copy(tmp_path / "pool.duckdb", tmp_path / f"{name}.duckdb")
        shards = source if name == "shards" else None
        with Pool.open(tmp_path / f"{name}.duckdb") as pool:
            report = embed_pool(
                pool, Recipe(tiny(0)), "b", device="cpu", batch_size=2, engine=engine, shards=shards
            )
            assert (report.embedded, report.set_aside) == (20, {})
            rows = pool.sql("FROM feature_rows_1 ORDER BY uid").fetchall()
            table = pool.scalar("SELECT values_table FROM scores WHERE name = 'clip_score'")
            scores = pool.sql(f"FROM {table} ORDER BY uid").fetchall()
        made.append((files_of(tmp_path / f"{name}.duckdb.features"), rows, scores))
    assert made[0] == made[1]
    assert made[0] == made[2]
    assert len(made[0][0]) == 5 * 2
    # The model is loaded by workers alone: a head may have no GPU.
    monkeypatch.setattr(Recipe, "load", None)
    shutil.copy(tmp_path / "pool.duckdb", tmp_path / "tome.duckdb")
    with Pool.open(tmp_path / "tome.duckdb") as pool:
        recipe = Recipe(tiny(0), tome=1)
        report = embed_pool(pool, recipe, "t", device="cpu", batch_size=2, engine=cluster)
    assert (report.embedded, report.drift.samples) == (20, 20)
    with Pool.open(tmp_path / "ray.duckdb") as pool:
        again = embed_pool(pool, Recipe(tiny(0)), "b", device="cpu", engine=cluster)
    assert (again.embedded, again.known) == (0, 20)


def test_embed_of_a_folder_of_metadata(tmp_path, write_shards, tiny, cluster, files_of):
    source = write_shards(tmp_path / "shards")
    folder = tmp_path / "metadata"
    folder.mkdir()
    for part in range(3):
        rows = range(part, 22, 3)
        columns = {
            "uid": [hashlib.sha256(b"%d" % n).hexdigest()[:32] for n in rows],
            "text": [f"caption {n}" for n in rows],
        }
        pq.write_table(pa.table(columns), folder / f"{part}.parquet")
    made = []
    for name, engine in (("ray", cluster), ("local", None)):
        report = embed_metadata(
            folder, tmp_path / name, source, Recipe(tiny(0)), "b", device="cpu", batch_size=2,
            engine=engine,
        )  # fmt: skip
        assert (report.embedded, report.set_aside, report.without_image) == (20, {}, 2)
        made.append(files_of(tmp_path / name))
    assert made[0] == made[1]
    assert len(made[0]) == 3 * 2


def test_a_study_embeds_on_its_cluster(
    tmp_path, write_shards, tiny_run, cluster, files_of, monkeypatch
):
    source = write_shards(tmp_path / "shards")
    made = []
    for name, engine in (("local", ""), ("ray", '[engine]\nkind = "ray"\n')):
        home = tmp_path / name
        home.mkdir()
        (home / "datacomp.toml").write_text(
            f'{engine}[[pool.source]]\nkind = "webdataset"\npath = "{source}"\n'
            '[[dataset]]\nname = "all"\nfilters = [{ use = "no_filter" }]\n'
            '[[dataset]]\nname = "near"\n'
            'filters = [{ use = "clip_score", features = "run:all", fraction = 0.3 }]\n'
            '[study]\noutput = "out"\n[evaluate]\nsuite = "demo"\n'
        )
        study = load_study(home / "datacomp.toml")
        if engine:  # here nothing is embedded
            study = study.at(cluster.address)
            monkeypatch.delattr("datacomp.pools.embedding.embedder.Embedder.embedded")
        tiny_run(study.run_dir("all", 0))
        stages.make_pool(study)
        stages.select(study, "near")
        features = files_of(home / "out" / "pool.duckdb.features")
        made.append((features, study.subset_path("near").read_bytes()))
    assert made[0] == made[1]
    assert made[0][0]


def test_evaluate(tmp_path, evalsets, tiny, cluster):
    data, tasks = evalsets
    options = {"device": "cpu", "batch_size": 4}
    written = []
    for name, engine in (("ray", cluster), ("local", Local(1)), ("none", None)):
        output = tmp_path / f"{name}.jsonl"
        found = evaluate(tiny(0), data, tasks, output, engine=engine, **options)
        assert found.failed == {}
        assert [result.key for result in found.results] == ["colours", "shapes"]
        written.append(output.read_bytes())
    assert written[0] == written[1] == written[2]
    again = evaluate(tiny(0), data, tasks, tmp_path / "ray.jsonl", engine=cluster, **options)
    assert again.skipped == ["colours", "shapes"]


def test_all_that_workers_read_of_a_model_is_reached(tmp_path, evalsets, tiny):
    class Asked(Local):
        def reach(self, *places):
            self.places = {str(place) for place in places}

    data, tasks = evalsets
    engine = Asked(1)
    evaluate(tiny(0), data, tasks, tmp_path / "r.jsonl", engine=engine, device="cpu")
    assert engine.places == {str(data), str(tiny(0).checkpoint), str(tiny(0).model_config)}


def test_a_broken_task_is_named_and_the_others_are_measured(tmp_path, evalsets, tiny, cluster):
    data, tasks = evalsets
    evaluate(tiny(0), data, tasks, tmp_path / "first.jsonl", device="cpu")  # records digests
    (data / "wds_colours_test" / "classnames.txt").write_text("red")
    found = evaluate(tiny(0), data, tasks, tmp_path / "r.jsonl", engine=cluster, device="cpu")
    assert list(found.failed) == ["colours"]
    assert [result.key for result in found.results] == ["shapes"]


# -- the map itself --------------------------------------------------------------------------


def test_results_come_in_order_and_partitions_are_drawn_only_a_little_ahead(cluster):
    drawn = []
    partitions = (drawn.append(n) or n for n in range(40))
    results = cluster.map(abs, partitions)
    assert next(results) == 0
    assert len(drawn) <= 4
    assert list(results) == list(range(1, 40))
    assert list(cluster.map(abs, [])) == []


def test_workers_stand_where_the_driver_stands_and_have_their_share_of_memory(cluster, tmp_path):
    with contextlib.chdir(tmp_path):
        assert list(cluster.map(os.path.abspath, ["x"])) == [str(tmp_path / "x")]
    (share,) = cluster.map(os.getenv, ["DATACOMP_MEMORY"])
    assert re.fullmatch(r"[1-9]\d+KB", share)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert int(share[:-2]) * 1000 <= max(0.7 * machine / 2, 256 << 20)


@pytest.mark.parametrize(
    ("option", "variable", "limit"),
    [("300MB", "200MB", "300000KB"), ("30%", None, "30%"), (None, "200MB", "200000KB")],
)
def test_the_memory_of_a_worker_is_an_option_or_the_environment(
    cluster, monkeypatch, option, variable, limit
):
    if variable:
        monkeypatch.setenv("DATACOMP_MEMORY", variable)
    with open_engine(EngineChoice.parse("ray", memory=option)) as engine:  # joins the cluster
        assert list(engine.map(os.getenv, ["DATACOMP_MEMORY"])) == [limit]


def test_more_memory_than_any_machine_has_is_one_line(cluster, command, tmp_path):
    code, _, told = command("shards", "index", tmp_path, "--engine", "ray", "--memory", "10TB")
    assert (code, len(told.splitlines())) == (2, 1)
    assert told.startswith("error: each worker would have 10,000.0 GB of memory, but ")


def test_an_error_in_a_worker_is_the_error_it_was(cluster):
    with pytest.raises(MissingError) as caught:
        list(cluster.map(View.open, ["/nowhere"]))
    assert str(caught.value) == ("/nowhere: no such view; make one with 'datacomp shards select'")
    assert caught.value.exit_code == 1
    with pytest.raises(ValueError, match="invalid literal"):
        list(cluster.map(int, ["1", "x"]))


def test_a_broken_shard_is_told_as_without_a_cluster(tmp_path, write_shards, cluster):
    folder = write_shards(tmp_path / "shards")
    (folder / "00000001.tar").write_bytes(b"x" * 700)
    told = []
    for engine in (cluster, Local(1)):
        with pytest.raises(DataError) as caught:
            index_shards(folder, engine)
        told.append(str(caught.value))
    assert told[0] == told[1]


def test_what_workers_lack_is_told_by_name(cluster):
    with pytest.raises(MissingError) as caught:
        cluster.require("train", "torch", "no_such_module")
    (name,) = cluster.nodes.values()
    assert str(caught.value) == (f"{name} lacks no_such_module; install 'datacomp[train]' there")


def test_work_of_another_version_is_refused(cluster, monkeypatch):
    monkeypatch.setattr("datacomp.curate.engine.work.__version__", "0.0.9")
    with pytest.raises(RunError, match=r"has datacomp .*, but the work is of 0\.0\.9; install"):
        list(cluster.map(abs, [1]))
