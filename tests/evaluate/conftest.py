"""Small evaluation sets, for the tests of this folder."""

from collections.abc import Callable
from pathlib import Path

import pytest
from datacomp.evaluate.tasks import Task
from datacomp.pools.tar import tar_bytes


class SetMaker:
    """Writes small evaluation sets in DataComp's layout."""

    names = ("red", "green", "blue", "black", "white", "grey")

    def __init__(self, data: Path, picture: Callable[[int], bytes]) -> None:
        self.data, self.picture = data, picture

    def task(
        self, key: str, family: str = "classification", size: int = 12, **more: object
    ) -> Task:
        """Return a task that fits what :meth:`write` writes."""
        values = {
            "key": key, "name": key.title(), "suite": "demo", "family": family, "size": size,
            "version": 1,
            "main_metric": "acc1" if family == "classification" else "mean_recall@1",
            "classes": len(self.names) if family == "classification" else None,
        }  # fmt: skip
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
                if family == "classification":
                    files.append((f"s{i:07d}.cls", str(i % len(self.names)).encode()))
                    files.append((f"s{i:07d}.png", self.picture(i)))
                else:
                    files.append((f"s{i:07d}.png", self.picture(i)))
                    files.append((f"s{i:07d}.txt", f"picture {i}\nphoto number {i}".encode()))
            (path / "test" / f"{shard}.tar").write_bytes(tar_bytes(files))
        (path / "test" / "nshards.txt").write_text(str(shards))
        if family == "classification":
            (path / "classnames.txt").write_text("".join(f"{name}\n" for name in self.names))
            (path / "zeroshot_classification_templates.txt").write_text(
                "a photo of {c}\na {c} picture {not this}\n"
            )
        else:
            (path / "dataset_type.txt").write_text("retrieval\n")
        return path


@pytest.fixture
def sets(tmp_path: Path, picture: Callable[[int], bytes]) -> SetMaker:
    """Return a writer of evaluation sets under ``tmp_path/sets``."""
    return SetMaker(tmp_path / "sets", picture)
