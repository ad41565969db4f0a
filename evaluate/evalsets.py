"""Evaluation sets on disk, in the layout of DataComp and CLIP_benchmark.

wds_TASK_test/classnames.txt                        one class a line; the line is the label
              zeroshot_classification_templates.txt one a line, {c} is the class
              dataset_type.txt                      classification (also if absent), retrieval
              test/nshards.txt                      how many tars there are
              test/0.tar ...                        KEY.cls, .npy or .txt beside KEY.png|jpg|webp

Retrieval and WinoGAViL may be folders of parquet files instead, as the Hub has them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ..durable import digest, sha256_file
from ..errors import DataError, MissingError, UnsafeInputError
from ..progress import track
from . import parquet_sets, tar_sets
from .samples import Flawed, Puzzle, Sample, lines
from .tasks import CLASSIFYING, Task, find_folder, folder_names

CLASSNAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
MAX_TEXT_BYTES = 16 << 20
MAX_SHARDS = 100_000
NAMED = 5


@dataclass(frozen=True)
class EvalSet:
    """A task's data, opened: its texts are read, its files are known to be there."""

    task: Task
    path: Path
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    shards: tuple[Path, ...]

    def digest(self) -> str:
        """Return the SHA-256 that stands for all of it; reads every file once."""
        shards = track(self.shards, f"reading {self.task.key}", len(self.shards), "shards")
        return digest(
            {
                "family": self.task.family,
                "classnames": self.classnames,
                "templates": self.templates,
                "shards": [sha256_file(shard) for shard in shards],
            }
        )

    def count(self) -> int:
        """Return how many samples there are, usable or not; reads headers only."""
        return self._files().count(self.shards)

    def check_count(self) -> None:
        """Raise DataError for another number of samples than the task has."""
        found = self.count()
        if found != self.task.size:
            raise DataError(
                f"{self.path}: {found:,} samples, task {self.task.key} has {self.task.size:,}; "
                "its score would be another; fetch the evaluation set again"
            )

    def samples(self) -> Iterator[Sample | Flawed]:
        """Yield the samples in the order of the files.

        A sample without an image or captions is yielded as Flawed. Raises DataError for a
        broken file, for a label that fits no class and for other metadata than the task's:
        then the set itself is wrong.
        """
        return self._files().samples(self.shards, self.task, len(self.classnames))

    def puzzles(self) -> Iterator[Puzzle | Flawed]:
        """Yield the puzzles of WinoGAViL; as :meth:`samples`."""
        return parquet_sets.puzzles(self.shards)

    def _files(self) -> ModuleType:
        return parquet_sets if self.shards[0].suffix == ".parquet" else tar_sets


def open_evalset(data: Path | str, task: Task) -> EvalSet:
    """Open a task's folder in ``data`` and check everything but the files' insides.

    Raises MissingError for what is not there and DataError, naming file and line, for class
    names or templates that cannot be used.
    """
    folder = find_folder(data, task)
    if folder is None:
        raise MissingError(
            f"no data of task {task.key}: there is no folder {Path(data) / folder_names(task)[0]}"
        )
    return open_folder(folder, task)


def check_evalsets(data: Path | str, tasks: Sequence[Task]) -> None:
    """Check that the data of all ``tasks`` can be opened, before hours are spent on a model.

    Reads no sample. Raises MissingError when ``data`` is no folder, or naming the folders in it
    that are not there, and the errors of :func:`open_evalset` for the first that is broken.
    """
    data = Path(data)
    if not data.is_dir():
        raise MissingError(f"no evaluation sets at {data}: no such folder")
    absent = [task for task in tasks if find_folder(data, task) is None]
    if absent:
        raise MissingError(absence(data, absent, len(tasks)))
    for task in tasks:
        open_evalset(data, task)


def absence(data: Path, absent: Sequence[Task], asked: int) -> str:
    """Say in one line which of the tasks asked for have no folder in ``data``."""
    named = ", ".join(folder_names(task)[0] for task in absent[:NAMED])
    more = f" and {len(absent) - NAMED} more" if len(absent) > NAMED else ""
    if len(absent) == asked > 1:
        return f"none of the {asked} tasks' folders are in {data}: {named}{more}"
    return f"{data}: {len(absent)} of {asked} tasks have no folder there: {named}{more}"


def open_folder(path: Path | str, task: Task) -> EvalSet:
    """Open a task's data in a folder of any name; see :func:`open_evalset`."""
    path = Path(path)
    if not path.is_dir():
        raise MissingError(f"no data of task {task.key}: there is no folder {path}")
    if task.family in ("retrieval", "winogavil"):
        files = _parquet_files(path, task)
        if files:
            return EvalSet(task, path, (), (), files)
    _check_family(path, task)
    shards = _shards(path)
    if task.family not in CLASSIFYING:
        return EvalSet(task, path, (), (), shards)
    return EvalSet(task, path, _classnames(path, task), _templates(path), shards)


def _parquet_files(path: Path, task: Task) -> tuple[Path, ...]:
    files = tuple(sorted(path.glob("*.parquet")))
    if not files and task.family == "winogavil":
        raise MissingError(f"{path}: no .parquet files in it; fetch the evaluation set again")
    return files


def _check_family(path: Path, task: Task) -> None:
    file = path / "dataset_type.txt"
    found = _read_text(file).strip().lower() if file.exists() else "classification"
    needed = "classification" if task.family in CLASSIFYING else task.family
    # Faces have several labels in their metadata, whatever the file calls that.
    if found != needed and not (task.family == "faces" and found == "multilabel"):
        raise DataError(f"{file}: type is {found[:40]!r}, task {task.key} needs {needed!r}")


def _shards(path: Path) -> tuple[Path, ...]:
    file = path / "test" / "nshards.txt"
    text = _read_text(file).strip()
    if not (re.fullmatch(r"[0-9]{1,9}", text) and 1 <= int(text) <= MAX_SHARDS):
        raise DataError(f"{file}: {text[:20]!r}, expected the number of tars")
    shards = tuple(path / "test" / f"{number}.tar" for number in range(int(text)))
    for shard in shards:
        if not shard.is_file():
            raise MissingError(f"{shard} is not there ({file.name} says {text}); fetch it again")
    return shards


def _classnames(path: Path, task: Task) -> tuple[str, ...]:
    file = path / CLASSNAMES
    names = lines(_read_text(file))
    if not any(names):
        raise DataError(f"{file}: no class names in it")
    blank = [number for number, name in enumerate(names, 1) if not name]
    if len(blank) > task.blank_names:
        raise DataError(f"{file}: line {blank[0]} is empty; each line is a class")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if len(repeated) > task.repeated_names:
        first = repeated[0]
        line = len(names) - names[::-1].index(first)
        raise DataError(f"{file}: line {line} repeats the class {first[:80]!r}")
    if task.classes is not None and len(names) != task.classes:
        raise DataError(f"{file}: {len(names)} classes, task {task.key} has {task.classes}")
    return names


def _templates(path: Path) -> tuple[str, ...]:
    file = path / TEMPLATES
    templates = lines(_read_text(file))
    if not any(templates):
        raise DataError(f"{file}: no templates in it")
    for number, template in enumerate(templates, 1):
        if "{c}" not in template:
            raise DataError(f"{file}: line {number} has no {{c}} for the class name")
    return templates


def _read_text(file: Path) -> str:
    if not file.is_file():
        raise MissingError(f"{file} is not there; fetch the evaluation set again")
    if file.stat().st_size > MAX_TEXT_BYTES:
        raise UnsafeInputError(f"{file}: over {MAX_TEXT_BYTES:,} bytes")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{file}: not UTF-8 text") from None
