"""Compute metrics again from kept embeddings: no model is loaded, no image is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from ..durable import digest, read_json
from ..errors import DatacompError, DataError, MissingError, UsageError
from .embedding import Embedder, SetAside
from .evalsets import EvalSet
from .keeping import (
    ABOUT,
    FORMAT,
    IMAGES,
    MAX_ABOUT_BYTES,
    PUZZLES,
    SAMPLES,
    TEXTS,
    VERSION,
    kept_folder,
    refuse_foreign,
)
from .parquet_sets import rows_of
from .provenance import EMBEDDING_KEYS, MODEL_KEYS
from .samples import Flawed, Puzzle, Sample
from .tasks import Task, is_url, load_tasks

_TEXTS_OF = ("data", "model", "model_config", "checkpoint", "precision")
"""What the provenance of embeddings has in any case, as text."""


@dataclass(frozen=True)
class KeptSet(EvalSet):
    """A task's data as its kept embeddings tell them; images are empty."""

    folder: Path = field(default=Path(), kw_only=True)
    provenance: dict[str, Any] = field(default_factory=dict, kw_only=True)
    batch_size: int = field(default=1, kw_only=True)

    def digest(self) -> str:
        """Return the digest of the set that the embeddings were made of."""
        return str(self.provenance["data"])

    def samples(self) -> Iterator[Sample | Flawed]:
        """Yield the samples, and those that were set aside."""
        for row in _rows(self.folder / SAMPLES, ("key", "label", "metadata", "captions", "reason")):
            if row["reason"] is not None:
                yield Flawed(row["key"], row["reason"])
            else:
                captions, metadata = tuple(row["captions"]), tuple(row["metadata"])
                yield Sample(row["key"], b"", row["label"], captions, metadata)

    def puzzles(self) -> Iterator[Puzzle | Flawed]:
        """Yield the instances of WinoGAViL."""
        for row in _rows(self.folder / PUZZLES, ("key", "cue", "names", "right", "reason")):
            if row["reason"] is not None:
                yield Flawed(row["key"], row["reason"])
            else:
                names, right = tuple(row["names"]), tuple(row["right"])
                yield Puzzle(row["key"], row["cue"], (b"",) * len(names), right, names)


@dataclass(frozen=True)
class Unusable:
    """A task whose kept embeddings cannot be used, and why."""

    task: Task
    error: str


class KeptEmbedder(Embedder):
    """Has the embeddings of one task, by key and by digest, instead of a model.

    They come in the batches in which they were made: products of other batches round otherwise.
    """

    def __init__(self, evalset: KeptSet) -> None:
        super().__init__(None, 1, evalset.batch_size)
        self._evalset = evalset

    def embed(
        self, found: Iterable[Sample | Flawed], aside: SetAside
    ) -> Iterator[tuple[list[Sample], np.ndarray]]:
        """Yield batches of samples with their kept embeddings, float32 (n, d)."""
        kept = [s for s in self._evalset.samples() if isinstance(s, Sample)]
        vectors = _array(self._evalset.folder / IMAGES) if kept else np.zeros((0, 0), "f4")
        if vectors.ndim != 2 or len(vectors) != len(kept):
            raise DataError(f"{self._evalset.folder}: {len(kept)} samples, embeddings of others")
        place = {sample.key: number for number, sample in enumerate(kept)}
        samples: list[Sample] = []
        for sample in found:
            if isinstance(sample, Flawed):
                aside.add(sample.key, sample.reason)
            elif sample.key in place:
                samples.append(sample)
            if len(samples) == self.batch_size:
                yield samples, vectors[[place[s.key] for s in samples]]
                samples = []
        if samples:
            yield samples, vectors[[place[s.key] for s in samples]]

    def texts(self, texts: list[str]) -> np.ndarray:
        """Return kept embeddings of texts."""
        return self._kept(digest(texts))

    def classifier(self, classnames: tuple[str, ...], templates: tuple[str, ...]) -> np.ndarray:
        """Return a kept classifier."""
        return self._kept(digest([classnames, templates]))

    def _kept(self, name: str) -> np.ndarray:
        file = self._evalset.folder / TEXTS / f"{name}.npy"
        if not file.is_file():
            raise MissingError(
                f"{self._evalset.folder}: holds no such texts (embeddings kept with a probe have "
                "none); keep them anew"
            )
        return _array(file)


def open_kept(root: Path | str, patterns: Sequence[str] = ()) -> Iterator[KeptSet | Unusable]:
    """Yield the tasks whose embeddings are kept in ``root``, in the order of the task list.

    A folder that is damaged, not of this program or of another version of its task is Unusable.
    Raises MissingError without ``root``, UsageError where it holds nothing that is asked for.
    """
    import fnmatch

    root = Path(root)
    if not root.is_dir():
        raise MissingError(f"no embeddings at {root}: no such folder")
    found = [
        task
        for task in load_tasks().values()
        if not patterns or any(fnmatch.fnmatchcase(task.key, p) for p in patterns)
        if (kept_folder(root, task.key) / ABOUT).is_file()
    ]
    if not found:
        what = f"of {', '.join(patterns)}" if patterns else "of any task"
        raise UsageError(f"{root}: holds no embeddings {what}; make them with --keep-embeddings")
    for task in found:
        try:
            yield open_kept_task(kept_folder(root, task.key), task)
        except DatacompError as error:
            yield Unusable(task, str(error))


def open_kept_task(folder: Path, task: Task) -> KeptSet:
    """Return the kept embeddings of one task; see :func:`open_kept`."""
    found = _told(folder, task)
    version = found.provenance["task_version"]
    if version != task.version:
        raise DataError(
            f"{folder}: embeddings of version {version} of {task.key}, the list has version "
            f"{task.version}; keep them anew"
        )
    return found


def check_keeping(
    root: Path, data: Path | str, tasks: Sequence[Task], model: dict[str, Any]
) -> None:
    """Raise unless embeddings of a model may be kept in ``root``, before any are made.

    UsageError where evaluation sets lie there, DataError where another model's embeddings do.
    """
    if not is_url(data) and root.is_dir() and root.samefile(data):
        raise UsageError(
            f"{root}: holds the evaluation sets; choose another folder with --keep-embeddings"
        )
    for task in tasks:
        folder = kept_folder(root, task.key)
        refuse_foreign(folder)
        if not folder.exists():
            continue
        before = _told(folder, task).provenance
        for key, what in MODEL_KEYS.items():
            if key in EMBEDDING_KEYS and before.get(key) != model.get(key):
                raise DataError(
                    f"{folder}: embeddings with another {what} ({str(before.get(key, 'none'))[:16]}"
                    f", now {str(model.get(key, 'none'))[:16]}); choose another folder with "
                    "--keep-embeddings"
                )


def is_kept(root: Path, task: Task, provenance: dict[str, Any]) -> bool:
    """Tell whether the embeddings that a measurement makes are kept: same model, same data.

    Those kept with a probe have no texts; they serve probes only.
    """
    try:
        before = _told(kept_folder(root, task.key), task).provenance
    except DatacompError:
        return False
    keys = (*EMBEDDING_KEYS, "data", "task_version")
    with_texts = "probe" not in before or "probe" in provenance
    return with_texts and all(before.get(key) == provenance.get(key) for key in keys)


def _told(folder: Path, task: Task) -> KeptSet:
    """Return what ``about.json`` says, of whatever version of the task."""
    about = read_json(folder / ABOUT, MAX_ABOUT_BYTES)
    try:
        if (about["format"], about["version"], about["task"]) != (FORMAT, VERSION, task.key):
            raise ValueError
        names, templates = (tuple(map(str, about[key])) for key in ("classnames", "templates"))
        provenance, path = dict(about["provenance"]), str(about["path"])
        batch_size = int(about["batch_size"])
        texts = all(isinstance(provenance[key], str) for key in _TEXTS_OF)
        numbers = all(isinstance(provenance[key], int) for key in ("task_version", "image_size"))
        versions = isinstance(provenance["versions"], dict)
        if batch_size < 1 or not (texts and numbers and versions):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{folder / ABOUT}: not about embeddings of {task.key}; remove the folder and keep "
            "them anew"
        ) from None
    return KeptSet(
        task, path, names, templates, (),
        folder=folder, provenance=provenance, batch_size=batch_size,
    )  # fmt: skip


def _rows(file: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    if not file.is_file():
        raise MissingError(f"{file} is not there; remove the folder and keep the embeddings anew")
    for _, row in rows_of([str(file)], columns, {}):
        yield row


def _array(file: Path) -> np.ndarray:
    try:
        found = np.lib.format.open_memmap(file, mode="r")
    except (OSError, ValueError, SyntaxError, TypeError, RecursionError, TokenError) as error:
        raise DataError(f"{file}: not an array: {str(error)[:200]}") from None
    if found.dtype != np.float32:
        raise DataError(f"{file}: {found.dtype}, expected float32")
    return np.asarray(found)
