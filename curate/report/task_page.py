"""The page of one task: what a model made of it, and where it went most wrong."""

from __future__ import annotations

from pathlib import Path

from ...durable import write_text
from ...evaluate.evalsets import EvalSet
from ...evaluate.results import Result
from ...evaluate.tasks import Task, folder_name
from ...evaluate.witness import Associations, Confusions, Misses, Witness
from . import associations, confusions, face_tables, misses
from .markup import Html, decimal, document, el, join


def page_path(folder: Path, task: Task) -> Path:
    """Return where a task's page is written."""
    return folder / f"{folder_name(task.key)}.html"


def write_page(folder: Path, evalset: EvalSet, witness: Witness, result: Result) -> Path:
    """Write the page of one task into ``folder``; same input, same bytes."""
    path = page_path(folder, evalset.task)
    said, parts = _sections(evalset, witness, result)
    body = join(_head(evalset.task, said, result), el("main", parts))
    write_text(path, document(f"{evalset.task.name}: mistakes", body))
    return path


def _sections(evalset: EvalSet, witness: Witness, result: Result) -> tuple[str, list[Html]]:
    if isinstance(witness, Confusions):
        return confusions.sections(evalset, witness)
    if isinstance(witness, Misses):
        return misses.sections(witness)
    if isinstance(witness, Associations):
        return associations.sections(witness)
    return face_tables.sections(evalset, result.metrics)


def _head(task: Task, said: str, result: Result) -> Html:
    main = f" {task.main_metric} {decimal(result.value, 4)}" if task.main_metric else ""
    if result.interval is not None:
        main += " ({:.4f} to {:.4f})".format(*result.interval)
    made = result.provenance
    corrupted = f", corrupted by {made['corruption']}" if "corruption" in made else ""
    model = f"{made.get('model')}, checkpoint {str(made.get('checkpoint'))[:12]}{corrupted}"
    return el(
        "header",
        el("p", "datacomp evaluate", class_="eyebrow"),
        el("h1", task.name),
        el("p", said + main, class_="verdict"),
        el("p", model, class_="note"),
        class_="contact",
    )  # fmt: skip
