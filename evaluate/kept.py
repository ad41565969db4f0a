"""Compute metrics again from kept embeddings: no model is loaded, no image is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..durable import digest, read_json
from ..errors import DataError, MissingError, UsageError
from .embedding import Embedder, SetAside
from .evalsets import EvalSet
from .keeping import ABOUT, FORMAT, IMAGES, PUZZLES, SAMPLES, TEXTS, VERSION, kept_folder
from .parquet_sets import rows_of
from .samples import Flawed, Puzzle, Sample
from .tasks import Task, load_tasks

MAX_ABOUT_BYTES = 64 << 20


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


def open_kept(root: Path | str, patterns: Sequence[str] = ()) -> list[KeptSet]:
    """Return the tasks whose embeddings are kept in ``root``, in the order of the task list.

    Raises MissingError where there are none, DataError for a folder that is not of this program
    or of another version of its task.
    """
    import fnmatch

    root = Path(root)
    if not root.is_dir():
        raise MissingError(f"no embeddings at {root}: no such folder")
    found: list[KeptSet] = []
    for task in load_tasks().values():
        folder = kept_folder(root, task.key)
        wanted = not patterns or any(fnmatch.fnmatchcase(task.key, p) for p in patterns)
        if wanted and (folder / ABOUT).is_file():
            found.append(open_kept_task(folder, task))
    if not found:
        what = f"of {', '.join(patterns)}" if patterns else "of any task"
        raise UsageError(f"{root}: holds no embeddings {what}; make them with --keep-embeddings")
    return found


def open_kept_task(folder: Path, task: Task) -> KeptSet:
    """Return the kept embeddings of one task; see :func:`open_kept`."""
    about = read_json(folder / ABOUT, MAX_ABOUT_BYTES)
    try:
        if (about["format"], about["version"], about["task"]) != (FORMAT, VERSION, task.key):
            raise ValueError
        names, templates = (tuple(map(str, about[key])) for key in ("classnames", "templates"))
        provenance, path = dict(about["provenance"]), str(about["path"])
        version, batch_size = provenance["task_version"], int(about["batch_size"])
        if batch_size < 1:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{folder / ABOUT}: not about embeddings of {task.key}") from None
    if version != task.version:
        raise DataError(
            f"{folder}: embeddings of version {version} of {task.key}, the list has version "
            f"{task.version}; keep them anew"
        )
    return KeptSet(
        task, path, names, templates, (),
        folder=folder, provenance=provenance, batch_size=batch_size,
    )  # fmt: skip


def _rows(file: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    if not file.is_file():
        raise MissingError(f"{file} is not there; keep the embeddings anew")
    for _, row in rows_of([str(file)], columns, {}):
        yield row


def _array(file: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not an array: {str(error)[:200]}") from None
