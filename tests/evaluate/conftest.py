"""Small evaluation sets, for the tests of this folder."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datacomp.evaluate.tasks import Task
from datacomp.pools.tar import tar_bytes

LABELLED = ("classification", "wilds", "fairness")
FACES = {
    "race": ["black", "white", "other"], "gender": ["man", "woman"], "age": ["young", "old"],
    "toxic": [f"kind {i}" for i in range(20)],
}  # fmt: skip


def npy(*values: float, dtype: object = np.int64) -> bytes:
    """Return an array as the bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, np.array(values, dtype), allow_pickle=dtype is object)
    return buffer.getvalue()


class SetMaker:
    """Writes small evaluation sets in DataComp's layout."""

    names = ("red", "green", "blue", "black", "white", "grey")
    fields = ("region", "income")

    def __init__(self, data: Path, picture: Callable[[int], bytes]) -> None:
        self.data, self.picture = data, picture

    def task(
        self, key: str, family: str = "classification", size: int = 12, **more: object
    ) -> Task:
        """Return a task that fits what :meth:`write` writes."""
        values = {
            "key": key, "name": key.title(), "suite": "demo", "family": family, "size": size,
            "version": 1,
            "main_metric": {
                "classification": "acc1", "wilds": "acc_wg", "fairness": "acc_wg", "faces": None,
                "retrieval": "mean_recall@1", "winogavil": "jaccard_score_10-12",
            }[family],
            "classes": len(self.names) if family in LABELLED else None,
        }  # fmt: skip
        if family in ("wilds", "fairness"):
            values |= {"fields": self.fields, "groups": ["region"]}
        if family == "faces":
            values |= {"fields": ["age", "gender", "race", "race_binary"]}
        return Task.model_validate({**values, **more})

    def write(
        self, key: str, family: str = "classification", size: int = 12, shards: int = 2
    ) -> Path:
        """Write a set and return its folder."""
        path = self.data / f"wds_{key.replace('/', '-')}_test"
        (path / "test").mkdir(parents=True)
        per_shard = -(-size // shards)
        for shard in range(shards):
            files: list[tuple[str, bytes]] = []
            for i in range(shard * per_shard, min(size, (shard + 1) * per_shard)):
                if family in LABELLED:
                    files.append((f"s{i:07d}.cls", str(i % len(self.names)).encode()))
                if family in ("wilds", "fairness"):
                    files.append((f"s{i:07d}.npy", npy(i % 4, i)))
                if family == "faces":
                    files.append((f"s{i:07d}.npy", npy(i % 2, i // 2 % 2, i % 3, i % 3 != 1)))
                files.append((f"s{i:07d}.png", self.picture(i)))
                if family == "retrieval":
                    files.append((f"s{i:07d}.txt", f"picture {i}\nphoto number {i}".encode()))
            (path / "test" / f"{shard}.tar").write_bytes(tar_bytes(files))
        (path / "test" / "nshards.txt").write_text(str(shards))
        if family == "retrieval":
            (path / "dataset_type.txt").write_text("retrieval\n")
            return path
        names, templates = list(self.names), ["a photo of {c}", "a {c} picture {not this}"]
        if family == "faces":
            names = [f"{question}:{name}" for question, found in FACES.items() for name in found]
            templates = [f"{question}:a photo of {{c}}" for question in FACES]
        (path / "classnames.txt").write_text("".join(f"{name}\n" for name in names))
        (path / "zeroshot_classification_templates.txt").write_text("\n".join(templates) + "\n")
        return path

    def parquet(self, name: str, rows: list[dict], files: int = 1) -> Path:
        """Write rows with the Hub's columns; an image is given as bytes."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        types = {
            "image": image, "candidate_images": pa.list_(image), "caption": pa.list_(pa.string()),
            "cue": pa.string(), "candidates": pa.list_(pa.string()),
            "associations": pa.list_(pa.string()), "split": pa.string(),
        }  # fmt: skip
        schema = pa.schema([(column, types[column]) for column in rows[0]])
        path = self.data / name
        path.mkdir(parents=True)
        each = -(-len(rows) // files)
        for number in range(files):
            table = pa.Table.from_pylist(rows[number * each : (number + 1) * each], schema)
            pq.write_table(table, path / f"test-{number:05d}-of-{files:05d}.parquet")
        return path

    def pairs(self, count: int) -> list[dict]:
        """Return rows of images with two captions, as in the retrieval sets."""
        return [
            {
                "image": {"bytes": self.picture(i), "path": f"../{i}.png"},
                "caption": [f"picture {i}", f"photo number {i}"],
                "split": "test",
            }
            for i in range(count)
        ]

    def puzzles(self, count: int) -> list[dict]:
        """Return rows as in WinoGAViL; the same pictures come again and again."""
        return [
            {
                "candidate_images": [
                    {"bytes": self.picture((i + j) % 15), "path": None} for j in range(size)
                ],
                "cue": "Egg" if i % 2 else "wolf",
                "candidates": [f"c{j}" for j in range(size)],
                "associations": [f"c{j}" for j in (1, 3)],
            }
            for i, size in enumerate(([5, 6, 10, 12] * count)[:count])
        ]


@pytest.fixture(name="npy")
def npy_fixture() -> Callable[..., bytes]:
    """Return the writer of metadata."""
    return npy


@pytest.fixture
def sets(tmp_path: Path, picture: Callable[[int], bytes]) -> SetMaker:
    """Return a writer of evaluation sets under ``tmp_path/sets``."""
    return SetMaker(tmp_path / "sets", picture)
