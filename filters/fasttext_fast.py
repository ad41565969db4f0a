"""Many texts' labels at once, the very ones that fastText's own library gives.

What the kernel leaves undecided is asked of the library itself, so the result is the library's,
text by text.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..pools.parallel import default_workers
from .fasttext_kernels import NO_WORDS, identify, index_words
from .fasttext_model import LabelModel

_SLOTS = 1 << 17
"""How many words each thread remembers: with their vectors, 12 MB."""
_PART = 4096


class FastLabels:
    """Tells the labels of texts; ``library`` is fastText's own model of the same file."""

    def __init__(self, model: LabelModel, library: Any) -> None:
        self._model, self._library = model, library
        self._heaviest = float(np.abs(model.nodes).sum(axis=1, dtype=np.float64).max(initial=0))
        size = 1 << (2 * len(model.starts)).bit_length()
        self._table = np.full(size, -1, np.int32)
        index_words(model.words, model.starts, self._table)
        self._local = threading.local()
        self._threads = ThreadPoolExecutor(default_workers())
        self.undecided = 0

    def labels(self, texts: pa.ChunkedArray) -> pa.Array:
        """Return the label of each text, shape (n,); null for null and for a text without words."""
        flat = texts.combine_chunks().cast(pa.large_string())
        offsets = np.frombuffer(flat.buffers()[1], np.int64)[flat.offset :][: len(flat) + 1]
        buffer = flat.buffers()[2]
        data = np.frombuffer(buffer, np.uint8) if buffer else np.zeros(0, np.uint8)
        found = np.empty(len(flat), np.int16)
        parts = [slice(start, start + _PART) for start in range(0, len(flat), _PART)]
        list(self._threads.map(lambda part: self._identify(data, offsets, found, part), parts))
        self._ask_the_library(flat, found)
        labels = pa.array(self._model.labels)
        numbers = pa.array(found, mask=(found == NO_WORDS) | _nulls(flat))
        return labels.take(numbers)

    def _identify(
        self, data: NDArray[np.uint8], offsets: NDArray[np.int64], found: NDArray[np.int16],
        part: slice,
    ) -> None:  # fmt: skip
        model, memory = self._model, self._memory()
        identify(
            data, offsets[part.start : part.stop + 1], found[part], model.words, model.starts,
            self._table, model.vectors, model.bucket_rows, model.nodes, model.children,
            model.shortest, model.longest, self._heaviest, *memory,
        )  # fmt: skip

    def _memory(self) -> Sequence[NDArray[Any]]:
        """Return what this thread remembers of words."""
        if not hasattr(self._local, "memory"):
            width = self._model.vectors.shape[1]
            self._local.memory = (
                np.zeros((_SLOTS, 3), np.uint64), np.zeros((_SLOTS, width), np.float32),
                np.zeros(_SLOTS, np.int32), np.zeros(_SLOTS),
            )  # fmt: skip
        return self._local.memory

    def _ask_the_library(self, texts: pa.Array, found: NDArray[np.int16]) -> None:
        numbers = {label: number for number, label in enumerate(self._model.labels)}
        places = np.flatnonzero((found == -1) & ~_nulls(texts))
        self.undecided += len(places)
        for place, text in zip(places, texts.take(pa.array(places)).to_pylist(), strict=True):
            labels = self._library.predict(text.replace("\n", " "))[0]
            found[place] = numbers[labels[0].removeprefix("__label__")] if labels else NO_WORDS


def _nulls(texts: pa.Array) -> NDArray[np.bool_]:
    return texts.is_null().to_numpy(zero_copy_only=False)
