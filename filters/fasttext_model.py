"""Read fastText's supervised models: the words, the vectors and the tree of labels.

Source: Joulin et al., "Bag of Tricks for Efficient Text Classification" (arXiv 1607.01759), and
"FastText.zip" (arXiv 1612.03651) for quantised ones; the layout of the file is that of fastText
0.9 (version 12), little-endian: settings, words with their counts, input and output matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

_MAGIC, _VERSION = 793712314, 12
_HIERARCHICAL_SOFTMAX, _SUPERVISED = 1, 3
_SETTINGS = ("dim", "ws", "epoch", "min_count", "neg", "word_ngrams", "loss", "model", "bucket",
             "minn", "maxn", "lr_update_rate")  # fmt: skip
_MAX_WORDS, _MAX_LABELS, _MAX_BUCKETS = 10_000_000, 10_000, 100_000_000
_MAX_VALUES = 1 << 31

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@dataclass(frozen=True)
class LabelModel:
    """A model that tells texts' labels by their words and character n-grams.

    ``vectors`` has a row for each word and then for each bucket of n-grams, shape (rows, dim).
    ``bucket_rows`` (buckets,) says which row a bucket has, -1 for none. The tree of labels has
    2 * labels - 1 nodes, leaves first; ``children`` is (nodes, 2), -1 for leaves, and inner node
    i has the vector ``nodes[i - labels]``, shape (labels - 1 or more, dim). ``words`` are the bytes
    of all words end to end, word i from ``starts[i]`` to ``starts[i + 1]``.
    """

    labels: tuple[str, ...]
    words: NDArray[np.uint8]
    starts: NDArray[np.int64]
    vectors: Floats
    bucket_rows: Ints
    nodes: Floats
    children: Ints
    shortest: int
    longest: int


def read_model(path: Path) -> LabelModel | None:
    """Read a model; None for one of another kind (no hierarchical softmax, n-grams of words).

    Raises DataError for what is no model.
    """
    try:
        with path.open("rb") as file:
            return _read(_Bytes(np.asarray(np.memmap(file, np.uint8, "r"))))
    except (ValueError, IndexError, OverflowError) as error:
        raise DataError(f"{path}: not a fastText model: {error}") from error


class _Bytes:
    """Takes values off the front of a file's bytes; raises ValueError where they end."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self.data, self.at = data, 0

    def array(self, kind: Any, count: int) -> NDArray[Any]:
        size = np.dtype(kind).itemsize * count
        if not 0 <= count <= _MAX_VALUES or self.at + size > len(self.data):
            raise ValueError("it ends too soon")
        found = self.data[self.at : self.at + size].view(kind)
        self.at += size
        return found

    def one(self, kind: Any) -> Any:
        return self.array(kind, 1)[0].item()

    def text(self) -> bytes:
        part = self.data[self.at : self.at + 4096].tobytes()
        length = part.index(b"\0")
        self.at += length + 1
        return part[:length]


def _read(file: _Bytes) -> LabelModel | None:
    if (file.one("<i4"), file.one("<i4")) != (_MAGIC, _VERSION):
        raise ValueError("its first bytes are not those of version 12")
    settings = dict(zip(_SETTINGS, file.array("<i4", len(_SETTINGS)).tolist(), strict=True))
    file.one("<f8")
    if (settings["loss"], settings["model"], settings["word_ngrams"]) != (
        _HIERARCHICAL_SOFTMAX, _SUPERVISED, 1,
    ) or settings["maxn"] <= 0:  # fmt: skip
        return None
    words, labels, counts, pruned = _read_words(file)
    quantised = bool(file.one("u1"))
    vectors = _read_matrix(file, quantised)
    nodes = _read_matrix(file, bool(file.one("u1")) and quantised)
    buckets = settings["bucket"]
    if not 1 <= buckets <= _MAX_BUCKETS or (pruned is None and len(vectors) < buckets):
        raise ValueError("it has an impossible number of buckets")
    if pruned is None:
        bucket_rows = len(words) + np.arange(buckets, dtype=np.int32)
    else:
        bucket_rows = np.full(buckets, -1, np.int32)
        bucket_rows[pruned[:, 0]] = len(words) + pruned[:, 1]
    if (
        len(vectors) <= bucket_rows.max(initial=len(words) - 1)
        or len(nodes) < len(labels) - 1
        or vectors.shape[1] != nodes.shape[1]
        or not labels
    ):
        raise ValueError("its matrices do not fit its words")
    return LabelModel(
        tuple(label.decode().removeprefix("__label__") for label in labels),
        np.frombuffer(b"".join(words), np.uint8),
        np.cumsum([0, *map(len, words)], dtype=np.int64),
        vectors, bucket_rows, nodes, _tree(counts), settings["minn"], settings["maxn"],
    )  # fmt: skip


def _read_words(
    file: _Bytes,
) -> tuple[list[bytes], list[bytes], list[int], NDArray[np.int32] | None]:
    total, word_count, label_count = file.array("<i4", 3).tolist()
    file.one("<i8")
    kept = file.one("<i8")
    if total != word_count + label_count or not (
        0 <= word_count <= _MAX_WORDS and 0 <= label_count <= _MAX_LABELS
    ):
        raise ValueError("it has an impossible number of words")
    entries = [(file.text(), file.one("<i8"), file.one("i1")) for _ in range(total)]
    words, labels = entries[:word_count], entries[word_count:]
    if any(kind != 0 for _, _, kind in words) or any(kind != 1 for _, _, kind in labels):
        raise ValueError("its words and labels are mixed")
    pruned = None if kept < 0 else file.array("<i4", 2 * kept).reshape(-1, 2)
    return (
        [word for word, _, _ in words], [label for label, _, _ in labels],
        [count for _, count, _ in labels], pruned,
    )  # fmt: skip


def _read_matrix(file: _Bytes, quantised: bool) -> Floats:
    """Read a matrix; a quantised one is spelt out."""
    if not quantised:
        rows, columns = file.array("<i8", 2).tolist()
        found = file.array("<f4", rows * columns).reshape(rows, columns)
        return np.require(found, np.float32, "A")  # what stands before it is of any length
    with_norms = bool(file.one("u1"))
    rows, columns = file.array("<i8", 2).tolist()
    codes = file.array("u1", file.one("<i4"))
    quantiser = _read_quantiser(file)
    found = _spell_out(codes, quantiser, rows, columns)
    if with_norms:
        norm_codes = file.array("u1", rows)
        found *= _spell_out(norm_codes, _read_quantiser(file), rows, 1)
    return found


_Quantiser = tuple[int, int, Floats]


def _read_quantiser(file: _Bytes) -> _Quantiser:
    """Read a product quantiser: how many parts, how long each, and all centroids."""
    dimension, parts, length, _ = file.array("<i4", 4).tolist()
    return parts, length, file.array("<f4", dimension * 256)


def _spell_out(codes: NDArray[np.uint8], quantiser: _Quantiser, rows: int, columns: int) -> Floats:
    parts, length, centroids = quantiser
    if len(codes) != rows * parts or (parts - 1) * length >= columns > parts * length:
        raise ValueError("its matrices do not fit their codes")
    codes = codes.reshape(rows, parts)
    found = np.empty((rows, columns), np.float32)
    for part in range(parts):
        start = part * length
        width = min(length, columns - start)
        table = centroids[start * 256 : start * 256 + 256 * width].reshape(256, width)
        found[:, start : start + width] = table[codes[:, part]]
    return found


def _tree(counts: list[int]) -> Ints:
    """Return the children of each node of the Huffman tree over labels, most frequent first."""
    labels = len(counts)
    weights = [*counts, *[10**15] * (labels - 1)]
    children = np.full((2 * labels - 1, 2), -1, np.int32)
    leaf, inner = labels - 1, labels
    for node in range(labels, 2 * labels - 1):
        for side in (0, 1):
            if leaf >= 0 and weights[leaf] < weights[inner]:
                children[node, side], leaf = leaf, leaf - 1
            else:
                children[node, side], inner = inner, inner + 1
        weights[node] = sum(weights[child] for child in children[node])
    return children
