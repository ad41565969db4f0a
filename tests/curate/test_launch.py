"""The lines that start training on several machines: torchrun and Ray Train take them."""

import inspect
import runpy
import shlex
import warnings
from pathlib import Path
from unittest.mock import create_autospec

import pytest
from datacomp.curate.cli.train import train as train_command
from datacomp.evaluate import training
from datacomp.evaluate.scales import SCALES, get_scale

ROOT = Path(__file__).parents[2]
PAGES = ("docs/scale.md", "docs/training.md")


def lines_of(page, start):
    """Return the commands of a page that begin with a word, joined where they are continued."""
    text = (ROOT / page).read_text().replace("\\\n", " ")
    return [line.split() for line in text.splitlines() if line.startswith(f"    {start} ")]


@pytest.mark.parametrize("page", PAGES)
def test_torchrun_takes_the_lines_of_the_pages(page):
    from torch.distributed.run import get_args_parser

    lines = lines_of(page, "torchrun")
    assert lines
    for words in lines:
        told = get_args_parser().parse_args(words[1:])
        assert (told.module, told.training_script) == (True, "datacomp.curate.cli")
        command, *rest = told.training_script_args
        assert command == "train"
        found = train_command.make_context("train", list(rest)).params
        processes = int(told.nnodes.split(":")[-1]) * int(told.nproc_per_node)
        assert SCALES[found["scale"]].batch_size % processes == 0


def test_ray_train_takes_the_example(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.train import FailureConfig
        from ray.train.torch import TorchTrainer
    made = []
    # A real trainer but for its start, which takes a cluster: its configurations are checked.

    def keep(trainer):
        made.append(trainer)

    monkeypatch.setattr(TorchTrainer, "fit", keep)
    example = runpy.run_path(str(ROOT / "examples" / "ray_train.py"))
    (words,) = lines_of("docs/scale.md", "python examples/ray_train.py")
    command = shlex.join(words[2:]).replace("/shared", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example["main"](shlex.split(command))
    (trainer,) = made
    assert trainer.scaling_config.num_workers == 16
    assert trainer.scaling_config.use_gpu
    assert trainer.run_config.storage_path == str(tmp_path / "runs")
    assert trainer.run_config.failure_config == FailureConfig(max_failures=10)
    called = create_autospec(training.train)
    monkeypatch.setattr(training, "train", called)
    settings = trainer.train_loop_config
    example["process"](settings)
    given = called.call_args
    bound = inspect.signature(training.train).bind(*given.args, **given.kwargs)
    assert bound.arguments["output"] == str(tmp_path / "runs" / "medium")
    assert bound.arguments["scale"] == get_scale("medium")


def test_the_example_of_ray_train_takes_a_view_of_a_store_and_no_run_there(tmp_path, monkeypatch):
    example = runpy.run_path(str(ROOT / "examples" / "ray_train.py"))
    with pytest.raises(SystemExit):
        example["main"]([str(tmp_path), "s3://bucket/run"])
    view = tmp_path / "view"
    view.mkdir()
    for name in ("view.json", "samples.npy"):
        (view / name).write_text(name)
    called = create_autospec(training.train)
    monkeypatch.setattr(training, "train", called)
    run = tmp_path / "run"
    settings = {"shards": f"file://{view}", "output": str(run), "scale": "debug", "seed": 0,
                "samples_seen": None, "workers": 0, "accumulation": 1}  # fmt: skip
    example["process"](settings)
    assert called.call_args.args[0] == [run / "view-0"]
    assert (run / "view-0" / "samples.npy").read_text() == "samples.npy"
