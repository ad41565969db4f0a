"""Training from a view gives the batches of training from built shards with the same seed."""

import json
import types
from pathlib import Path

import pytest
from datacomp.curate.shards import build_shards, select_shards
from datacomp.errors import DataError
from datacomp.evaluate.data import find_shards, pin
from datacomp.evaluate.loader import LANES, read_shard, training_loader
from datacomp.evaluate.set_aside import SetAsideLog
from datacomp.progress import Progress


@pytest.fixture
def both(shards, select, tmp_path):
    """The same subset as a view and as built shards."""
    subset = select(*range(0, 21), *range(5))
    options = {"shard_size": 6, "shuffle": 1, "workers": 1}
    select_shards([shards], subset, tmp_path / "view", **options)
    build_shards(shards, subset, tmp_path / "built", **options)
    return tmp_path / "view", tmp_path / "built"


def test_a_view_reads_as_built_shards_do(both):
    view, built = map(find_shards, both)
    assert [view.name(s) for s in view.shards] == [built.name(s) for s in built.shards]
    assert view.samples == built.samples == 26
    for ours, theirs in zip(view.shards, built.shards, strict=True):
        assert list(read_shard(ours)) == list(read_shard(theirs))


def batches(folder, workers):
    import torch
    from torchvision.transforms import functional

    def preprocess(image):
        return functional.to_tensor(image.resize((4, 4))) + torch.rand(1)

    args = types.SimpleNamespace(
        batch_size=5, world_size=1, workers=workers, accum_freq=1, epochs=1, rank=0,
        train_num_samples=2 * LANES * 5,
    )  # fmt: skip
    aside = SetAsideLog(Path(folder).parent / "set_aside.jsonl")
    make = training_loader([find_shards(folder)], None, 7, Progress("test"), aside)
    info = make(args, (preprocess, None), 0, lambda text: [torch.tensor([len(text)])])
    info["train"].set_epoch(0)
    return [torch.cat([images.flatten(), texts.flatten()]) for images, texts in
            info["train"].dataloader]  # fmt: skip


@pytest.mark.parametrize("workers", [0, 2])
def test_the_batches_are_the_same(both, workers):
    ours, theirs = batches(both[0], workers), batches(both[1], 0)
    assert len(ours) == len(theirs) == 2 * LANES
    assert all(a.equal(b) for a, b in zip(ours, theirs, strict=True))


def test_a_view_is_pinned_by_its_digest_and_only_while_its_tars_are_the_same(both, shards):
    found = pin(find_shards(both[0]))
    assert found.fingerprint_kind == "view"
    assert found.to_dict()["samples"] == 26
    assert pin(find_shards(both[0])).fingerprint == found.fingerprint
    (shards / "00000000.tar").write_bytes(b"other")
    with pytest.raises(DataError, match="has changed since it was indexed"):
        pin(find_shards(both[0]))


def test_the_command_trains_on_a_view(both, tmp_path, launcher):
    out = tmp_path / "run"
    words = ("train", both[0], "-o", out, "--scale", "demo", "--samples-seen", 640)
    words += ("--workers", 0, "--threads", 1, "--device", "cpu")
    done = launcher.run("-m", "datacomp.curate.cli", "-q", *words)
    assert (done.returncode, done.stderr) == (0, "")
    info = json.loads((out / "info.json").read_bytes())
    assert info["status"] == "done"
    [data] = info["data"]
    assert (data["samples"], data["fingerprint_kind"]) == (26, "view")
    assert (out / "checkpoints" / "epoch_5.pt").is_file()
