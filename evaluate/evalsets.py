"""Evaluation sets on disk, in the layout of DataComp and CLIP_benchmark.

wds_TASK_test/classnames.txt                        one class a line; the line is the label
              zeroshot_classification_templates.txt one a line, {c} is the class
              dataset_type.txt                      classification (also if absent), retrieval
              test/nshards.txt                      how many tars there are
              test/0.tar ...                        KEY.cls or KEY.txt beside KEY.png|jpg|webp
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..durable import digest, sha256_file
from ..errors import DataError, MissingError, UnsafeInputError
from ..pools import images, tar
from ..progress import track
from .tasks import Task, folder_name

CLASSNAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
IMAGE_EXTENSIONS = ("webp", "png", "jpg", "jpeg")
MAX_TEXT_BYTES = 16 << 20
MAX_LABEL_BYTES = 64
MAX_CAPTION_BYTES = 1 << 20
MAX_SHARDS = 100_000
NAMED = 5


@dataclass(frozen=True)
class Sample:
    """One test sample: the image's bytes, and its label or its captions."""

    key: str
    image: bytes
    label: int = -1
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Flawed:
    """A test sample that cannot be used, and why."""

    key: str
    reason: str


@dataclass(frozen=True)
class EvalSet:
    """A task's data, opened: its texts are read, its tars are known to be there."""

    task: Task
    path: Path
    classnames: tuple[str, ...]
    templates: tuple[str, ...]
    shards: tuple[Path, ...]

    def digest(self) -> str:
        """Return the SHA-256 that stands for all of it; reads every tar once."""
        shards = track(self.shards, f"reading {self.task.key}", len(self.shards), "shards")
        return digest(
            {
                "family": self.task.family,
                "classnames": self.classnames,
                "templates": self.templates,
                "shards": [sha256_file(shard) for shard in shards],
            }
        )

    def samples(self) -> Iterator[Sample | Flawed]:
        """Yield the samples in the order of the tars.

        A sample without an image or captions is yielded as Flawed. Raises DataError for a
        broken tar and for a label that fits no class: then the set itself is wrong.
        """
        for shard in self.shards:
            with shard.open("rb") as file:
                for found in tar.samples(shard):
                    where = f"{shard}: sample {found.key[:80]!r}"
                    image = next((e for e in IMAGE_EXTENSIONS if e in found.members), None)
                    if image is None:
                        yield Flawed(f"{shard.name}:{found.key}", "no image")
                        continue
                    if found.members[image].size > images.MAX_BYTES:
                        yield Flawed(f"{shard.name}:{found.key}", "image too large")
                        continue
                    key = f"{shard.name}:{found.key}"
                    data = tar.read_member(file, found.members[image])
                    if self.task.family == "classification":
                        raw = _text_member(file, found, "cls", MAX_LABEL_BYTES, where)
                        yield Sample(key, data, label=self._label(raw, where))
                        continue
                    raw = _text_member(file, found, "txt", MAX_CAPTION_BYTES, where)
                    captions = tuple(line for line in _lines(raw) if line)
                    yield (
                        Sample(key, data, captions=captions)
                        if captions
                        else Flawed(key, "no caption")
                    )

    def _label(self, raw: str, where: str) -> int:
        text = raw.strip()
        if not (text.isascii() and text.isdigit()):
            raise DataError(f"{where}: label is {text[:20]!r}, expected a whole number")
        label = int(text)
        if label >= len(self.classnames):
            raise DataError(
                f"{where}: label is {label}, but {CLASSNAMES} has {len(self.classnames)} "
                f"classes (0 to {len(self.classnames) - 1})"
            )
        return label


def open_evalset(data: Path, task: Task) -> EvalSet:
    """Open a task's folder in ``data`` and check everything but the tars' insides.

    Raises MissingError for what is not there and DataError, naming file and line, for class
    names or templates that cannot be used.
    """
    return open_folder(data / folder_name(task.key), task)


def check_evalsets(data: Path, tasks: Sequence[Task]) -> None:
    """Check that the data of all ``tasks`` can be opened, before hours are spent on a model.

    Reads no tar. Raises MissingError when ``data`` is no folder, or naming the folders in it
    that are not there, and the errors of :func:`open_evalset` for the first that is broken.
    """
    if not data.is_dir():
        raise MissingError(f"no evaluation sets at {data}: no such folder")
    absent = [task for task in tasks if not (data / folder_name(task.key)).is_dir()]
    if absent:
        named = ", ".join(folder_name(task.key) for task in absent[:NAMED])
        more = f" and {len(absent) - NAMED} more" if len(absent) > NAMED else ""
        raise MissingError(
            f"{data}: {len(absent)} of {len(tasks)} tasks have no folder there: {named}{more}"
        )
    for task in tasks:
        open_evalset(data, task)


def open_folder(path: Path, task: Task) -> EvalSet:
    """Open a task's data in a folder of any name; see :func:`open_evalset`."""
    if not path.is_dir():
        raise MissingError(f"no data of task {task.key}: there is no folder {path}")
    _check_family(path, task)
    shards = _shards(path)
    if task.family == "retrieval":
        return EvalSet(task, path, (), (), shards)
    return EvalSet(task, path, _classnames(path, task), _templates(path), shards)


def _check_family(path: Path, task: Task) -> None:
    file = path / "dataset_type.txt"
    found = _read_text(file).strip().lower() if file.exists() else "classification"
    if found != task.family:
        raise DataError(f"{file}: type is {found[:40]!r}, task {task.key} needs {task.family!r}")


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
    names = _lines(_read_text(file))
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
    if len(names) != task.classes:
        raise DataError(f"{file}: {len(names)} classes, task {task.key} has {task.classes}")
    return names


def _templates(path: Path) -> tuple[str, ...]:
    file = path / TEMPLATES
    templates = _lines(_read_text(file))
    if not any(templates):
        raise DataError(f"{file}: no templates in it")
    for number, template in enumerate(templates, 1):
        if "{c}" not in template:
            raise DataError(f"{file}: line {number} has no {{c}} for the class name")
    return templates


def _lines(text: str) -> tuple[str, ...]:
    """Split at line feeds only: some captions hold other characters that end a line in Unicode."""
    return tuple(line.strip() for line in text.removesuffix("\n").split("\n"))


def _read_text(file: Path) -> str:
    if not file.is_file():
        raise MissingError(f"{file} is not there; fetch the evaluation set again")
    if file.stat().st_size > MAX_TEXT_BYTES:
        raise UnsafeInputError(f"{file}: over {MAX_TEXT_BYTES:,} bytes")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{file}: not UTF-8 text") from None


def _text_member(
    file: BinaryIO, found: tar.TarSample, extension: str, limit: int, where: str
) -> str:
    member = found.members.get(extension)
    if member is None:
        raise DataError(f"{where}: no .{extension} beside the image")
    if member.size > limit:
        raise UnsafeInputError(f"{where}: .{extension} of {member.size:,} bytes")
    try:
        return tar.read_member(file, member).decode()
    except UnicodeDecodeError:
        raise DataError(f"{where}: .{extension} is not UTF-8 text") from None
