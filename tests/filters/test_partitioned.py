"""A pool judged file by file gives what it gives as a whole, to the byte."""

import contextlib
import os
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.curate.selection import select
from datacomp.errors import DataError, MissingError, RunError, UsageError
from datacomp.filters import answers, apart, nearest, partitioned, together
from datacomp.filters.answers import Bounds, Question, Steps, share_of
from datacomp.filters.behind import digests_of, files_behind
from datacomp.filters.captions import metaclip
from datacomp.filters.clusters import spread
from datacomp.filters.draws import batches, spread_batches
from datacomp.filters.expression import parse_all, prepare
from datacomp.filters.narrowing import most_told, settle
from datacomp.filters.pixels import near_images
from datacomp.filters.similarity import neg_clip_loss
from datacomp.pools import Pool
from datacomp.pools.engine import Engine, Local
from datacomp.pools.partitions import open_partition, partitions_of
from datacomp.pools.sources import open_source
from hypothesis import given, settings
from hypothesis import strategies as st

CASES = {
    "fraction": ("and", "clip_score:arch=l14,fraction=0.3"),
    "exactly": ("and", "clip_score:arch=b32,fraction=0.4,exact=false"),
    "threshold": ("and", "clip_score:arch=l14,threshold=0.28"),
    "random": ("and", "random_subset:fraction=0.37,seed=3"),
    "basic": ("and", "basic_filter"),
    "everything": ("and", "no_filter"),
    "or": ("or", "language", "clip_score:arch=b32,fraction=0.2"),
    "minus": ("minus", "no_filter", "clip_score:arch=b32,fraction=0.2"),
    "not": ("and", "not", "caption_length"),
    "then": ("then", "basic_filter", "clip_score:arch=b32,fraction=0.5"),
    "groups": (
        None,
        *["basic_filter", "or", "(", "language", "then", "clip_score:arch=b32,fraction=0.3", ")"],
    ),
    "duplicates": ("and", "exact_dedup:by=caption"),
    "clusters": ("and", "semdedup:clusters=4,epsilon=0.3"),
    "part of clusters": ("and", "semdedup:fraction=0.5,keep=random"),
    "clusters then": ("then", "caption_length", "semdedup:clusters=5,epsilon=0.2,keep=easy"),
    "prototypes": ("and", "ssl_prototypes:clusters=6,fraction=0.4"),
    "density": ("and", "density:clusters=7,fraction=0.4"),
    "representatives": ("and", "facility_location:fraction=0.3"),
    "d4": ("and", "d4:clusters=5", "language"),
    "tree of clusters": ("and", "hierarchical:clusters=9/3,fraction=0.4"),
    "tree, nearest": ("then", "language", "hierarchical:clusters=12/5/2,fraction=0.3,draw=closest"),
    "draws from clusters": ("and", "cluster_sampling:clusters=4,alpha=0.3"),
    "many draws": ("and", "cluster_sampling:clusters=6,size=5000,most=20", "language"),
    "batches": ("and", "soft_cap:column=clip_b32_similarity_score"),
    "batches then": ("then", "language", "soft_cap:column=original_width,size=2000,penalty=300"),
    "one again and again": ("and", "soft_cap:column=original_width,size=2000,penalty=0,batch=1"),
    "captions alike": ("and", "near_captions:threshold=0.5"),
    "captions alike then": ("then", "basic_filter", "near_captions:threshold=0.3,letters=3"),
    "rare words": ("and", "wfpp:fraction=0.4,t=0.001"),
    "the same of two sets": (
        None,
        *["semdedup:clusters=4,epsilon=0.3", "and", "(", "language", "then"],
        *["semdedup:clusters=4,epsilon=0.3", ")"],
    ),
    "variance": ("and", "vas_d:fraction=0.4,rounds=7"),
    "variance then": ("then", "language", "vas_d:fraction=0.5,rounds=3"),
    "duplicates then": (
        "then",
        "caption_length",
        "exact_dedup:by=caption",
        "clip_score:arch=b32,fraction=0.5",
    ),
    "duplicates or": ("or", "not", "exact_dedup:by=both", "clip_score:arch=b32,fraction=0.2"),
    "duplicates and": ("and", "exact_dedup:by=image", "exact_dedup:by=caption", "language"),
}


class Twice(Engine):
    """Works as a cluster may where machines die, or are taken for dead.

    Tasks travel and are done twice, in another order; and some are done once more when all have
    gone on: nobody hears of these, but they must do no harm.
    """

    distributed, workers = True, 2

    def __init__(self):
        self.maps = self.late = 0
        self._waiting = []

    def map(self, function, partitions, **hints):
        sent = [pickle.dumps((function, partition)) for partition in partitions]
        order = range(len(sent))[:: -1 if self.maps % 2 else 1]
        found = {n: self._run(sent[n]) for n in order}
        for n in order[::-1]:
            # What writes nothing but scores is done twice for one file alone: it takes time.
            if not self._only_asked(found[n]) or n == self.maps % len(sent):
                assert self._run(sent[n]) == found[n]
        for task in self._waiting:
            self.late += 1
            with contextlib.suppress(Exception):
                self._run(task)
        self.maps += 1
        late = self.maps % len(sent)
        self._waiting = [] if self._only_asked(found[late]) else [sent[late]]
        return iter([pickle.loads(pickle.dumps(found[n])) for n in range(len(sent))])

    @staticmethod
    def _only_asked(reply):
        return isinstance(reply, apart.Asked) and isinstance(reply.question, Question)

    @staticmethod
    def _run(task):
        function, partition = pickle.loads(task)
        found = function(partition)
        if isinstance(found, apart.Judged):  # but for how long it took
            return replace(found, scoring={}, scoring_now=0.0)
        return found


@pytest.fixture
def twice(monkeypatch):
    """Return an engine that does every task twice; what was done already is no help to it."""
    monkeypatch.setattr(answers, "share_once", lambda place, joint, share: share())
    monkeypatch.setattr(apart, "_done", lambda *_: None)
    return Twice()


@pytest.fixture
def judge(metadata, tmp_path):
    """Run filters over a folder; return what was written, and the selection."""

    def judge(engine, combine, *filters, folder=metadata):
        out, reasons = tmp_path / "out.npy", tmp_path / "reasons.parquet"
        with Pool.open(folder) as pool:
            group = parse_all(filters, combine)
            selected = select(pool, group.filters, out, group.combine, reasons, engine)
        assert sorted(p.name for p in tmp_path.glob("*out*")) == ["out.json", "out.npy"]
        chosen = selected.selection
        written = [p.read_bytes() for p in (out, out.with_suffix(".json"), reasons)]
        return written, chosen.funnel(), np.array(chosen.uids).tolist(), chosen.scores

    return judge


@pytest.mark.parametrize("case", CASES)
def test_partitions_give_what_the_whole_gives(judge, case, twice, monkeypatch):
    whole = judge(None, *CASES[case])
    monkeypatch.setattr(partitioned, "judge_whole", None)
    assert judge(twice, *CASES[case]) == whole
    assert len(whole[2]) > 20
    assert twice.late > 0


@pytest.mark.parametrize("t", [30, 10**6])
def test_captions_are_balanced_over_all_files(judge, tmp_path, t, twice):
    words = tmp_path / "words.txt"
    words.write_text("dog\nbrown dog\nthe\na\nbeach\nnowhere\nwine")
    case = ("and", f"metaclip:entries_file={words},t={t}")
    whole = judge(None, *case)
    assert judge(twice if t == 30 else Local(1), *case) == whole
    assert 20 < len(whole[2]) < 800


@pytest.mark.parametrize("neighbours", [1, 40, 1000])
def test_seeds_find_their_neighbours_in_all_files(judge, baseline_assets, neighbours, twice):
    seeds = baseline_assets["target_embeddings"]
    case = ("then", "caption_length", f"seeds:target_embeddings={seeds},neighbours={neighbours}")
    whole = judge(None, *case)
    assert judge(twice if neighbours == 40 else Local(1), *case) == whole
    assert len(whole[2]) > 0


@pytest.mark.parametrize(
    "words", ["batch_size=70,repeats=3", "fraction=0.2", "batch_size=3,repeats=2"]
)
def test_batches_are_drawn_from_all_files(judge, metadata, tmp_path, words, twice, monkeypatch):
    monkeypatch.setattr(neg_clip_loss, "_AT_ONCE", 2)
    folder = tmp_path / "metadata"
    shutil.copytree(metadata, folder)
    for file in folder.glob("*.npz"):
        images = np.load(file)["l14_img"]
        np.savez(file, l14_img=images, l14_txt=np.roll(images, 1, axis=0) + images)
    case = ("and", f"neg_clip_loss:device=cpu,{words}")
    whole = judge(None, *case, folder=folder)
    engine = twice if "repeats=3" in words else Local(1)
    assert judge(engine, *case, folder=folder) == whole
    assert len(whole[2]) > 20


@pytest.mark.parametrize(
    "words",
    ["vas_d:fraction=0.4,rounds=2", "neg_clip_loss:batch_size=90,repeats=1,device=cpu",
     "semdedup:clusters=3,epsilon=0.3"],
)  # fmt: skip
def test_a_file_without_features_is_left_out(judge, metadata, tmp_path, words):
    folder = tmp_path / "metadata"
    shutil.copytree(metadata, folder)
    for file in folder.glob("*.npz"):
        images = np.load(file)["l14_img"]
        np.savez(file, l14_img=images, l14_txt=np.roll(images, 1, axis=0))
    min(folder.glob("*.npz")).unlink()
    case = ("and", words)
    assert judge(Local(1), *case, folder=folder) == judge(None, *case, folder=folder)


def test_image_and_caption_of_other_models_are_told_in_one_line(judge, metadata, tmp_path):
    folder = tmp_path / "metadata"
    shutil.copytree(metadata, folder)
    for file in folder.glob("*.npz"):
        images = np.load(file)["l14_img"]
        np.savez(file, l14_img=images, l14_txt=images[:, 1:])
    for engine in (None, Local(1)):
        with pytest.raises(DataError) as caught:
            judge(engine, "and", "neg_clip_loss:device=cpu", folder=folder)
        assert str(caught.value) == (
            "neg_clip_loss: the features l14_img have 8 numbers each, but l14_txt have 7: they are "
            "of different models and cannot be compared"
        )


def test_images_alike_are_joined_over_all_files(judge, twice, monkeypatch):
    """Hashes that are made up: many equal ones, many a bit or two apart."""
    monkeypatch.setattr(near_images.PerceptualHash, "images", False)
    monkeypatch.setattr(near_images.PerceptualHash, "columns", ("uid",))
    monkeypatch.setattr(
        near_images.PerceptualHash, "score",
        lambda _, batch: pa.array([
            (1 << int(uid[-2:], 16) % 60) * (int(uid[-4], 16) % 7) + (int(uid[-3], 16) << 4)
            for uid in batch.columns["uid"].to_pylist()
        ], pa.uint64()),
    )  # fmt: skip
    for distance, engine in ((0, Local(1)), (5, twice)):
        case = ("and", f"near_images:distance={distance}")
        whole = judge(None, *case)
        assert judge(engine, *case) == whole


def test_copies_of_rows_in_several_files_leave_one(judge, metadata, tmp_path):
    """Also where a uid has two captions, and where files are all alike."""
    folder = tmp_path / "metadata"
    folder.mkdir()
    table = pq.read_table(min(metadata.glob("*.parquet"))).slice(0, 60)
    other = table.set_column(table.schema.names.index("text"), "text", [["x", "y", "z"] * 20])
    for name, part in {"a": table, "b": other, "c": table, "d": other.slice(7)}.items():
        pq.write_table(part, folder / f"{name}.parquet")
    pq.write_table(pa.concat_tables([table.slice(50), other]), folder / "e.parquet")
    for by in ("image", "caption", "both"):
        whole = judge(None, "and", f"exact_dedup:by={by}", folder=folder)
        assert judge(Local(1), "and", f"exact_dedup:by={by}", folder=folder)[1:] == whole[1:]


def test_captions_that_are_all_different_stay(judge, metadata, tmp_path):
    folder = tmp_path / "metadata"
    folder.mkdir()
    for number, file in enumerate(sorted(metadata.glob("*.parquet"))):
        table = pq.read_table(file).slice(0, 5)
        place = table.schema.names.index("text")
        texts = [f"{chr(97 + number * 5 + row)}" * 20 for row in range(5)]
        pq.write_table(table.set_column(place, "text", [texts]), folder / file.name)
    whole = judge(None, "and", "near_captions", folder=folder)
    assert judge(Local(1), "and", "near_captions", folder=folder) == whole
    assert len(whole[2]) == 15


@pytest.mark.parametrize(
    ("words", "engine"), [("size=5000,most=60", "twice"), ("alpha=0,over=largest", "one")]
)
def test_captions_are_drawn_from_all_files(judge, baseline_assets, words, engine, twice):
    assets = ",".join(f"{n}={baseline_assets[n]}" for n in ("wordnet", "imagenet21k_synsets"))
    case = ("then", "caption_length", f"text_sampling:{words},{assets}")
    whole = judge(None, *case)
    assert judge(twice if engine == "twice" else Local(1), *case) == whole
    assert len(set(whole[2])) > 20


def test_captions_that_name_nothing_are_never_drawn(judge, metadata, baseline_assets, tmp_path):
    """Those of a whole file, and of all."""
    folder = tmp_path / "metadata"
    shutil.copytree(metadata, folder)
    assets = ",".join(f"{n}={baseline_assets[n]}" for n in ("wordnet", "imagenet21k_synsets"))
    case = ("and", f"text_sampling:alpha=0,{assets}")
    first, *rest = sorted(folder.glob("*.parquet"))

    def silence(file):
        table = pq.read_table(file)
        place = table.schema.names.index("text")
        pq.write_table(table.set_column(place, "text", [["nothing of it"] * len(table)]), file)

    silence(first)
    whole = judge(None, *case, folder=folder)
    assert judge(Local(1), *case, folder=folder) == whole
    assert len(whole[2]) > 20
    for file in rest:
        silence(file)
    for engine in (None, Local(1)):
        with pytest.raises(DataError, match="the filters keep no sample"):
            judge(engine, *case, folder=folder)


@pytest.fixture
def short_stretches(monkeypatch):
    """Let stretches be short; return how many candidates are replayed in each."""
    seen = []

    def noted(index, found, *about):
        seen.append(len(found))
        return replay(index, found, *about)

    replay = spread_batches.replay
    monkeypatch.setattr(batches, "AT_ONCE", 400)
    monkeypatch.setattr(spread_batches, "replay", noted)
    return seen


BATCHES = ("and", "soft_cap:column=clip_b32_similarity_score,size=3000,batch=40,penalty=0.4")


def test_batches_are_replayed_on_few_candidates_at_a_time(judge, twice, short_stretches):
    whole = judge(None, *BATCHES)
    for engine in (twice, Local(1)):
        assert judge(engine, *BATCHES) == whole
    assert len(short_stretches) > 20
    assert max(short_stretches) < 600


def test_batches_go_on_where_they_broke_off(judge, metadata, short_stretches):
    """At the stretch after the last that was drawn; and those in the middle of one."""

    class Breaks(Local):
        def __init__(self, name, times):
            super().__init__(1)
            self.name, self.times = name, times

        def map(self, function, partitions, **hints):
            if function.__name__ == self.name:
                self.times -= 1
                if self.times < 0:
                    raise RunError("the machine went away")
            return super().map(function, partitions, **hints)

    whole = judge(None, *BATCHES)
    judge(Local(1), *BATCHES)
    every = list(short_stretches)
    short_stretches.clear()
    for name, times in (("_replay", 5), ("_offer", 3), ("_replay", 1)):
        with pytest.raises(RunError, match="the machine went away"):
            judge(Breaks(name, times), *BATCHES)
    assert len(short_stretches) == 5 + 3 + 1 < len(every)
    assert judge(Local(1), *BATCHES) == whole
    assert short_stretches == every


def test_samples_without_a_score_are_never_drawn(judge, metadata, tmp_path):
    """Those of a whole file, and of all."""
    folder = tmp_path / "metadata"
    shutil.copytree(metadata, folder)
    name = "clip_b32_similarity_score"
    first, *rest = sorted(folder.glob("*.parquet"))

    def forget(file):
        table = pq.read_table(file)
        nothing = pa.nulls(len(table), pa.float32())
        pq.write_table(table.set_column(table.schema.names.index(name), name, nothing), file)

    forget(first)
    whole = judge(None, *BATCHES, folder=folder)
    assert judge(Local(1), *BATCHES, folder=folder) == whole
    assert len(whole[2]) == 3000
    for file in rest:
        forget(file)
    for engine in (None, Local(1)):
        with pytest.raises(DataError, match="the filters keep no sample"):
            judge(engine, *BATCHES, folder=folder)


@pytest.mark.parametrize(
    "case", [BATCHES, ("and", "wfpp:fraction=0.4"), ("then", "language", "wfpp:fraction=0.4")]
)
def test_a_uid_in_several_rows_has_no_one_score(judge, metadata, tmp_path, case):
    """In files of their own and in one, with an engine and without: told alike, with a remedy."""
    folder = tmp_path / "metadata"
    folder.mkdir()
    files = sorted(metadata.glob("*.parquet"))
    tables = [pq.read_table(file) for file in files]
    tables[1] = pa.concat_tables([tables[1], tables[0].slice(0, 7)])
    tables[2] = pa.concat_tables([tables[2], tables[2].slice(0, 3)])
    for file, table in zip(files, tables, strict=True):
        pq.write_table(table, folder / file.name)
    with Pool.create(tmp_path / "pool.duckdb") as pool:
        pool.add(open_source("commonpool", folder, link=False))
    assert len(judge(None, *case, folder=tmp_path / "pool.duckdb")[2]) > 20
    told = []
    for engine in (None, Local(1)):
        with pytest.raises(DataError, match=r"uids? stands? in several rows.*pool add") as error:
            judge(engine, *case, folder=folder)
        told.append(str(error.value))
    assert told[0] == told[1]
    if case is BATCHES:
        assert "filter soft_cap: 10 uids stand in several rows, first " in told[0]


MEAN = """
from datacomp.filters import Decision, Filter

class Wide(Filter):
    "Keep what is at least as wide as the mean."
    set_level = True
    def decide(self, view):
        mean = view.scalar(f"SELECT avg(original_width)::INTEGER FROM {view.relation}")
        return [Decision("narrow", f"original_width >= {mean}")]
"""


def test_filters_that_stay_with_one_worker(judge, metadata, tmp_path, monkeypatch):
    (tmp_path / "mean.py").write_text(MEAN)
    words = f"{tmp_path / 'mean.py'}:Wide"
    with Pool.open(metadata) as pool:
        spec = parse_all([words]).filters
        (partition, *_) = partitions_of(pool)
        behind = digests_of(files_behind(prepare(spec, "and")))
        task = apart.Task(
            partition, pool.path, pool.columns(), tuple(spec), "and", metadata, False,
            behind=behind,
        )  # fmt: skip
    assert isinstance(apart.judge(task), apart.NotApart)
    whole = judge(None, "and", words)
    assert judge(Local(1), "and", words) == whole
    assert 20 < len(whole[2]) < 880


def test_processes_give_the_same(judge):
    assert judge(Local(2), *CASES["fraction"]) == judge(None, *CASES["fraction"])


NAN = """
from datacomp.filters import Decision, Filter, Scorer

class Odd(Scorer):
    name = "odd"
    columns = ("uid",)
    def identity(self): return {"v": 1}
    def score(self, batch):
        return [float("nan") if uid < "8" else 1 for uid in batch.columns["uid"].to_pylist()]

class Mine(Filter):
    "Keep what has a score."
    def scorers(self): return [Odd()]
    def decide(self, view):
        score = view.score(Odd())
        return [Decision("no_score", f"{score} IS NOT NULL"), Decision("low", f"{score} > 0")]
"""


def test_nan_is_no_score_in_partitions_too(judge, tmp_path):
    (tmp_path / "nan.py").write_text(NAN)
    case = ("and", f"{tmp_path / 'nan.py'}:Mine")
    whole = judge(None, *case)
    assert judge(Local(2), *case) == whole
    assert 0 < whole[1][0]["reasons"].pop("no_score") < 900
    assert whole[1][0]["reasons"] == {}


def test_image_features_are_read_beside_each_file(judge, metadata, baseline_assets, tmp_path):
    names = ("pool_centroids", "target_embeddings")
    spec = "image_based_intersect_clip_score:" + ",".join(
        f"{name}={baseline_assets[name]}" for name in names
    )
    whole = judge(None, "and", spec)
    # A file without features: its samples have no score, in the whole and apart.
    folder = tmp_path / "metadata"
    shutil.copytree(metadata, folder)
    min(folder.glob("*.npz")).unlink()
    lacking = judge(None, "and", spec, folder=folder)
    assert lacking[2] != whole[2]
    assert judge(Local(1), "and", spec, folder=folder) == lacking
    for file in folder.glob("*.npz"):
        file.unlink()
    told = []
    for engine in (None, Local(1)):
        with pytest.raises(MissingError) as caught:
            judge(engine, "and", spec, folder=folder)
        told.append(str(caught.value))
    assert told[0] == told[1]


def test_files_of_other_columns_are_as_in_the_pool(judge, metadata, tmp_path):
    folder = tmp_path / "metadata"
    shutil.copytree(metadata, folder)
    first = min(folder.glob("*.parquet"))
    table = pq.read_table(first)
    pq.write_table(table.drop_columns(["clip_l14_similarity_score"]), first)
    for case in ("fraction", "basic"):
        assert judge(Local(1), *CASES[case], folder=folder) == judge(
            None, *CASES[case], folder=folder
        )


def test_a_pool_that_links_to_files_is_judged_apart_one_that_holds_samples_is_not(
    metadata, tmp_path
):  # fmt: skip
    found = []
    for link in (True, False):
        path = tmp_path / f"{link}.duckdb"
        with Pool.create(path) as pool:
            pool.add(open_source("commonpool", metadata, link=link))
            assert pool.count() == 900
            for name, engine in (("whole", None), ("apart", Local(1))):
                out = tmp_path / f"{link}-{name}.npy"
                spec = parse_all(["clip_score:arch=l14,fraction=0.3"]).filters
                if not link and engine:
                    with pytest.raises(UsageError, match="holds its samples, so it cannot be"):
                        select(pool, spec, out, engine=engine)
                    continue
                select(pool, spec, out, engine=engine)
                found.append(out.read_bytes())
    assert found[0] == found[1] == found[2]


def test_a_pool_that_links_is_named_and_judged_by_the_files_it_shows(
    metadata, tmp_path, monkeypatch
):  # fmt: skip
    """As the folder is; nobody sorts its uids, and a file that came later is none of it."""
    folder = tmp_path / "metadata"
    shutil.copytree(metadata, folder)
    spec, told = parse_all(["clip_score:arch=l14,fraction=0.3"]).filters, []
    with Pool.create(tmp_path / "pool.duckdb") as linked, Pool.open(folder) as plain:
        linked.add(open_source("commonpool", folder, link=True))
        shutil.copy(min(folder.glob("*.parquet")), folder / "zz.parquet")
        monkeypatch.setattr(Pool, "digest", None)
        for pool, engine in ((plain, None), (linked, None), (linked, Local(1))):
            told.append(select(pool, spec, tmp_path / "out.npy", engine=engine).sidecar)
    assert told[0]["pool"].keys() == {"files", "samples"}
    assert told[0]["pool"]["samples"] == 900
    assert told[0] == told[1] == told[2]


def test_a_pool_file_that_links_is_judged_as_a_whole_where_it_must_be(metadata, tmp_path):
    with Pool.create(tmp_path / "pool.duckdb") as pool:
        pool.add(open_source("commonpool", metadata, link=True))
    (tmp_path / "mean.py").write_text(MEAN)
    spec = parse_all(["exact_dedup:by=caption", f"{tmp_path / 'mean.py'}:Wide"]).filters
    found = []
    for name, engine in (("whole", None), ("apart", Local(2))):
        with Pool.open(tmp_path / "pool.duckdb") as pool:
            select(pool, spec, tmp_path / f"{name}.npy", engine=engine)
        found.append((tmp_path / f"{name}.npy").read_bytes())
    assert found[0] == found[1]


def test_only_what_uses_features_of_the_pool_itself_keeps_it_whole(
    metadata, tmp_path, monkeypatch
):  # fmt: skip
    """As ``pool embed`` leaves a pool: with features that the files do not have."""

    def whole(task, pool):
        raise RunError("as a whole")

    monkeypatch.setattr(partitioned, "judge_pool", whole)
    path = tmp_path / "pool.duckdb"
    with Pool.create(path) as pool:
        pool.add(open_source("commonpool", metadata, link=True))
        pool.sql("INSERT INTO features (name, file, rows_table) VALUES ('mine_img', 'f', 'r')")
    with Pool.open(path) as pool:
        for words in (["caption_length"], ["semdedup:clusters=3,epsilon=0.3"]):
            select(pool, parse_all(words).filters, tmp_path / "a.npy", engine=Local(1))
        for words in (
            ["language", "semdedup:clusters=3,features=mine_img"],
            ["caption_length", "then", "(", "not", "clip_score:features=mine,threshold=0.2", ")"],
        ):
            with pytest.raises(RunError, match="as a whole"):
                select(pool, parse_all(words).filters, tmp_path / "b.npy", engine=Local(1))


class Asked(Local):
    """Notes which work asks for a GPU."""

    def __init__(self):
        super().__init__(1)
        self.gpu = {}

    def map(self, function, partitions, *, gpu=False, **hints):
        self.gpu.setdefault(function.__name__, set()).add(gpu)
        return super().map(function, partitions, **hints)


def test_vectors_are_compared_on_the_processors_unless_a_gpu_is_asked_for(
    judge, metadata, baseline_assets, tmp_path, monkeypatch
):  # fmt: skip
    """On machines that seem to have a GPU."""
    folder = tmp_path / "metadata"
    shutil.copytree(metadata, folder)
    for file in folder.glob("*.npz"):
        images = np.load(file)["l14_img"]
        np.savez(file, l14_img=images, l14_txt=np.roll(images, 1, axis=0))
    target = f"target_embeddings={baseline_assets['target_embeddings']}"
    words = [
        "neg_clip_loss:batch_size=90,repeats=1",
        "or",
        f"norm_sim:{target}",
    ]
    asked = []
    monkeypatch.setattr(nearest, "_GPU_DEVICES", ("/",))
    monkeypatch.setattr(nearest, "resolve_device", lambda device: asked.append(device) or "cpu")
    assert nearest.usable_device("auto") == "cpu"
    assert asked == ["auto"]
    engine = Asked()
    judge(engine, None, *words, folder=folder)
    assert asked == ["auto"]
    assert set.union(*engine.gpu.values()) == {False}

    words[0] += ",device=cuda"
    engine = Asked()
    judge(engine, None, *words, folder=folder)
    assert set(asked) == {"auto", "cuda"}
    assert engine.gpu["judge"] == {True}
    assert engine.gpu["_judge"] == {True}
    assert engine.gpu["_merged"] == {False}


def test_nothing_kept_is_an_error_and_leaves_nothing(judge, tmp_path):
    for engine in (None, Local(1)):
        with pytest.raises(DataError, match=r"^the filters keep no sample \(900 "):
            judge(engine, "and", "clip_score:arch=l14,threshold=9")
        assert not list(tmp_path.glob("*out.npy*"))


def test_a_missing_column_is_told_as_by_the_whole(judge):
    told = []
    for engine in (None, Local(1)):
        with pytest.raises(MissingError) as caught:
            judge(engine, "and", "clip_score:column=aesthetic,fraction=0.5")
        told.append(str(caught.value))
    assert told[0] == told[1]


# -- going on --------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on_at_the_partition(judge, metadata, tmp_path, monkeypatch):
    whole = judge(None, "and", "language", "clip_score:arch=l14,fraction=0.5")
    scored, finished = [], []
    original = apart.Decider.decide

    def decide(self, *arguments):
        if len(finished) == 2:
            raise RunError("the machine went away")
        finished.append(1)
        return original(self, *arguments)

    from datacomp.filters.language import LanguageScorer

    score = LanguageScorer.score
    monkeypatch.setattr(apart.Decider, "decide", decide)
    monkeypatch.setattr(LanguageScorer, "score", lambda s, b: scored.append(1) or score(s, b))
    run = (Local(1), "and", "language", "clip_score:arch=l14,fraction=0.5")
    with pytest.raises(RunError, match="the machine went away"):
        judge(*run)
    assert len(scored) == 3  # each file once, in the first round
    work = tmp_path / ".out.npy.partitions"
    assert len(list((work / "judged").iterdir())) == 2
    (work / "judged" / ".000007.json.partial").write_text("{")  # of a worker that was killed
    monkeypatch.setattr(apart.Decider, "decide", original)
    assert judge(*run) == whole
    assert len(scored) == 3
    assert not work.exists()


def test_joint_work_goes_on_where_it_broke_off(judge, monkeypatch):
    case = ("and", "semdedup:clusters=4,epsilon=0.3")
    whole = judge(None, *case)

    def fail(*_):
        raise RunError("the machine went away")

    monkeypatch.setattr(together, "_judge", fail)
    with pytest.raises(RunError, match="the machine went away"):
        judge(Local(1), *case)
    monkeypatch.undo()
    monkeypatch.setattr(spread, "train", fail)  # the centroids are there
    assert judge(Local(1), *case) == whole


def test_work_of_other_filters_is_not_gone_on_with(judge, tmp_path, monkeypatch):
    def fail(*_):
        raise RunError("no")

    monkeypatch.setattr(partitioned, "merge_subsets", fail)
    with pytest.raises(RunError):
        judge(Local(1), "and", "clip_score:arch=l14,fraction=0.5")
    monkeypatch.undo()
    case = CASES["fraction"]
    assert judge(Local(1), *case) == judge(None, *case)


def broken_off(judge, monkeypatch, folder, *run):
    """Let a run break off when every file is judged."""

    def fail(*_):
        raise RunError("the machine went away")

    with monkeypatch.context() as patch:
        patch.setattr(partitioned, "merge_subsets", fail)
        with pytest.raises(RunError, match="the machine went away"):
            judge(Local(1), *run, folder=folder)


OWN = """
from datacomp.filters import Decision, Filter

class Mine(Filter):
    "Keep short captions."
    def decide(self, view):
        return [Decision("long", "length(text) < LIMIT")]
"""


def test_work_of_other_code_lists_or_features_is_not_gone_on_with(
    judge, metadata, tmp_path, monkeypatch
):  # fmt: skip
    own, words, folder = tmp_path / "own.py", tmp_path / "words.txt", tmp_path / "metadata"
    shutil.copytree(metadata, folder)

    def list_words(text):
        words.write_text(text)
        metaclip.load.cache_clear()  # another process would read it

    def turn_features():
        for file in folder.glob("*.npz"):
            np.savez(file, l14_img=np.load(file)["l14_img"][::-1])

    for case, first, then in (
        (
            f"{own}:Mine",
            lambda: own.write_text(OWN.replace("LIMIT", "40")),
            lambda: own.write_text(OWN.replace("LIMIT", "20")),
        ),
        (
            f"metaclip:entries_file={words},t=20",
            lambda: list_words("dog\nbrown dog\nthe"),
            lambda: list_words("dog\nhouse"),
        ),
        ("ssl_prototypes:clusters=6,fraction=0.4", turn_features, turn_features),
    ):
        first()
        before = judge(None, "and", case, folder=folder)
        then()
        whole = judge(None, "and", case, folder=folder)
        assert whole[2] != before[2], case
        first()
        broken_off(judge, monkeypatch, folder, "and", case)
        then()
        assert judge(Local(1), "and", case, folder=folder) == whole


def test_code_that_changes_while_files_are_judged_is_told(judge, tmp_path):
    own = tmp_path / "own.py"
    edit = f"Path({str(own)!r}).write_text(Path({str(own)!r}).read_text() + '#')"
    own.write_text(
        "from pathlib import Path\n"
        + OWN.replace("LIMIT", "40").replace("        return", f"        {edit}\n        return")
    )
    with pytest.raises(RunError) as caught:
        judge(Local(1), "and", f"{own}:Mine")
    assert str(caught.value) == (
        f"{own}: {os.uname().nodename} has something else there than the command began with; give "
        "all machines the same, and run the same command again"
    )


MOVING = """
from pathlib import Path
from datacomp.filters import Decision, Filter, Scorer

class Odd(Scorer):
    name = "odd"
    columns = ("uid",)
    def identity(self): return {"v": Path(MODEL).read_text()}
    def score(self, batch): return [1] * len(batch)

class Mine(Filter):
    "Keep what has a score, and change what gives it."
    def scorers(self): return [Odd()]
    def decide(self, view):
        found = [Decision("no_score", f"{view.score(Odd())} IS NOT NULL")]
        Path(MODEL).write_text("other")
        return found
"""


def test_files_that_were_scored_by_different_models_are_told(judge, metadata, tmp_path):
    """A model that no parameter names, as of a package that other machines have newer."""
    model = tmp_path / "model"
    model.write_text("one")
    (tmp_path / "moving.py").write_text(MOVING.replace("MODEL", repr(str(model))))
    with pytest.raises(RunError) as caught:
        judge(Local(1), "and", f"{tmp_path / 'moving.py'}:Mine")
    second = sorted(metadata.glob("*.parquet"))[1]
    assert str(caught.value) == (
        f"{second}: what gave it odd is not what gave other files theirs; give all machines the "
        "same files and packages, and run the same command again"
    )
    assert not (tmp_path / ".out.npy.partitions").exists()


# -- the value at a place --------------------------------------------------------------------

numbers = st.floats(-4, 4, width=16) | st.just(0.0)
parts = st.lists(st.lists(numbers, max_size=40), min_size=1, max_size=5)


def steps_of(values, bounds, most):
    """Tell what a partition tells of its values, as ``share_of`` has it in SQL."""
    under = [v for v in values if bounds.low is not None and v <= bounds.low]
    between = sorted(
        v for v in values
        if (bounds.low is None or v > bounds.low) and (bounds.high is None or v <= bounds.high)
    )  # fmt: skip
    different = sorted(set(between))
    told = different
    if len(different) > most:
        groups = [place * most // len(different) for place in range(len(different))]
        told = [
            v for place, v in enumerate(different)
            if place + 1 == len(different) or groups[place] != groups[place + 1]
        ]  # fmt: skip
    reached = [(v, sum(other <= v for other in between)) for v in told]
    return Steps(len(under), reached, len(different) <= most)


@settings(max_examples=300, deadline=None)
@given(parts, st.integers(0, 60), st.booleans(), st.integers(2, 6))
def test_the_value_at_a_place_is_found_exactly(parts, place, descending, most):
    question = Question("nth", "candidates", "x", place=place, descending=descending)
    every = sorted((v for part in parts for v in part), reverse=descending)
    bounds, rounds = Bounds(), 0
    while True:
        shares = [steps_of(part, bounds, most) for part in parts]
        assert all(len(share.values) <= most for share in shares)
        settled, found = settle(question, shares, bounds)
        if settled:
            break
        bounds, rounds = found, rounds + 1
        assert rounds < 60
    assert found == (every[place] if place < len(every) else None)


@pytest.mark.parametrize("value", ["x", "-x", "md5(uid::VARCHAR)", "uid", "NULL"])
def test_the_database_tells_its_share(pool_of, value):
    pool = pool_of(x=[float(i * 7 % 30) for i in range(60)])
    question = Question("nth", "samples", f"({value})", place=17)
    found = [row[0] for row in pool.sql(f"SELECT {value} FROM samples").fetchall()]
    values = sorted(v for v in found if v is not None)
    tried = [Bounds()] + ([Bounds(values[5], values[40])] if values else [])
    for bounds in tried:
        for most in (4, 100):
            assert share_of(pool, question, bounds, most) == steps_of(values, bounds, most)


def test_what_partitions_tell_is_bounded():
    assert most_told(1) == 1 << 20
    assert most_told(100_000) * 100_000 < 1 << 21


# -- partitions ------------------------------------------------------------------------------


def test_a_partition_has_the_rows_of_its_file(metadata):
    with Pool.open(metadata) as pool:
        partitions, columns = partitions_of(pool), pool.columns()
        names = "uid, text, metadata_file, metadata_row, source, width"
        whole = pool.sql(f"SELECT {names} FROM samples ORDER BY uid").fetchall()
    rows = []
    for number, partition in enumerate(partitions):
        assert partition.number == number
        with open_partition(partition, columns) as part:
            assert part.columns() == columns
            rows += part.sql(f"SELECT {names} FROM samples").fetchall()
    assert sorted(rows) == whole
