"""A tiny random CLIP and small evaluation sets, for the tests of this folder."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from datacomp.evaluate.models import ModelSpec
from datacomp.evaluate.tasks import Task
from datacomp.pools.tar import tar_bytes

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16,
    },
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}  # fmt: skip


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], ModelSpec]:
    """Return a maker of tiny models: the same seed gives the same checkpoint."""
    import open_clip
    import torch

    folder = tmp_path_factory.mktemp("models")
    config = folder / "tiny.json"
    config.write_text(json.dumps(CONFIG))

    def make(seed: int = 0) -> ModelSpec:
        path = folder / f"epoch_{seed}.pt"
        if not path.exists():
            torch.manual_seed(seed)
            state = open_clip.CLIP(**CONFIG).state_dict()
            named = {f"module.{name}": tensor for name, tensor in state.items()}
            torch.save({"epoch": 1, "name": "tiny", "state_dict": named, "optimizer": {}}, path)
        return ModelSpec("tiny", path, config)

    return make


def png(seed: int, side: int = 24) -> bytes:
    """Return a random picture."""
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class SetMaker:
    """Writes small evaluation sets in DataComp's layout."""

    names = ("red", "green", "blue", "black", "white", "grey")

    def __init__(self, data: Path) -> None:
        self.data = data

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
                    files.append((f"s{i:07d}.png", png(i)))
                else:
                    files.append((f"s{i:07d}.png", png(i)))
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
def sets(tmp_path: Path) -> SetMaker:
    """Return a writer of evaluation sets under ``tmp_path/sets``."""
    return SetMaker(tmp_path / "sets")
