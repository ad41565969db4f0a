"""Train CLIP with open_clip's own trainer and a fixed recipe.

The trainer is open_clip_train, unchanged; what is added around it is what DataComp's
leaderboard needs: the recipe is fixed by the scale, the data are pinned by a fingerprint, the
order of samples and the augmentation follow from the seed alone (so an interrupted run
resumes into the same bytes, and several processes see what one would), and the run is described by
an ``info.json``.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..durable import (
    fsync_directory,
    partial_path,
    sha256_file,
    storage_errors,
    write_bytes,
    write_json,
)
from ..errors import DataError, IntegrityError, MissingError, RunError, StorageError, UsageError
from ..pools.clip_model import ModelSpec
from ..pools.clip_runs import RUN_INFO, read_run
from ..pools.devices import resolve_device
from ..progress import Progress, say
from . import set_aside
from .checkpoints import keep_weights_only, load_to_resume
from .data import DIGESTS, TrainingData, find_shards, pin
from .epochs import seeded_epochs
from .loader import LANES, block_size, training_loader
from .objectives import BENCHMARK, check_first_weights, check_objective, described
from .scales import CHECKPOINTS, Scale, model_config_path
from .versions import library_versions

_SPLIT = ("world_size", "accumulation")
"""How the work on a batch is divided: a run may go on with another number of processes."""
PRECISIONS = ("fp32", "amp", "amp_bf16", "bf16", "fp16")


def train(
    data: Sequence[Path | str],
    output: Path | str,
    scale: Scale,
    *,
    seed: int = 0,
    workers: int = 1,
    threads: int | None = None,
    precision: str | None = None,
    device: str = "auto",
    accumulation: int = 1,
    weights: list[float] | None = None,
    grad_clip_norm: float | None = None,
    objective: str = BENCHMARK,
    init: ModelSpec | None = None,
) -> dict[str, Any]:
    """Train and return the run's info; a finished run is returned as it is, an interrupted resumed.

    ``data`` are folders of WebDataset shards, ``weights`` their relative sampling weights,
    ``workers`` the loader processes of each training process. A run with the ``objective`` dfn
    is to filter with, and may begin with the weights of ``init``; see ``objectives``. Under
    torchrun every process calls this. Raises IntegrityError when the run was begun on other data
    or settings.
    """
    check_objective(scale, objective, init)
    require_extra()
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    per_device = _per_device_batch(scale, world, accumulation)
    if weights is not None and len(weights) != len(data):
        raise UsageError(f"{len(weights)} weights for {len(data)} folders of shards")
    if weights is not None and not all(0 < weight < math.inf for weight in weights):
        raise UsageError(f"weights are {weights}, expected positive numbers")
    if not 0 <= seed < 2**31:
        raise UsageError(f"seed is {seed}, expected 0 to {2**31 - 1}")
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    device = resolve_device(device)
    precision = precision or ("amp" if device.startswith("cuda") else "fp32")
    if precision not in PRECISIONS:
        raise UsageError(f"precision is {precision!r}, expected one of: {', '.join(PRECISIONS)}")
    output = Path(output)
    opened = [find_shards(path) for path in data]
    plan = {
        "format": "datacomp-run",
        "version": 1,
        "scale": scale.to_dict(),
        "model": scale.model,
        "model_config": "model_config.json" if scale.model_config else None,
        "data_weights": weights,
        "seed": seed,
        "precision": precision,
        "device": device.split(":")[0],
        "accumulation": accumulation,
        "world_size": world,
        "block": block_size(scale.batch_size),
        "workers": workers,
        "threads": threads,
        "grad_clip_norm": grad_clip_norm,
        **described(objective, init),
    }
    if init is not None and rank == 0:
        check_first_weights(scale, init)
    done = _begin(output, plan, opened) if rank == 0 else finished(output)
    if done is not None:
        return done
    started = time.monotonic()
    config = model_config_path(scale)
    if rank == 0 and config is not None:
        write_bytes(output / "model_config.json", config.read_bytes())
    arguments = trainer_arguments(
        scale, output, seed=seed, workers=workers, precision=precision, device=device,
        per_device=per_device, accumulation=accumulation, grad_clip_norm=grad_clip_norm,
        init=init,
    )  # fmt: skip
    _run_trainer(output, arguments, opened, weights, scale, seed)
    return plan if rank != 0 else _finish(output, plan, started)


def require_extra() -> None:
    """Raise MissingError, with the line that installs it, if the train extra is not there."""
    import importlib.util

    for module in ("torch", "open_clip", "open_clip_train", "webdataset"):
        if importlib.util.find_spec(module) is None:
            raise MissingError(
                f"training needs {module}, which is not installed: pip install -e '.[train]'"
            )


def trainer_arguments(
    scale: Scale,
    output: Path,
    *,
    seed: int,
    workers: int,
    precision: str,
    device: str,
    per_device: int,
    accumulation: int,
    grad_clip_norm: float | None = None,
    init: ModelSpec | None = None,
) -> list[str]:
    """Return open_clip_train's arguments for a scale: DataComp's recipe, nothing else.

    With ``init`` the trainer begins with the weights of its checkpoint.
    """
    whole = Path(os.path.abspath(output))  # "." has no name
    arguments = [
        "--dataset-type", "webdataset", "--train-data", "pinned",
        "--train-num-samples", str(scale.samples_seen // CHECKPOINTS),
        "--dataset-resampled",
        "--epochs", str(CHECKPOINTS),
        "--save-frequency", "1" if scale.keep_checkpoints else "0",
        "--save-most-recent", "--resume", "latest",
        "--logs", str(whole.parent), "--name", whole.name, "--report-to", "",
        "--model", scale.model,
        "--batch-size", str(per_device), "--accum-freq", str(accumulation),
        "--lr", str(scale.learning_rate), "--warmup", str(scale.warmup),
        "--wd", str(scale.weight_decay),
        "--precision", precision, "--workers", str(workers), "--seed", str(seed),
        "--device", device,
        "--ddp-static-graph", "--local-loss", "--gather-with-grad",
        "--log-every-n-steps", "50",
    ]  # fmt: skip
    if scale.beta2 is not None:
        arguments += ["--beta2", str(scale.beta2)]
    if scale.grad_checkpointing:
        arguments.append("--grad-checkpointing")
    if grad_clip_norm is not None:
        arguments += ["--grad-clip-norm", str(grad_clip_norm)]
    if init is not None:
        arguments += ["--pretrained", str(init.checkpoint)]
    return arguments


def _per_device_batch(scale: Scale, world: int, accumulation: int) -> int:
    if accumulation < 1 or scale.batch_size % (world * accumulation):
        raise UsageError(
            f"scale {scale.name} has a global batch of {scale.batch_size:,}, which "
            f"{world} processes x {accumulation} accumulation steps do not divide"
        )
    return scale.batch_size // (world * accumulation)


def _begin(output: Path, plan: dict[str, Any], data: list[TrainingData]) -> dict[str, Any] | None:
    """Complete the plan and record it, or return the info of a run that is finished.

    What costs nothing is checked before the shards are read.
    """
    before = _recorded(output)
    if before is not None:
        _check_settings(output, before, plan)
    with storage_errors(output):
        output.mkdir(parents=True, exist_ok=True)
    plan["data"] = [pin(source, output).to_dict() for source in data]
    if before is not None:
        _check_fingerprints(output, before, plan)
        if before.get("status") == "done":
            return before
    write_json(output / RUN_INFO, {**plan, "status": "running"})
    return None


def _recorded(output: Path) -> dict[str, Any] | None:
    """Return what the run in ``output`` was begun with; refuse a folder of something else."""
    path = output / RUN_INFO
    if not path.exists():
        own = {DIGESTS, partial_path(path).name}  # as an attempt leaves that was killed early
        if output.is_dir() and any(file.name not in own for file in output.iterdir()):
            raise UsageError(f"{output}: is not empty and holds no run; choose another folder")
        return None
    return read_run(output)


def _check_settings(output: Path, before: dict[str, Any], plan: dict[str, Any]) -> None:
    """Refuse a run begun with other settings."""
    before = {**described(BENCHMARK, None), **before}  # as runs were that do not tell
    if all(before.get(key) == 1 for key in _SPLIT):
        before.setdefault("block", plan["scale"]["batch_size"])
    for key, value in plan.items():
        if key in _SPLIT or (key == "workers" and _alike(before.get(key), value)):
            continue
        differences = list(_differences(key, before.get(key), value))
        if differences:
            raise UsageError(
                f"{output}: this run was begun with {', '.join(differences)}; "
                "train into another folder"
            )


def _differences(key: str, before: Any, now: Any) -> Iterator[str]:
    """Say what differs; of two tables only the entries that do."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*now, *before]):
            yield from _differences(f"{key}.{name}", before.get(name), now.get(name))
    elif before != now:
        yield f"{key} = {before!r}, now {now!r}"


def _check_fingerprints(output: Path, before: dict[str, Any], plan: dict[str, Any]) -> None:
    """Refuse a run begun on other data."""
    try:
        was = [str(source["fingerprint"]) for source in before["data"]]
    except (KeyError, TypeError):
        raise DataError(f"{output / RUN_INFO}: not the description of a run: no data") from None
    now = [source["fingerprint"] for source in plan["data"]]
    if was != now:
        first, other = next(
            (a, b) for a, b in itertools.zip_longest(was, now, fillvalue="none") if a != b
        )
        raise IntegrityError(
            f"{output}: this run was begun on other data (fingerprint {first[:12]}, now "
            f"{other[:12]}); restore the shards or train into another folder"
        )


def _alike(before: Any, now: int) -> bool:
    """Tell whether two numbers of loader workers give the same batches."""
    return isinstance(before, int) and all(LANES % max(1, n) == 0 for n in (before, now))


def finished(output: Path) -> dict[str, Any] | None:
    """Return the info of a finished run; the first process has checked that it fits."""
    try:
        info = read_run(output)
    except (MissingError, DataError):
        return None
    return info if info.get("status") == "done" else None


def _run_trainer(
    output: Path,
    arguments: list[str],
    data: list[TrainingData],
    weights: list[float] | None,
    scale: Scale,
    seed: int,
) -> None:
    with _without_wandb():
        import open_clip
        from open_clip_train import main as trainer
    import torch

    config = model_config_path(scale)
    if config is not None:
        open_clip.add_model_config(config)
    total = scale.samples_seen
    aside = set_aside.SetAsideLog(output / set_aside.FILE)
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(Progress("training", total))
        stack.enter_context(storage_errors(output))
        stack.enter_context(_logging_to_file(trainer))
        if torch.distributed.is_initialized():  # by the launcher: Ray Train does
            stack.enter_context(
                _replaced(torch.distributed, "init_process_group", lambda *_, **__: None)
            )
        if not torch.cuda.is_available():
            stack.enter_context(_distributed_on_cpu())
        stack.enter_context(
            _replaced(trainer, "get_data", training_loader(data, weights, seed, progress, aside))
        )
        stack.enter_context(
            _replaced(trainer, "train_one_epoch", seeded_epochs(trainer.train_one_epoch, seed))
        )
        stack.enter_context(_replaced(trainer, "pt_load", load_to_resume))
        with _clear_errors():
            code = trainer.main(arguments)
    if code not in (None, 0):
        raise RunError(f"open_clip's trainer stopped with {code}; its log is out.log in the run")


@contextlib.contextmanager
def _clear_errors() -> Iterator[None]:
    """Say what to do about the failures of torch that are no mistake of the program."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise RunError("the device is out of memory; split the batch with --accumulation") from None
    except RuntimeError as error:
        text = str(error)
        # torch tells a failed write only by its serialiser's file and line.
        if "inline_container" in text or "PytorchStreamWriter" in text:
            raise StorageError(
                "the checkpoint could not be written, most likely the disk is full; free some "
                "space and run the same command again"
            ) from error
        if text.startswith("DataLoader worker"):
            raise RunError(
                f"a loader process was killed ({text.splitlines()[0]}), most likely for memory; "
                "run the same command again with fewer --workers"
            ) from error
        raise


def _finish(output: Path, plan: dict[str, Any], started: float) -> dict[str, Any]:
    checkpoint = output / "checkpoints" / f"epoch_{CHECKPOINTS}.pt"
    if not checkpoint.is_file():
        raise RunError(f"{output}: the trainer ended without {checkpoint.name}; see out.log there")
    if plan["scale"]["keep_checkpoints"]:
        with checkpoint.open("rb+") as file:
            os.fsync(file.fileno())
        fsync_directory(checkpoint.parent)
    else:
        keep_weights_only(checkpoint, plan["scale"]["name"])
    aside = set_aside.SetAsideLog(output / set_aside.FILE).settle()
    info = {
        **plan,
        "status": "done",
        "checkpoint": f"checkpoints/{checkpoint.name}",
        "checkpoint_sha256": sha256_file(checkpoint),
        "set_aside": aside.counts,
        "set_aside_samples": aside.named,
        "seconds": round(time.monotonic() - started, 1),
        "versions": library_versions(),
    }
    write_json(output / RUN_INFO, info)
    (checkpoint.parent / "epoch_latest.pt").unlink(missing_ok=True)
    say(f"trained {output} in {info['seconds']:.0f} s", 1)
    return info


@contextlib.contextmanager
def _without_wandb() -> Iterator[None]:
    """Keep the trainer from importing wandb: it takes seconds and we report nowhere."""
    if "wandb" in sys.modules:
        yield
        return
    sys.modules["wandb"] = None  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        del sys.modules["wandb"]


@contextlib.contextmanager
def _distributed_on_cpu() -> Iterator[None]:
    """Let several processes train on CPUs: the trainer names a device, torch wants none."""
    import torch

    original = torch.nn.parallel.DistributedDataParallel

    def on_cpu(model: Any, device_ids: Any = None, **kwargs: Any) -> Any:
        return original(model, **kwargs)

    with _replaced(torch.nn.parallel, "DistributedDataParallel", on_cpu):
        yield


@contextlib.contextmanager
def _logging_to_file(trainer: Any) -> Iterator[None]:
    """Let the trainer log to its file only; on the console it would drown the progress.

    Its own set-up also raises the level of every other library's logger.
    """
    root = logging.getLogger()
    before = list(root.handlers), root.level, logging.raiseExceptions
    logging.raiseExceptions = False  # a log that cannot be written is no reason to talk

    def set_up(path: str | None, level: int, include_host: bool = False) -> None:
        handler = logging.FileHandler(path) if path else logging.NullHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s | %(levelname)s | %(message)s"))
        root.handlers[:] = [handler]
        root.setLevel(level)

    try:
        with _replaced(trainer, "setup_logging", set_up), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for handler in root.handlers:
            if handler not in before[0]:
                handler.close()
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        logging.raiseExceptions = before[2]


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)
