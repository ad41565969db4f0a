"""Pre-train an encoder on class labels, or fine-tune one: one loop for both.

Every step depends on (seed, step) alone, so a run that is killed goes on from its last saved
state and ends with the same weights; under torchrun the global batch is split over processes.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...durable import atomic_path, sha256_file, storage_errors, write_json, write_text
from ...errors import (
    DataError,
    MissingError,
    RunError,
    StorageError,
    UsageError,
)
from ...pools.devices import resolve_device
from ...progress import Progress, say
from .. import set_aside
from ..set_aside import SetAsideLog, SetAsideReport
from .backbone import CHECKPOINT, FORMAT, build, fill, normalisation, spec_of_run
from .batches import (
    check_shared_memory,
    list_broken,
    seed_all,
    test_transform,
    training_batches,
)
from .folder import (
    INFO,
    LOG,
    STATE,
    begins,
    claim_folder,
    finished_before,
    read_finished,
    saved_state,
)
from .labelled import LabelledImages, open_labelled
from .recipes import Recipe

PRECISIONS = ("fp32", "amp", "amp_bf16")
LOG_EVERY = 20
TEST_BATCH = 256


@dataclass(frozen=True)
class Settings:
    """Where and how a run computes; none of it belongs to the recipe."""

    device: str = "auto"
    precision: str | None = None
    workers: int = 2
    threads: int | None = None
    save_every: float = 300.0
    """Seconds between saved states: what a kill may cost."""


def pretrain(
    data: Path, output: Path, recipe: Recipe, seed: int = 0, settings: Settings | None = None
) -> dict[str, Any]:
    """Train an encoder on the class labels of the tars in ``data``; return the run's info.

    A finished run is returned as it is, an interrupted one goes on. Raises DataError for data
    without labels and IntegrityError for a run that was begun on other data or settings.
    """
    images = open_labelled(data, claim_folder(output))
    plan = _plan("pretrain", recipe, seed, images, settings or Settings())
    return _run(output, plan, recipe, images, None, None, settings or Settings())


def finetune(
    start: Path | None,
    data: Path,
    output: Path,
    recipe: Recipe,
    train: float | int = 0.5,
    seed: int = 0,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Train on a part of ``data`` and measure on the rest; return the run's info.

    ``start`` is the run whose weights are the beginning (None: from scratch), ``train`` the
    share (float) or the number (int) of images per class to train on. The info's ``accuracy``
    is that of the last epoch on the images that were held out.
    """
    if start is not None:
        spec = spec_of_run(start)
        same = (recipe.model, recipe.image_size, tuple(sorted(recipe.model_args.items())))
        if (spec.model, spec.image_size, spec.model_args) != same:
            raise UsageError(
                f"{start} is a {spec.model} at {spec.image_size} px {dict(spec.model_args)}, "
                f"recipe {recipe.name} fine-tunes a {recipe.model} at {recipe.image_size} px "
                f"{recipe.model_args}"
            )
    images, held_out = open_labelled(data, claim_folder(output)).split(train, seed)
    plan = _plan("finetune", recipe, seed, images, settings or Settings())
    plan["split"] = {"train": train, "held_out": len(held_out)}
    plan["start"] = sha256_file(start / CHECKPOINT) if start is not None else None
    return _run(output, plan, recipe, images, held_out, start, settings or Settings())


def _plan(
    task: str, recipe: Recipe, seed: int, images: LabelledImages, settings: Settings
) -> dict[str, Any]:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if recipe.batch_size % world:
        raise UsageError(f"{world} processes do not divide a batch of {recipe.batch_size}")
    if not 0 <= seed < 2**31:
        raise UsageError(f"seed is {seed}, expected 0 to {2**31 - 1}")
    device = resolve_device(settings.device)
    precision = settings.precision or ("amp" if device.startswith("cuda") else "fp32")
    if precision not in PRECISIONS:
        raise UsageError(f"precision is {precision!r}, expected one of: {', '.join(PRECISIONS)}")
    return {
        "format": FORMAT,
        "version": 1,
        "task": task,
        "model": f"timm:{recipe.model}",
        "recipe": recipe.to_dict(),
        "data": images.to_dict(),
        "seed": seed,
        "precision": precision,
        "device": device.split(":")[0],
        "world_size": world,
        "threads": settings.threads,
    }


def _run(
    output: Path,
    plan: dict[str, Any],
    recipe: Recipe,
    images: LabelledImages,
    held_out: LabelledImages | None,
    start: Path | None,
    settings: Settings,
) -> dict[str, Any]:
    import torch

    rank, world = int(os.environ.get("RANK", "0")), plan["world_size"]
    done = finished_before(output, plan) if rank == 0 else read_finished(output)
    if done is not None:
        return done
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    started = time.monotonic()
    seed_all(plan["seed"], 0)
    network = build(
        recipe.model, images.classes, recipe.image_size, recipe.model_args, recipe.drop_path
    )
    if start is not None:
        fill(network, start / CHECKPOINT, drop_head=True)
    check_shared_memory(recipe, settings.workers, world)
    # Only now: a command that cannot begin must leave the folder to the corrected one.
    with begins(output, plan, images, rank), _clear_errors(output):
        with _processes(world, plan["device"]):
            device = _device_of(plan["device"])
            network.to(device)
            aside = SetAsideLog(output / set_aside.FILE)
            log = _fit(network, images, recipe, plan, output, device, settings, rank, aside)
            if rank != 0:
                return plan
            accuracy = (
                None if held_out is None else _accuracy(network, held_out, recipe, device, aside)
            )
        return _finish(output, plan, network, accuracy, aside.settle(), log, started)


def _fit(
    network: Any,
    images: LabelledImages,
    recipe: Recipe,
    plan: dict[str, Any],
    output: Path,
    device: str,
    settings: Settings,
    rank: int,
    aside: SetAsideLog,
) -> list[list[float]]:
    """Take every step that is left; return the losses."""
    import torch
    from timm.optim._optim_factory import create_optimizer_v2

    optimizer = create_optimizer_v2(
        network, opt=recipe.optimizer, lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    scaler = torch.amp.grad_scaler.GradScaler(enabled=plan["precision"] == "amp")
    step, log = 0, []
    state = saved_state(output / STATE)
    if state is not None:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        step, log = state["step"], state["log"]
    model: Any = network
    if plan["world_size"] > 1:
        model = torch.nn.parallel.DistributedDataParallel(network)
    lose = _loss(recipe, images.classes)
    batches = training_batches(
        images, recipe, normalisation(network), plan["seed"], step, settings.workers, rank,
        plan["world_size"], aside,
    )  # fmt: skip
    total, saved = recipe.steps(len(images)), time.monotonic()
    label = "pre-training" if plan["task"] == "pretrain" else "fine-tuning"
    with Progress(label, total * recipe.batch_size) as progress, storage_errors(output):
        progress.resume(step * recipe.batch_size)
        model.train()
        for pictures, labels in batches:
            seed_all(plan["seed"], step, rank, 2)
            rate = recipe.learning_rate_at(step, len(images))
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("lr_scale", 1.0)
            optimizer.zero_grad()
            with _autocast(device, plan["precision"]):
                value = lose(model, pictures.to(device), labels.to(device))
            scaler.scale(value).backward()
            scaler.step(optimizer)
            scaler.update()
            if step % LOG_EVERY == 0 or step + 1 == total:
                log.append([step, _mean(value, plan["world_size"]), rate])
                if not np.isfinite(log[-1][1]):
                    raise RunError(f"{output}: the loss is {log[-1][1]} at step {step}: diverged")
            step += 1
            progress.advance(recipe.batch_size)
            if rank == 0 and step < total and time.monotonic() - saved > settings.save_every:
                content = {
                    "step": step, "network": network.state_dict(), "log": log,
                    "optimizer": optimizer.state_dict(), "scaler": scaler.state_dict(),
                }  # fmt: skip
                with atomic_path(output / STATE) as partial:
                    torch.save(content, partial)
                saved = time.monotonic()
    return log


def _mean(value: Any, world: int) -> float:
    """Return the loss of the whole batch: the mean of those of all processes."""
    if world > 1:
        from torch import distributed

        value = value.detach().clone()
        distributed.all_reduce(value)
        value = value / world
    return value.item()


def _loss(recipe: Recipe, classes: int) -> Callable[[Any, Any, Any], Any]:
    """Return loss(model, images, labels): images mixed as the recipe says."""
    import torch

    if not (recipe.mixup or recipe.cutmix):
        criterion = torch.nn.CrossEntropyLoss(label_smoothing=recipe.smoothing)
        return lambda model, pictures, labels: criterion(model(pictures), labels)
    from timm.data.mixup import Mixup

    mix = Mixup(
        mixup_alpha=recipe.mixup, cutmix_alpha=recipe.cutmix, label_smoothing=recipe.smoothing,
        num_classes=classes,
    )  # fmt: skip
    soft = torch.nn.CrossEntropyLoss()

    def mixed(model: Any, pictures: Any, labels: Any) -> Any:
        pictures, targets = mix(pictures, labels)
        return soft(model(pictures), targets)

    return mixed


def _accuracy(
    network: Any, held_out: LabelledImages, recipe: Recipe, device: str, aside: SetAsideLog
) -> float:
    """Return the share of held-out images whose class is the model's first choice."""
    import torch

    from ...pools.images import decode

    transform = test_transform(recipe.image_size, recipe.test_crop, normalisation(network))
    network.eval()
    right = usable = 0
    with torch.inference_mode(), Progress("measuring", len(held_out), "images") as progress:
        for first in range(0, len(held_out), TEST_BATCH):
            pictures, labels = [], []
            for index in range(first, min(first + TEST_BATCH, len(held_out))):
                progress.advance()
                data = held_out.read(index)
                try:
                    pictures.append(transform(decode(data)))
                except DataError as error:
                    list_broken(aside, held_out, index, error)
                    continue
                labels.append(int(held_out.label[index]))
            if pictures:
                choice = network(torch.stack(pictures).to(device)).argmax(dim=1).cpu()
                right += int((choice == torch.tensor(labels)).sum())
                usable += len(labels)
    if not usable:
        raise DataError(f"{held_out.path}: not one held-out image decodes")
    return right / usable


def _finish(
    output: Path,
    plan: dict[str, Any],
    network: Any,
    accuracy: float | None,
    aside: SetAsideReport,
    log: list[list[float]],
    started: float,
) -> dict[str, Any]:
    from safetensors.torch import save_file

    lines = [json.dumps(dict(zip(("step", "loss", "rate"), row, strict=True))) for row in log]
    with storage_errors(output):
        write_text(output / LOG, "".join(f"{line}\n" for line in lines))
        weights = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
        with atomic_path(output / CHECKPOINT) as partial:
            save_file(weights, partial)
    info = {
        **plan,
        "status": "done",
        "checkpoint": CHECKPOINT,
        "checkpoint_sha256": sha256_file(output / CHECKPOINT),
        "loss": log[-1][1] if log else None,
        "set_aside": aside.counts,
        "set_aside_samples": aside.named,
        "seconds": round(time.monotonic() - started, 1),
        "versions": _versions(),
    }
    if accuracy is not None:
        info["accuracy"] = accuracy
    write_json(output / INFO, info)
    (output / STATE).unlink(missing_ok=True)
    say(f"trained {output} in {info['seconds']:.0f} s", 1)
    return info


@contextmanager
def _clear_errors(output: Path) -> Iterator[None]:
    """Say what to do about the failures of torch that are no mistake of the program."""
    import torch
    from safetensors import SafetensorError

    try:
        yield
    except torch.OutOfMemoryError:
        raise RunError(
            f"{output}: the device is out of memory; use a smaller --batch-size or --image-size, "
            "or more processes under torchrun"
        ) from None
    except (RuntimeError, SafetensorError) as error:
        # A failed write is told only by the serialiser's file and line, or by the system's words.
        if "inline_container" in str(error) or "I/O error" in str(error):
            raise StorageError(
                f"cannot write {output}: most likely the disk is full; free some space and run the "
                "same command again"
            ) from error
        raise


@contextmanager
def _processes(world: int, device: str) -> Iterator[None]:
    """Join the other processes of torchrun, if there are any."""
    if world == 1:
        yield
        return
    import torch.distributed as dist

    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def _device_of(device: str) -> str:
    local = os.environ.get("LOCAL_RANK")
    return f"cuda:{local}" if device == "cuda" and local is not None else device


def _autocast(device: str, precision: str) -> Any:
    import torch

    kind = torch.bfloat16 if precision == "amp_bf16" else torch.float16
    return torch.autocast(device.split(":", maxsplit=1)[0], kind, enabled=precision != "fp32")


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"datacomp": __version__, "python": platform.python_version()}
    for name in ("torch", "torchvision", "timm", "numpy", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            raise MissingError(
                f"training needs {name}, which is not installed: pip install -e '.[train]'"
            ) from None
    return found
