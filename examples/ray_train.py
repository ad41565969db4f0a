"""Train on a Ray cluster: one process a GPU, placed and started again by Ray Train.

python examples/ray_train.py /shared/shards /shared/runs/medium --scale medium --processes 16

The run is that of ``datacomp train``: when processes or machines die, Ray starts all of them again
and they go on from the last checkpoint; so does the same command given again.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def process(settings: dict[str, Any]) -> None:
    """Train in one of the processes; Ray has told each its rank and where the others are."""
    from datacomp.evaluate.scales import get_scale
    from datacomp.evaluate.training import train
    from datacomp.pools.stores import copied_view

    shards = settings["shards"]
    if "://" in shards:  # the first process that comes to it copies the view
        shards = copied_view(shards, Path(settings["output"]) / "view-0")
    train(
        [shards],
        settings["output"],
        get_scale(settings["scale"], settings["samples_seen"]),
        seed=settings["seed"],
        workers=settings["workers"],
        accumulation=settings["accumulation"],
    )


def _folder(text: str) -> Path:
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} is a URL, but all machines write there")
    return Path(text).resolve()


def main(words: list[str] | None = None) -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train on a Ray cluster.")
    parser.add_argument("shards", help="folder that all machines see, or URL of a view")
    parser.add_argument("output", type=_folder, help="folder of the run, that all machines see")
    parser.add_argument("--scale", default="small")
    parser.add_argument("--samples-seen", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=8, help="one a GPU")
    parser.add_argument("--cpu", action="store_true", help="train on processors, one each")
    parser.add_argument("--workers", type=int, default=2, help="loader processes of each")
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--failures", type=int, default=10, help="how often to start again")
    settings = vars(parser.parse_args(words))

    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    if "://" not in settings["shards"]:
        settings["shards"] = str(Path(settings["shards"]).resolve())
    output = settings["output"]
    settings["output"] = str(output)
    TorchTrainer(
        process,
        train_loop_config=settings,
        scaling_config=ScalingConfig(
            num_workers=settings["processes"], use_gpu=not settings["cpu"]
        ),
        run_config=RunConfig(
            name=f"{output.name}.ray",  # what Ray itself writes down, beside the run
            storage_path=str(output.parent),
            failure_config=FailureConfig(max_failures=settings["failures"]),
        ),
    ).fit()


if __name__ == "__main__":
    main()
