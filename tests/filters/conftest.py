"""Metadata as DataComp publishes them, small and odd, on which its own tools were run once."""

import contextlib
import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datacomp.filters.sets import write_set_scores
from datacomp.pools import Pool

ROWS, FILES, DIMENSION, CENTROIDS, TARGETS = 900, 3, 8, 24, 30
WORDNET = Path(__file__).parent / "wordnet"

WORDS = """\
the a of and with on my in this very dog dogs Dogs DOG dog, cats cat's geese mice oxen
men women children photo photos running ran runs flies better best happier quickly leaves wolves
churches boxes buzzes New_York hot_dog İstanbul straße 12 hello von einem braunen Hund am Strand une
chien sur la plage собака 犬 beautiful garden house sessions axes ses s es ing ed abdicated
houseses oxeses doggings walk blue wine abc -- x""".split()  # noqa: SIM905
SPACES = [*" " * 6, "  ", *"\n\t\x0b\r\x1c\x85\xa0\u3000\0"]
WHOLE = ["", "\n", "\n\n", "a\nb", "\na", "      ", "ab cd", "abcde", "a b c", "a b cd", " a b   ",
         "x\r\ny zzzz", "\0\0\0\0\0\0", "dog\n\ndog", "a photo of a brown dog on the beach",
         "the dogs are running in the garden", "a beautiful house with a blue door"]  # fmt: skip
SIDES = [0, 1, 66, 199, 200, 201, 300, 600, 601, 603, 900]
SCORES = [0.1, 0.27, 0.2798, 0.28, 0.2803, 0.3, -0.0, 0.0]

SYNSETS = "n02084071\nn02121620\nn03544360\nn02379216\n"
"""Dog, cat, house, and the number that the verb abdicate has too."""


class Draw:
    """Numbers that are the same in every version of everything."""

    def __init__(self, seed):
        self.seed, self.drawn = seed, 0

    def below(self, limit):
        self.drawn += 1
        found = hashlib.sha256(f"{self.seed}/{self.drawn}".encode()).digest()
        return int.from_bytes(found[:8], "big") % limit

    def of(self, items):
        return items[self.below(len(items))]

    def matrix(self, rows, dtype):
        values = [self.below(2001) - 1000 for _ in range(rows * DIMENSION)]
        return (np.array(values, np.float64) / 1000).astype(dtype).reshape(rows, DIMENSION)


def caption(draw):
    if draw.below(5) == 0:
        return draw.of(WHOLE)
    words = [draw.of(WORDS) for _ in range(1 + draw.below(8))]
    return "".join(word + draw.of(SPACES) for word in words[:-1]) + words[-1]


def write_metadata(folder):
    """Write parquet files with features beside them, as DataComp's download lays them."""
    for number in range(FILES):
        draw = Draw(f"file {number}")
        rows = ROWS // FILES
        uids = [hashlib.md5(f"{number}/{row}".encode()).hexdigest() for row in range(rows)]
        table = {
            "uid": uids,
            "url": [f"http://x/{uid}.jpg" for uid in uids],
            "text": [caption(draw) for _ in range(rows)],
            "original_width": pa.array([draw.of(SIDES) for _ in range(rows)], pa.int64()),
            "original_height": pa.array([draw.of(SIDES) for _ in range(rows)], pa.int64()),
            "clip_b32_similarity_score": pa.array(
                np.float32([draw.of(SCORES) for _ in range(rows)])
            ),
            "clip_l14_similarity_score": pa.array(
                np.float32([draw.of(SCORES) for _ in range(rows)])
            ),
            "sha256": [hashlib.sha256(uid.encode()).hexdigest() for uid in uids],
        }
        stem = folder / hashlib.md5(f"file {number}".encode()).hexdigest()
        pq.write_table(pa.table(table), stem.with_suffix(".parquet"))
        np.savez(stem.with_suffix(".npz"), l14_img=draw.matrix(rows, np.float16))


def write_assets(folder):
    """Write centroids of the pool, and embeddings of a target set in two files."""
    np.save(folder / "centroids.npy", Draw("centroids").matrix(CENTROIDS, np.float32))
    (folder / "targets").mkdir()
    targets = Draw("targets").matrix(TARGETS, np.float16)[:6]
    np.save(folder / "targets" / "0.npy", targets[:4])
    np.save(folder / "targets" / "1.npy", targets[4:])


@pytest.fixture(scope="session")
def wordnet():
    """Return a few words of WordNet 3.0, in its files' format."""
    return WORDNET


@pytest.fixture(scope="session")
def metadata(tmp_path_factory):
    """Return a folder of metadata such as DataComp publishes."""
    folder = tmp_path_factory.mktemp("metadata")
    write_metadata(folder)
    return folder


@pytest.fixture(scope="session")
def baseline_assets(tmp_path_factory, wordnet):
    """Return the assets of DataComp's baselines, by name."""
    folder = tmp_path_factory.mktemp("assets")
    write_assets(folder)
    (folder / "synsets.txt").write_text(SYNSETS)
    return {
        "wordnet": str(wordnet),
        "imagenet21k_synsets": str(folder / "synsets.txt"),
        "pool_centroids": str(folder / "centroids.npy"),
        "target_embeddings": str(folder / "targets"),
    }


@pytest.fixture
def features_of(tmp_path):
    """Return a maker of pools from features: the uid of row i is i in hex, files are cut evenly."""
    with contextlib.ExitStack() as opened:

        def features_of(files=2, columns=None, order=None, **arrays):
            rows = len(next(iter(arrays.values())))
            order = np.arange(rows) if order is None else np.asarray(order)
            folder = tmp_path / f"features{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            for number, places in enumerate(np.array_split(order, files)):
                table = {
                    "uid": [f"{i:032x}" for i in places],
                    "url": [f"http://x/{i}" for i in places],
                    "text": [f"a caption of number {i}" for i in places],
                } | {name: [values[i] for i in places] for name, values in (columns or {}).items()}
                pq.write_table(pa.table(table), folder / f"{number:02d}.parquet")
                np.savez(folder / f"{number:02d}.npz",
                         **{name: values[places] for name, values in arrays.items()})  # fmt: skip
            return opened.enter_context(Pool.open(folder))

        yield features_of


@pytest.fixture
def set_scores():
    """Return a function that lets a set scorer score a pool: a list with a value for each uid."""

    def set_scores(pool, scorer, where="true"):
        columns = "".join(f", {name}" for name in scorer.columns)
        pool.sql(
            f"CREATE OR REPLACE TEMP TABLE members AS SELECT uid{columns} FROM samples "
            f"WHERE {where} ORDER BY uid"
        )
        pool.sql(f"CREATE OR REPLACE TEMP TABLE scored (uid UHUGEINT, value {scorer.type})")
        write_set_scores(pool, "members", scorer, "scored")
        return [value for (value,) in pool.sql("SELECT value FROM scored ORDER BY uid").fetchall()]

    return set_scores
