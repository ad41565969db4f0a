import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import pytest
from datacomp.durable import sha256_file
from datacomp.errors import DataError, IntegrityError, RunError, UsageError
from datacomp.evaluate import loader
from datacomp.evaluate.checkpoints import load_to_resume
from datacomp.evaluate.data import find_shards
from datacomp.evaluate.loader import LANES, SHUFFLE_INITIAL, read_shard, shuffled, training_loader
from datacomp.evaluate.objectives import first_weights, slowed
from datacomp.evaluate.scales import SCALES, get_scale, model_config_path
from datacomp.evaluate.set_aside import SetAsideLog
from datacomp.evaluate.training import train
from datacomp.pools import tar
from datacomp.pools.checkpoints import read_checkpoint
from datacomp.pools.sources.glyphs import GlyphSource
from datacomp.progress import Progress

SMALL = ["--scale", "demo", "--samples-seen", "1280", "--threads", "1"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Six shards of 50 drawn characters each, and one broken image."""
    folder = tmp_path_factory.mktemp("shards")
    source = GlyphSource(folder / "glyphs", samples=300)
    source.render()
    out = folder / "out"
    out.mkdir()
    found = list(read_shard(str(folder / "glyphs/00000.tar")))
    for number in range(6):
        with (out / f"{number:08d}.tar").open("wb") as file:
            writer = tar.TarWriter(file)
            for key, image, text in found[number * 50 : number * 50 + 50]:
                writer.add(f"{key}.png", image)
                writer.add(f"{key}.txt", text.encode())
            if number == 2:
                writer.add("broken.png", b"not an image")
                writer.add("broken.txt", b"a caption")
            writer.close()
        (out / f"{number:08d}_stats.json").write_text('{"successes": 50}')
    return out


def command(*arguments):
    return ["-m", "datacomp.curate.cli", "-q", "train", *map(str, arguments)]


@pytest.fixture
def finish(launcher):
    """Train to the end: one broken image is set aside, so the exit code is 3."""

    def finish(arguments):
        done = launcher.run(*arguments)
        assert done.returncode == 3, done.stderr
        return done

    return finish


def losses(run: Path) -> list[float]:
    """Return the losses that the trainer has logged."""
    found = re.findall(r" Loss: ([\d.]+) ", (run / "out.log").read_text())
    return [float(loss) for loss in found]


def weights(run: Path) -> str:
    return json.loads((run / "info.json").read_bytes())["checkpoint_sha256"]


# -- loader ----------------------------------------------------------------------------------


@pytest.fixture
def aside(tmp_path):
    return SetAsideLog(tmp_path / "set_aside.jsonl")


def batches(
    shards,
    workers=0,
    epoch=0,
    seed=0,
    count=2 * LANES,
    size=8,
    aside=None,
    rank=0,
    world=1,
    parts=1,
):
    """Return ``count`` batches of a process, of ``size`` samples; a step has ``parts`` of them."""
    import torch
    from torchvision.transforms import functional

    def preprocess(image):
        noise = torch.rand(1)  # stands for the random crop: it must not depend on the worker
        return functional.to_tensor(image.resize((4, 4))) + noise

    data = [find_shards(shards)]
    aside = aside or SetAsideLog(Path(shards).parent / "set_aside.jsonl")
    args = types.SimpleNamespace(
        batch_size=size, world_size=world, workers=workers, accum_freq=parts, epochs=1, rank=rank,
        train_num_samples=count * size * world,
    )  # fmt: skip
    make = training_loader(data, None, seed, Progress("test"), aside)
    info = make(args, (preprocess, None), epoch, lambda text: [torch.tensor([len(text)])])
    info["train"].set_epoch(epoch)
    return [torch.cat([images.flatten(1), texts], 1) for images, texts in
            info["train"].dataloader]  # fmt: skip


def same(a, b):
    return len(a) == len(b) and all(x.equal(y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_number_of_workers(shards, workers):
    expected = batches(shards)
    assert len(expected) == 2 * LANES
    assert same(batches(shards, workers=workers), expected)


def test_batches_follow_seed_and_epoch(shards):
    first = batches(shards, count=3)
    assert same(batches(shards, count=3), first)
    assert not same(batches(shards, count=3, seed=1), first)
    assert not same(batches(shards, count=3, epoch=1), first)


@pytest.mark.parametrize(
    ("world", "parts", "workers"),
    [(2, 1, 0), (4, 1, 2), (1, 2, 2), (2, 2, 0), (1, 8, 2), (3, 2, 1)],
)
def test_a_global_batch_is_the_same_however_it_is_split(shards, monkeypatch, world, parts, workers):
    import torch

    monkeypatch.setattr(loader, "BLOCK", 12)
    steps, whole = LANES + 2, 48
    assert loader.block_size(whole) == 12
    expected = batches(shards, count=steps, size=whole)
    found = [
        batches(shards, workers, count=steps * parts, size=whole // world // parts, rank=rank,
                world=world, parts=parts)
        for rank in range(world)
    ]  # fmt: skip
    split = [
        torch.cat([part for rank in found for part in rank[step * parts : (step + 1) * parts]])
        for step in range(steps)
    ]
    assert same(split, expected)
    assert len({tuple(row.tolist()) for row in expected[0]}) > 12  # blocks are not alike


def test_a_process_reads_no_more_than_its_share(shards, monkeypatch):
    monkeypatch.setattr(loader, "BLOCK", 12)
    read = []
    lane = loader._Lanes.lane
    monkeypatch.setattr(
        loader._Lanes, "lane", lambda self, *place: read.append(place) or lane(self, *place)
    )
    batches(shards, count=2, size=24, rank=1, world=2)
    assert read == [(2, 0), (3, 0), (2, 1), (3, 1)]


def test_blocks_of_the_scales():
    found = {s.name: s.batch_size // loader.block_size(s.batch_size) for s in SCALES.values()}
    assert found == {
        "demo": 1, "debug": 8, "small": 32, "medium": 32, "large": 64, "xlarge": 1024,
    }  # fmt: skip


def test_making_batches_leaves_the_model_s_generator_and_threads_alone(shards):
    import torch

    def after(count):
        torch.manual_seed(5)
        batches(shards, count=count)
        return torch.rand(1)

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert after(1).equal(after(5))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_the_shuffle_buffer_grows_to_its_size():
    size, count = 3 * SHUFFLE_INITIAL, 20 * SHUFFLE_INITIAL
    out = list(shuffled(iter(range(count)), size, random.Random(0)))
    assert len(set(out)) == len(out) == count - size + 1
    ahead = [value - place for place, value in enumerate(out)]
    assert max(ahead) == size - 1  # as far ahead as the full buffer reaches
    assert max(out[:10]) < SHUFFLE_INITIAL + 20  # but it gave out before it was full


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_samples_are_left_out_and_listed_once(shards, tmp_path, aside, workers):
    good = next(read_shard(str(shards / "00000000.tar")))
    data = tmp_path / "data"
    data.mkdir()
    (data / "1.tar").write_bytes((shards / "00000000.tar").read_bytes()[:1000])
    with (data / "0.tar").open("wb") as file:
        writer = tar.TarWriter(file)
        writer.add("a.png", b"no image")
        writer.add("a.txt", b"caption")
        writer.add("b.png", good[1])
        writer.add("b.txt", b"\xff")
        writer.add("c.txt", b"no image")
        writer.add("d.png", good[1])
        writer.add("d.txt", b"fine")
        writer.add("e.png", good[1])
        writer.close()
    for epoch in range(2):
        found = batches(data, count=4, size=4, aside=aside, workers=workers, epoch=epoch)
        assert [int(batch[-1, -1]) for batch in found] == [4] * 4
    report = aside.settle()
    assert report.counts == {
        "caption_not_utf8": 1, "image_broken": 1, "no_caption": 1, "no_image": 1,
        "shard_broken": 1,
    }  # fmt: skip
    assert report.named[:4] == [
        "0.tar:a: image_broken (not an image of a known format)",
        "0.tar:b: caption_not_utf8", "0.tar:c: no_image", "0.tar:e: no_caption",
    ]  # fmt: skip
    assert report.named[4].startswith(f"1.tar: shard_broken ({data / '1.tar'}: truncated")
    lines = (tmp_path / "set_aside.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {
        "source": 0, "shard": "0.tar", "sample": "a", "reason": "image_broken",
        "detail": "not an image of a known format",
    }  # fmt: skip
    assert len(lines) == 5


def test_a_caption_without_end_is_cut(shards, tmp_path):
    good = next(read_shard(str(shards / "00000000.tar")))
    files = [("a.png", good[1]), ("a.txt", b"x" * 100_000)]
    (tmp_path / "0.tar").write_bytes(tar.tar_bytes(files))
    (found,) = batches(tmp_path, count=1, size=1)
    assert int(found[-1, -1]) == 4096


@pytest.mark.parametrize("workers", [0, 1])
def test_shards_without_a_usable_sample_are_one_clear_line(tmp_path, aside, workers, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    (data / "0.tar").write_bytes(tar.tar_bytes([("a.txt", b"caption")]))
    with pytest.raises(DataError) as caught:
        batches(data, count=1, aside=aside, workers=workers)
    assert str(caught.value) == f"{data}: no sample with an image and a caption found"
    monkeypatch.setattr(loader, "MAX_BROKEN_IN_A_ROW", 50)
    (data / "0.tar").write_bytes(tar.tar_bytes([("a.txt", b"caption"), ("a.png", b"?")]))
    with pytest.raises(DataError) as caught:
        batches(data, count=1, aside=aside, workers=workers)
    assert str(caught.value) == f"{data}: 50 images in a row cannot be decoded"


# -- training --------------------------------------------------------------------------------


def test_what_cannot_be_trained_is_refused_before_it_begins(shards, tmp_path):
    import torch

    with pytest.raises(UsageError, match="a global batch of 128, which 1 processes x 3"):
        train([shards], tmp_path / "run", SCALES["demo"], accumulation=3)
    with pytest.raises(UsageError, match="2 weights for 1 folders"):
        train([shards], tmp_path / "run", SCALES["demo"], weights=[1, 2])
    with pytest.raises(UsageError, match=r"weights are \[-1\], expected positive numbers"):
        train([shards], tmp_path / "run", SCALES["demo"], weights=[-1])
    with pytest.raises(UsageError, match="precision is 'fp8', expected one of: fp32"):
        train([shards], tmp_path / "run", SCALES["demo"], precision="fp8")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="device cuda is not here; use --device cpu"):
            train([shards], tmp_path / "run", SCALES["demo"], device="cuda")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/shard_digests.jsonl").touch()  # as an attempt leaves that was killed early
    (tmp_path / "other/.info.json.partial").touch()
    with pytest.raises(UsageError, match="a global batch of 128, which 1 processes x 3"):
        train([shards], tmp_path / "other", SCALES["demo"], accumulation=3)
    (tmp_path / "other/file").touch()
    with pytest.raises(UsageError, match="is not empty and holds no run"):
        train([shards], tmp_path / "other", SCALES["demo"])


@pytest.mark.slow
def test_a_killed_run_resumes_into_the_same_bytes_and_refuses_other_data(
    shards, tmp_path, launcher, finish
):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(command(shards, "-o", whole, "--workers", 0, *SMALL))
    resumable = command(shards, "-o", cut, "--workers", 2, *SMALL)
    with launcher.start(*resumable, session=True) as process:
        latest = cut / "checkpoints/epoch_latest.pt"
        while not latest.exists():
            assert process.poll() is None
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    assert json.loads((cut / "info.json").read_bytes())["status"] == "running"
    done = finish(resumable)
    assert done.stderr == f"1 set aside (1 image_broken); see {cut / 'set_aside.jsonl'}\n"
    log = (cut / "out.log").read_text()
    assert "resuming checkpoint" in log
    assert weights(cut) == weights(whole)

    info = json.loads((whole / "info.json").read_bytes())
    assert info["status"] == "done"
    assert info["data"][0]["samples"] == 300
    assert info["data"][0]["fingerprint_kind"] == "content"
    assert info["set_aside"] == {"image_broken": 1}
    assert info["set_aside_samples"] == [
        "00000002.tar:broken: image_broken (not an image of a known format)"
    ]
    assert (cut / "set_aside.jsonl").read_bytes() == (whole / "set_aside.jsonl").read_bytes()
    assert len((whole / "set_aside.jsonl").read_text().splitlines()) == 1
    assert not list(whole.rglob("*.pkl"))
    assert sorted(path.name for path in (whole / "checkpoints").iterdir()) == ["epoch_5.pt"]
    scale = get_scale("demo", 1280)
    # Done: nothing runs, and another number of workers would have given the same.
    assert train([shards], whole, scale, workers=2, threads=1) == info
    with pytest.raises(UsageError, match="begun with seed = 0, now 1; train into another folder"):
        train([shards], whole, scale, seed=1, workers=0, threads=1)
    with pytest.raises(UsageError) as caught:
        train([shards], whole, get_scale("demo", 6400), workers=0, threads=1)
    assert str(caught.value) == (
        f"{whole}: this run was begun with scale.samples_seen = 1280, now 6400; "
        "train into another folder"
    )
    again = finish(command(shards, "-o", whole, "--workers", 0, *SMALL))
    assert again.stdout == f"{whole / 'checkpoints/epoch_5.pt'}: done before\n"
    other = tmp_path / "other"
    shutil.copytree(shards, other)
    (other / "00000005.tar").unlink()
    with pytest.raises(IntegrityError, match="this run was begun on other data"):
        train([other], whole, scale, workers=0, threads=1)


def test_only_a_network_to_filter_with_may_begin_with_other_weights(shards, tiny, tmp_path):
    scale, other = SCALES["demo"], tiny()
    with pytest.raises(UsageError, match=r"^unknown objective 'dfm' \(did you mean 'dfn'\?\); "):
        train([shards], tmp_path / "run", scale, objective="dfm")
    with pytest.raises(UsageError, match=r"^a run that begins with the weights of another cannot "):
        train([shards], tmp_path / "run", scale, init=other)
    with pytest.raises(UsageError, match="weights of tiny, scale demo trains datacomp-demo"):
        train([shards], tmp_path / "run", scale, init=other, objective="dfn")
    wrong = first_weights(other.checkpoint, scale)
    with pytest.raises(DataError, match="not a checkpoint of datacomp-demo: tensor "):
        train([shards], tmp_path / "run", scale, init=wrong, objective="dfn")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match=r"^scale demo learns at 0\.0015; another rate needs the "):
        slowed(scale, "clip", 1e-5)
    with pytest.raises(UsageError, match="the learning rate is nan, expected a positive number"):
        slowed(scale, "dfn", float("nan"))
    assert slowed(scale, "dfn", 1e-5).learning_rate == 1e-5
    assert slowed(scale, "clip", None) is scale


@pytest.mark.slow
def test_a_network_to_filter_with_begins_where_another_ended(shards, tmp_path, finish):
    import open_clip
    import torch

    scale = get_scale("demo", 640)
    config = json.loads(model_config_path(scale).read_bytes())
    torch.manual_seed(7)
    named = open_clip.CLIP(**config).state_dict()
    torch.save({"state_dict": named}, tmp_path / "first.pt")
    run = tmp_path / "run"
    # At a rate so low the weights stay as they were: one sees what it began with.
    finish(command(shards, "-o", run, "--scale", "demo", "--samples-seen", 640, "--threads", 1,
                   "--workers", 0, "--objective", "dfn", "--init", tmp_path / "first.pt",
                   "--learning-rate", "1e-12"))  # fmt: skip
    info = json.loads((run / "info.json").read_bytes())
    assert info["objective"] == "dfn"
    assert info["init"]["weights_sha256"] == sha256_file(tmp_path / "first.pt")
    assert info["scale"]["learning_rate"] == 1e-12
    found = read_checkpoint(run / "checkpoints/epoch_5.pt")
    assert found.keys() == named.keys()
    assert all(torch.allclose(named[name], found[name], atol=1e-8) for name in named)
    with pytest.raises(UsageError, match="this run was begun with objective = 'dfn', now 'clip';"):
        train([shards], run, replace(scale, learning_rate=1e-12), workers=0, threads=1)


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(shards, tmp_path, launcher):
    import torch

    few = ["--scale", "demo", "--samples-seen", 1280, "--threads", 1, "--workers", 0]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    one, two = tmp_path / "one", tmp_path / "two"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with launcher.start(*command(shards, "-o", one, *few)) as alone:
        subprocess.run(
            [*torchrun, *command(shards, "-o", two, *few, "--accumulation", 2)],
            check=True, timeout=250, capture_output=True, env=environment,
        )  # fmt: skip
        assert alone.finish(200).returncode == 3
    info = json.loads((two / "info.json").read_bytes())
    assert (info["world_size"], info["accumulation"], info["status"]) == (2, 2, "done")
    assert "batch_size: 32" in (two / "params.txt").read_text()
    curve = losses(one)
    assert len(curve) == 10
    assert losses(two) == pytest.approx(curve, rel=2e-5)  # the log has five digits
    a, b = (read_checkpoint(run / "checkpoints/epoch_5.pt") for run in (one, two))
    assert a.keys() == b.keys()
    far = [name for name in a if not torch.allclose(a[name], b[name], atol=1e-5)]
    # The bias of the keys has no gradient but that of rounding, which Adam takes for a large one.
    assert all(name.endswith("attn.in_proj_bias") for name in far)


def test_a_run_goes_on_with_another_number_of_processes(tmp_path, monkeypatch):
    import torch
    from torch import distributed

    torch.save({"epoch": 1, "state_dict": {"module.a": torch.ones(1)}}, tmp_path / "two.pt")
    torch.save({"epoch": 1, "state_dict": {"a": torch.ones(1)}}, tmp_path / "one.pt")
    for name in ("one", "two"):
        assert list(load_to_resume(str(tmp_path / f"{name}.pt"))["state_dict"]) == ["a"]
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    for name in ("one", "two"):
        assert list(load_to_resume(str(tmp_path / f"{name}.pt"))["state_dict"]) == ["module.a"]


@pytest.mark.slow
def test_a_full_disk_is_one_clear_line_and_the_run_goes_on_afterwards(
    shards, tmp_path, launcher, finish
):
    run = tmp_path / "run"
    limited = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY)); "
        "sys.argv = sys.argv[1:]; runpy.run_module('datacomp.curate.cli', run_name='__main__')"
    )
    full = launcher.run("-c", limited, *command(shards, "-o", run, "--workers", 0, *SMALL)[1:])
    assert full.returncode == 1
    assert full.stderr == (
        "error: the checkpoint could not be written, most likely the disk is full; free some "
        "space and run the same command again\n"
    )
    assert not list((run / "checkpoints").glob("epoch_*"))
    finish(command(shards, "-o", run, "--workers", 0, *SMALL))
    assert json.loads((run / "info.json").read_bytes())["status"] == "done"


def test_a_process_may_open_its_lanes_or_says_that_it_may_not(monkeypatch):
    limits = {"now": (300, 2500)}
    monkeypatch.setattr(loader.resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(loader.resource, "setrlimit", lambda _, new: limits.update(now=new))
    loader.check_open_files(loader.Split(1024), 0)  # eight blocks of eight lanes
    assert limits["now"] == (300, 2500)
    loader.check_open_files(loader.Split(90112), 4)  # 1,024 blocks, two lanes of each
    assert limits["now"] == (1024 * 2 + 128, 2500)
    with pytest.raises(RunError, match=r"^a batch of 90,112 on 1 processes takes 8,320 open files"):
        loader.check_open_files(loader.Split(90112), 1)
    loader.check_open_files(loader.Split(90112 // 16, 1, 3, 16), 1)
