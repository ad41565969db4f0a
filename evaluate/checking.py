"""Are evaluation sets whole, well-formed, and what they were the first time?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DatacompError
from ..progress import Progress
from . import digests
from .evalsets import EvalSet, open_evalset
from .samples import Flawed
from .tasks import Task


@dataclass(frozen=True)
class Checked:
    """What was found of one task's set; ``error`` says what is wrong, None if nothing is.

    ``known`` tells whether its digest had been recorded before. ``flawed`` samples, of which
    ``first`` is one, cannot be used, and an evaluation will set them aside.
    """

    key: str
    samples: int = 0
    flawed: int = 0
    first: str | None = None
    digest: str | None = None
    known: bool = False
    error: str | None = None


def check_sets(data: Path | str, tasks: Sequence[Task]) -> list[Checked]:
    """Read every set whole and record its digest in ``data``, or compare it with the recorded one.

    Class names, templates, labels, metadata, captions and the number of samples must be right;
    images are not decoded.
    """
    found: list[Checked] = []
    for task in tasks:
        try:
            found.append(_check(data, open_evalset(data, task)))
        except (DatacompError, OSError) as error:
            found.append(Checked(task.key, error=str(error)))
    return found


def _check(data: Path | str, evalset: EvalSet) -> Checked:
    task = evalset.task
    evalset.check_count()
    items = evalset.puzzles() if task.family == "winogavil" else evalset.samples()
    flawed, first = 0, None
    with Progress(f"checking {task.key}", task.size) as progress:
        for item in items:
            progress.advance()
            if isinstance(item, Flawed):
                flawed += 1
                first = first or f"{item.key}: {item.reason}"
    evalset.check_count()  # a remote set could not be counted before
    digest = evalset.digest()
    known = digests.verify(data, task, digest)
    if not known:
        digests.record(data, task, digest)
    digests.remember(data, evalset, digest)
    return Checked(task.key, task.size, flawed, first, digest, known)
