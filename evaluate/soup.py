"""Model soups: the mean of several checkpoints of one architecture is a model of its own.

"Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time" (arXiv 2203.05482). A uniform soup averages all ingredients. A greedy soup sorts
them by a score, adds one after another, and keeps one only if the score does not fall.

A soup costs the training of all its ingredients, so it is no run of a scale's recipe: it is
evaluated and compared like any run, but it names no scale and cannot be submitted as one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..durable import (
    atomic_directory,
    canonical_json,
    digest,
    fsync_directory,
    sha256_file,
    write_json,
)
from ..errors import DataError, MissingError, UsageError
from ..pools.checkpoints import read_checkpoint
from ..pools.clip_model import ModelSpec
from ..pools.clip_runs import RUN_INFO, read_run
from ..progress import Progress, say
from .models import load_run
from .tasks import Task
from .versions import library_versions

if TYPE_CHECKING:
    import torch

Weights = dict[str, "torch.Tensor"]
KINDS = ("uniform", "greedy")
CHECKPOINT = "checkpoints/soup.safetensors"


@dataclass(frozen=True)
class Ingredient:
    """A run that may go into a soup: its model and its checkpoint's digest."""

    run: Path
    spec: ModelSpec
    identity: dict[str, Any]

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of the checkpoint."""
        return self.identity["weights_sha256"]


class Mean:
    """The running mean of checkpoints, held in float64."""

    def __init__(self) -> None:
        self._sums: Weights = {}
        self._first: Weights = {}
        self.count = 0

    def add(self, path: Path) -> None:
        """Take one more checkpoint; DataError unless names, shapes and whole numbers are alike."""
        weights = read_checkpoint(path)
        if not self.count:
            self._first = {name: tensor.clone() for name, tensor in weights.items()}
        for name in self._first.keys() ^ weights.keys():
            raise DataError(f"{path}: tensor {name!r} is not in all of the checkpoints")
        for name, tensor in weights.items():
            like = self._first[name]
            if tensor.shape != like.shape:
                raise DataError(
                    f"{path}: tensor {name!r} has shape {tuple(tensor.shape)}, that of the first "
                    f"checkpoint {tuple(like.shape)}"
                )
            if not like.is_floating_point():
                if not tensor.equal(like):
                    raise DataError(f"{path}: tensor {name!r} of whole numbers differs")
                continue
            if self.count:
                self._sums[name] += tensor.double()
            else:
                self._sums[name] = tensor.double()
        self.count += 1

    def with_one_more(self, path: Path) -> Mean:
        """Return the mean with another checkpoint, leaving this one as it is."""
        other = Mean()
        other._sums = {name: tensor.clone() for name, tensor in self._sums.items()}
        other._first, other.count = self._first, self.count
        other.add(path)
        return other

    def save(self, path: Path) -> None:
        """Write the mean as safetensors, each tensor in the type of the first checkpoint's."""
        from safetensors.torch import save_file

        mean = {
            name: (self._sums[name] / self.count).to(like.dtype)
            if name in self._sums else like.clone()
            for name, like in self._first.items()
        }  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in mean.items()}, path)


def make_soup(
    runs: Sequence[Path | str],
    output: Path | str,
    kind: str = "uniform",
    *,
    data: Path | str | None = None,
    tasks: Sequence[Task] = (),
    device: str = "auto",
) -> dict[str, Any]:
    """Average the checkpoints of ``runs`` into the new run ``output``; return its info.

    A greedy soup is chosen by the mean main metric of ``tasks`` on the evaluation sets in
    ``data``: tasks that chose a soup must not judge it. The same soup again is returned as it is.
    Raises UsageError for fewer than two runs, another architecture or a folder in use, DataError
    for checkpoints that do not fit each other.
    """
    output = Path(output)
    if kind not in KINDS:
        raise UsageError(f"a soup is uniform or greedy, not {kind!r}")
    if kind == "greedy" and (data is None or not tasks):
        raise UsageError("a greedy soup is chosen by a score: give evaluation sets and tasks")
    ingredients = list(_ingredients(runs))
    plan: dict[str, Any] = {
        "kind": kind,
        "ingredients": [{"run": one.run.name, "sha256": one.sha256} for one in ingredients],
        "chosen_on": [task.key for task in tasks] if kind == "greedy" else [],
    }
    if output.exists():
        return _finished(output, plan)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".soup-", dir=output.parent) as scratch:
        if kind == "uniform":
            mean, told = _uniform(ingredients), {}
        else:
            assert data is not None
            score = _scorer(ingredients[0].spec, Path(scratch), Path(data), tasks, device)
            mean, told = _greedy(ingredients, Path(scratch), score)
        return _write(output, ingredients[0], mean, {**plan, **told})


def _ingredients(runs: Sequence[Path | str]) -> Iterator[Ingredient]:
    if len(runs) < 2:
        raise UsageError("a soup needs at least two runs")
    seen: dict[str, Path] = {}
    first: Ingredient | None = None
    for path in map(Path, runs):
        spec = load_run(path).spec
        one = Ingredient(path, spec, spec.identity())
        first = first or one
        for key in ("model", "config"):
            if one.identity[key] != first.identity[key]:
                raise UsageError(
                    f"{path}: has another {'architecture' if key == 'model' else 'configuration'} "
                    f"than {first.run}; only checkpoints of one can be averaged"
                )
        if one.sha256 in seen:
            raise UsageError(f"{path}: has the checkpoint of {seen[one.sha256]}; name it once")
        seen[one.sha256] = path
        yield one


def _uniform(ingredients: Sequence[Ingredient]) -> Mean:
    mean = Mean()
    with Progress("averaging", len(ingredients), "checkpoints") as progress:
        for one in ingredients:
            mean.add(one.spec.checkpoint)
            progress.advance()
    return mean


def _greedy(
    ingredients: Sequence[Ingredient], scratch: Path, score: Callable[[Path], float]
) -> tuple[Mean, dict[str, Any]]:
    """Add ingredients from the best on, keeping those with which the score does not fall."""
    alone = {one.sha256: score(one.spec.checkpoint) for one in ingredients}
    order = sorted(ingredients, key=lambda one: (-alone[one.sha256], one.sha256))
    mean = Mean()
    mean.add(order[0].spec.checkpoint)
    best, kept = alone[order[0].sha256], [order[0].sha256]
    for one in order[1:]:
        trial = mean.with_one_more(one.spec.checkpoint)
        path = scratch / "trial.safetensors"
        trial.save(path)
        found = score(path)
        say(f"{one.run.name}: alone {alone[one.sha256]:.4f}, soup with it {found:.4f}, "
            f"without {best:.4f}")  # fmt: skip
        if found >= best:
            mean, best = trial, found
            kept.append(one.sha256)
    return mean, {"kept": kept, "scores": alone, "score": best}


def _scorer(
    like: ModelSpec, scratch: Path, data: Path, tasks: Sequence[Task], device: str
) -> Callable[[Path], float]:
    from .harness import evaluate

    def score(checkpoint: Path) -> float:
        spec = ModelSpec(like.model, checkpoint, like.model_config)
        results = scratch / "results.jsonl"
        results.unlink(missing_ok=True)
        found = evaluate(spec, data, tasks, results, device=device)
        for key, reason in found.failed.items():
            raise MissingError(f"{key} cannot choose a soup: {reason}")
        values = [result.value for result in found.results if result.value is not None]
        if not values:
            raise UsageError("none of these tasks has a main metric to choose a soup by")
        return sum(values) / len(values)

    return score


def _write(output: Path, first: Ingredient, mean: Mean, soup: dict[str, Any]) -> dict[str, Any]:
    config = first.spec.model_config
    with atomic_directory(output) as partial:
        mean.save(partial / CHECKPOINT)
        if config is not None:
            (partial / "model_config.json").write_bytes(config.read_bytes())
        info = {
            "format": "datacomp-run",
            "version": 1,
            "status": "done",
            "model": first.spec.model,
            "model_config": "model_config.json" if config else None,
            "soup": {**soup, "recipe": digest(soup)},
            "checkpoint": CHECKPOINT,
            "checkpoint_sha256": sha256_file(partial / CHECKPOINT),
            "versions": library_versions(),
        }
        write_json(partial / RUN_INFO, info)
    fsync_directory(output.parent)
    return info


def _finished(output: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """Return the info of the same soup made before; refuse a folder of anything else."""
    info = read_run(output) if (output / RUN_INFO).is_file() else {}
    soup = info.get("soup")
    same = isinstance(soup, dict) and all(
        canonical_json(soup.get(key)) == canonical_json(value) for key, value in plan.items()
    )
    if not same:
        raise UsageError(f"{output}: holds something else; choose another folder")
    return info
