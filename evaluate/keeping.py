"""Keep a task's embeddings, so that its metrics can be computed again without model and images.

KEPT/FOLDER/about.json       the task, its class names and templates, and whose embeddings these are
            images.npy       float32 (n, d), each row of length one
            samples.parquet  key, label, metadata and captions of each row; key and reason of those
                             that were set aside
            puzzles.parquet  the instances of WinoGAViL, which name their pictures by SHA-256
            texts/ID.npy     float32: a classifier (d, classes), or captions or cues (m, d)

FOLDER is that of the evaluation set. It is there when the task is through, whole, or not at all;
embeddings of the same model that stood there before go only then.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..durable import atomic_directory, read_json, write_json
from ..errors import DatacompError, UsageError
from .samples import Flawed, Puzzle, Sample
from .tasks import folder_name

if TYPE_CHECKING:
    import pyarrow as pa

    from .evalsets import EvalSet

FORMAT, VERSION = "datacomp-embeddings", 1
ABOUT, IMAGES, SAMPLES, PUZZLES, TEXTS = (
    "about.json", "images.npy", "samples.parquet", "puzzles.parquet", "texts",
)  # fmt: skip
MAX_ABOUT_BYTES = 64 << 20
ROWS_AT_ONCE = 4096


class Keeper:
    """Writes down the embeddings of one task while they are made; memory does not grow with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._images: BinaryIO | None = None
        self._shape = (0, 0)
        self._samples = _Rows(folder / SAMPLES, _sample_schema())
        (folder / TEXTS).mkdir()

    def images(self, samples: Sequence[Sample], embedded: np.ndarray) -> None:
        """Keep a batch of image embeddings, float32 (n, d)."""
        if self._images is None:
            self._images = (self._folder / IMAGES).open("wb")
            self._shape = (0, embedded.shape[1])
            self._write_header()
        self._images.write(np.ascontiguousarray(embedded, "<f4").tobytes())
        self._shape = (self._shape[0] + len(embedded), self._shape[1])
        for sample in samples:
            self._samples.add(
                {"key": sample.key, "label": sample.label, "metadata": list(sample.metadata),
                 "captions": list(sample.captions), "reason": None}
            )  # fmt: skip

    def flawed(self, key: str, reason: str) -> None:
        """Keep that a sample was set aside."""
        self._samples.add(
            {"key": key, "label": -1, "metadata": [], "captions": [], "reason": reason}
        )

    def puzzles(self, items: Sequence[Puzzle | Flawed]) -> None:
        """Keep the instances of WinoGAViL."""
        rows = _Rows(self._folder / PUZZLES, _puzzle_schema())
        for item in items:
            if isinstance(item, Flawed):
                rows.add({"key": item.key, "reason": item.reason})
            else:
                rows.add({"key": item.key, "cue": item.cue, "names": list(item.names),
                          "right": list(item.right)})  # fmt: skip
        rows.close()

    def texts(self, name: str, embedded: np.ndarray) -> None:
        """Keep text embeddings or a classifier under the digest of what they stand for."""
        np.save(self._folder / TEXTS / f"{name}.npy", embedded.astype("<f4"), allow_pickle=False)

    def finish(self, evalset: EvalSet, provenance: dict[str, Any], batch_size: int) -> None:
        """Write what the embeddings are of, by whom, and in what batches they came."""
        self._samples.close()
        if self._images is not None:
            self._images.seek(0)
            self._write_header()
            self._images.close()
        write_json(
            self._folder / ABOUT,
            {
                "format": FORMAT,
                "version": VERSION,
                "task": evalset.task.key,
                "path": evalset.path,
                "classnames": evalset.classnames,
                "templates": evalset.templates,
                "batch_size": batch_size,
                "provenance": provenance,
            },
        )

    def _write_header(self) -> None:
        # numpy pads headers so that a longer shape fits in the same place later.
        assert self._images is not None
        np.lib.format.write_array_header_1_0(
            self._images, {"descr": "<f4", "fortran_order": False, "shape": self._shape}
        )


@contextlib.contextmanager
def keeping(root: Path | None, evalset: EvalSet) -> Iterator[Keeper | None]:
    """Yield the keeper of a task; its folder appears when all went well. None keeps nothing."""
    if root is None:
        yield None
        return
    folder = kept_folder(root, evalset.task.key)
    refuse_foreign(folder)
    with atomic_directory(folder) as partial:
        yield Keeper(partial)
        refuse_foreign(folder)
        if folder.exists():
            shutil.rmtree(folder)


def kept_folder(root: Path, key: str) -> Path:
    """Return where a task's embeddings are kept."""
    return root / folder_name(key)


def refuse_foreign(folder: Path) -> None:
    """Raise UsageError where something stands that is no kept embeddings: an evaluation set."""
    if not (folder.exists() or folder.is_symlink()):
        return
    try:
        about = None if folder.is_symlink() else read_json(folder / ABOUT, MAX_ABOUT_BYTES)
    except DatacompError:
        about = None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise UsageError(
            f"{folder}: is there already and holds no kept embeddings; choose another folder with "
            "--keep-embeddings"
        )


class _Rows:
    """A parquet file that grows row by row."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema)
        self._rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == ROWS_AT_ONCE:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
            self._rows = []


def _sample_schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        {"key": pa.string(), "label": pa.int64(), "metadata": pa.list_(pa.float64()),
         "captions": pa.list_(pa.string()), "reason": pa.string()}
    )  # fmt: skip


def _puzzle_schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        {"key": pa.string(), "cue": pa.string(), "names": pa.list_(pa.string()),
         "right": pa.list_(pa.bool_()), "reason": pa.string()}
    )  # fmt: skip
