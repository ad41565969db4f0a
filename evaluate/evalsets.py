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
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from ..durable import digest
from ..errors import DataError, MissingError
from ..pools.ranges import open_ranges
from ..progress import track
from . import parquet_sets, tar_sets
from .places import (
    MAX_NSHARDS_BYTES,
    NSHARDS,
    LocalFolder,
    SetFolder,
    find_set,
    first_place,
)
from .samples import Flawed, Puzzle, Sample, lines
from .stream import sha256_of
from .tasks import CLASSIFYING, Task, folder_names, is_url

CLASSNAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
TYPE = "dataset_type.txt"
MAX_TEXT_BYTES = 16 << 20
MAX_SHARDS = 100_000
NAMED = 5

Item = TypeVar("Item")


@dataclass
class Passed:
    """What reading a set has told on the way: SHA-256 of the files by place, samples."""

    digests: dict[str, str] = field(default_factory=dict)
    samples: int | None = None


@dataclass(frozen=True)
class EvalSet:
    """A task's data, opened: its texts are read, its files are known.

    ``path`` and ``shards`` are paths or URLs.
    """

    task: Task
    path: str
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    shards: tuple[str, ...]
    passed: Passed = field(default_factory=Passed, compare=False, repr=False)

    def digest(self) -> str:
        """Return the SHA-256 that stands for all of it; reads the files that were not read yet."""
        left = [shard for shard in self.shards if shard not in self.passed.digests]
        for shard in track(left, f"reading {self.task.key}", len(left), "shards"):
            self.passed.digests[shard] = sha256_of(shard)
        return digest(
            {
                "family": self.task.family,
                "classnames": self.classnames,
                "templates": self.templates,
                "shards": [self.passed.digests[shard] for shard in self.shards],
            }
        )

    def stamps(self) -> str:
        """Return a digest of texts, names, sizes and times of change; no file is read."""
        files: list[tuple[str, int, str]] = []
        for shard in self.shards:
            file = open_ranges(shard)
            files.append((shard.removeprefix(self.path), file.size, file.version))
            file.close()
        return digest([self.task.family, self.classnames, self.templates, files])

    def check_count(self) -> None:
        """Raise DataError for another number of samples than the task has.

        Reads headers only; remote sets are counted while they are read, so not before.
        """
        found = self.passed.samples
        found = self._files().count(self.shards) if found is None else found
        if found is not None and found != self.task.size:
            raise DataError(
                f"{self.path}: {found:,} samples, task {self.task.key} has {self.task.size:,}; "
                "its score would be another; fetch the evaluation set again"
            )

    def samples(self) -> Iterator[Sample | Flawed]:
        """Yield the samples in the order of the files, each file read once.

        A sample without an image or captions is yielded as Flawed. Raises DataError for a
        broken file, for a label that fits no class and for other metadata than the task's:
        then the set itself is wrong.
        """
        found = self._files().samples(
            self.shards, self.task, len(self.classnames), self.passed.digests
        )
        yield from self._counted(found)

    def puzzles(self) -> Iterator[Puzzle | Flawed]:
        """Yield the puzzles of WinoGAViL; as :meth:`samples`."""
        yield from self._counted(parquet_sets.puzzles(self.shards, self.passed.digests))

    def _counted(self, items: Iterator[Item]) -> Iterator[Item]:
        number = 0
        for item in items:
            number += 1
            yield item
        self.passed.samples = number

    def _files(self) -> ModuleType:
        return parquet_sets if self.shards[0].endswith(".parquet") else tar_sets


def open_evalset(data: Path | str, task: Task) -> EvalSet:
    """Open a task's folder in ``data`` and check everything but the files' insides.

    ``data`` is a folder, a URL or ``hub``. Raises MissingError for what is not there and
    DataError, naming file and line, for class names or templates that cannot be used.
    """
    return open_set(find_set(data, task), data, task)


def open_set(folder: SetFolder | None, data: Path | str, task: Task) -> EvalSet:
    """Open the folder that was found in ``data``, None for nothing; see :func:`open_evalset`."""
    if folder is None:
        raise MissingError(
            f"no data of task {task.key}: there is no folder {first_place(data, task)}"
            f"{how_to_get(data, [task])}"
        )
    return _open(folder, task)


def check_evalsets(data: Path | str, tasks: Sequence[Task]) -> None:
    """Check that the data of all ``tasks`` can be opened, before hours are spent on a model.

    Reads no sample. Raises MissingError when ``data`` is no folder, or naming the folders in it
    that are not there, and the errors of :func:`open_evalset` for the first that is broken. Of
    sets at a URL it is only asked whether they are there.
    """
    if not is_url(data) and not Path(data).is_dir():
        raise MissingError(no_folder(data, tasks))
    absent = [task for task in tasks if find_set(data, task) is None]
    if absent:
        raise MissingError(absence(data, absent, len(tasks)))
    if is_url(data):
        return
    for task in tasks:
        open_evalset(data, task)


def absence(data: Path | str, absent: Sequence[Task], asked: int) -> str:
    """Say in one line which of the tasks asked for have no folder in ``data``."""
    named = ", ".join(folder_names(task)[0] for task in absent[:NAMED])
    more = f" and {len(absent) - NAMED} more" if len(absent) > NAMED else ""
    advice = how_to_get(data, absent)
    if len(absent) == asked > 1:
        return f"none of the {asked} tasks' folders are in {data}: {named}{more}{advice}"
    return f"{data}: {len(absent)} of {asked} tasks have no folder there: {named}{more}{advice}"


def no_folder(data: Path | str, tasks: Sequence[Task]) -> str:
    """Say in one line that there is no folder ``data``, and how one comes about."""
    return f"no evaluation sets at {data}: no such folder{how_to_get(data, tasks)}"


def how_to_get(data: Path | str, tasks: Sequence[Task]) -> str:
    """Return the end of a message: which command brings the sets of ``tasks`` to ``data``."""
    if is_url(data):
        return "; is that the right place?"
    wanted = [task.key for task in tasks if task.suite != "demo"]
    if tasks and not wanted:
        return f"; 'datacomp evalsets demo {data}' builds the demo suite"
    which = f" --tasks {','.join(wanted)}" if 0 < len(wanted) <= NAMED else ""
    return f"; 'datacomp evalsets download {data}{which}' fetches evaluation sets"


def open_folder(path: Path | str, task: Task) -> EvalSet:
    """Open a task's data in a folder of any name; see :func:`open_evalset`."""
    if not Path(path).is_dir():
        raise MissingError(f"no data of task {task.key}: there is no folder {path}")
    return _open(LocalFolder(path), task)


def _open(folder: SetFolder, task: Task) -> EvalSet:
    if task.family in ("retrieval", "winogavil"):
        files = _parquet_files(folder, task)
        if files:
            return EvalSet(task, folder.place, (), (), files)
    _check_family(folder, task)
    shards = _shards(folder)
    if task.family not in CLASSIFYING:
        return EvalSet(task, folder.place, (), (), shards)
    names, templates = _classnames(folder, task), _templates(folder)
    return EvalSet(task, folder.place, names, templates, shards)


def _parquet_files(folder: SetFolder, task: Task) -> tuple[str, ...]:
    files = folder.parquet()
    if not files and task.family == "winogavil":
        raise MissingError(
            f"{folder.place}: no .parquet files in it; fetch the evaluation set again"
        )
    return files


def _check_family(folder: SetFolder, task: Task) -> None:
    data = folder.fetch(TYPE, MAX_TEXT_BYTES)
    text = "classification" if data is None else _decoded(data, folder.file(TYPE))
    found = text.strip().lower()
    needed = "classification" if task.family in CLASSIFYING else task.family
    # Faces have several labels in their metadata, whatever the file calls that.
    if found != needed and not (task.family == "faces" and found == "multilabel"):
        raise DataError(
            f"{folder.file(TYPE)}: type is {found[:40]!r}, task {task.key} needs {needed!r}"
        )


def _shards(folder: SetFolder) -> tuple[str, ...]:
    text = _read_text(folder, NSHARDS, MAX_NSHARDS_BYTES).strip()
    if not (re.fullmatch(r"[0-9]{1,9}", text) and 1 <= int(text) <= MAX_SHARDS):
        raise DataError(f"{folder.file(NSHARDS)}: {text[:20]!r}, expected the number of tars")
    names = [f"test/{number}.tar" for number in range(int(text))]
    for name in names:
        if not folder.has(name):
            raise MissingError(
                f"{folder.file(name)} is not there (nshards.txt says {text}); fetch it again"
            )
    return tuple(folder.file(name) for name in names)


def _classnames(folder: SetFolder, task: Task) -> tuple[str, ...]:
    file = folder.file(CLASSNAMES)
    names = lines(_read_text(folder, CLASSNAMES))
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


def _templates(folder: SetFolder) -> tuple[str, ...]:
    file = folder.file(TEMPLATES)
    templates = lines(_read_text(folder, TEMPLATES))
    if not any(templates):
        raise DataError(f"{file}: no templates in it")
    for number, template in enumerate(templates, 1):
        if "{c}" not in template:
            raise DataError(f"{file}: line {number} has no {{c}} for the class name")
    return templates


def _read_text(folder: SetFolder, name: str, limit: int = MAX_TEXT_BYTES) -> str:
    data = folder.fetch(name, limit)
    if data is None:
        raise MissingError(f"{folder.file(name)} is not there; fetch the evaluation set again")
    return _decoded(data, folder.file(name))


def _decoded(data: bytes, file: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{file}: not UTF-8 text") from None
