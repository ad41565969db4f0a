"""What every family of tasks shares: one model, threads that feed it, classifiers kept."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..durable import digest
from ..errors import DataError, UsageError
from ..pools.clip_model import ClipModel
from .evalsets import EvalSet
from .samples import Flawed, Sample
from .vision.backbone import VisionEncoder

if TYPE_CHECKING:
    import torch

    from .corruptions import Corruption
    from .keeping import Keeper
    from .metrics import Uncertainty
    from .suite_progress import SuiteProgress
    from .witness import Witness

CLASSES_AT_ONCE = 64
NAMED_SET_ASIDE = 100
GROUP = 32
"""Images or texts that a processor embeds at once: what is computed of them stays in its cache."""

_Embedded = tuple[list["Sample | Flawed"], list["str | None"], np.ndarray]


@dataclass(frozen=True)
class Outcome:
    """What a family measured on a task: metrics, the main metric's uncertainty, samples used.

    The uncertainty is None where there is no main metric.
    """

    metrics: dict[str, float | None]
    uncertainty: Uncertainty | None
    n: int


@dataclass
class SetAside:
    """The samples of a task that could not be used: all are counted, the first are named."""

    count: int = 0
    named: list[str] = field(default_factory=list)

    def add(self, key: str, reason: str) -> None:
        """Count one sample."""
        self.count += 1
        if len(self.named) < NAMED_SET_ASIDE:
            self.named.append(f"{key}: {reason}")


class Embedder:
    """Embeds tasks with one model: images decoded in threads, each classifier built once.

    ``workers`` threads decode images; on processors they embed them too. Order and content of the
    results do not depend on their number. With a ``corruption`` every
    image is corrupted before it is embedded. A ``keeper`` is given all embeddings, a ``witness``
    what becomes of each sample; both belong to one task at a time.
    """

    def __init__(
        self,
        model: ClipModel | VisionEncoder | None,
        workers: int,
        batch_size: int,
        corruption: Corruption | None = None,
        progress: SuiteProgress | None = None,
    ) -> None:
        self.model, self.workers, self.batch_size = model, workers, batch_size
        self.corruption, self.progress = corruption, progress
        self.keeper: Keeper | None = None
        self.witness: Witness | None = None
        self._classifiers: dict[str, np.ndarray] = {}

    def images(
        self, evalset: EvalSet, aside: SetAside
    ) -> Iterator[tuple[list[Sample], np.ndarray]]:
        """Yield batches of a task's samples with their embeddings, float32 (n, d)."""
        yield from self.embed(evalset.samples(), aside)

    def embed(
        self, found: Iterable[Sample | Flawed], aside: SetAside
    ) -> Iterator[tuple[list[Sample], np.ndarray]]:
        """Yield batches of samples with their embeddings, float32 (n, d)."""
        samples: list[Sample] = []
        rows: list[np.ndarray] = []
        for items, flaws, embedded in self._embedded(found):
            rows.extend(embedded)
            if self.progress is not None:  # at once: the first of a group says nothing of the pace
                self.progress.advance(len(items))
            for item, flaw in zip(items, flaws, strict=True):
                if not isinstance(item, Flawed) and flaw is None:
                    samples.append(item)
                    continue
                aside.add(item.key, str(flaw))
                if self.keeper is not None:
                    self.keeper.flawed(item.key, str(flaw))
            while len(samples) >= self.batch_size:
                yield self._batch(samples[: self.batch_size], rows[: self.batch_size])
                samples, rows = samples[self.batch_size :], rows[self.batch_size :]
        if samples:
            yield self._batch(samples, rows)

    def _batch(
        self, samples: list[Sample], rows: list[np.ndarray]
    ) -> tuple[list[Sample], np.ndarray]:
        embedded = np.stack(rows)
        if self.keeper is not None:
            self.keeper.images(samples, embedded)
        return samples, embedded

    def _embedded(self, found: Iterable[Sample | Flawed]) -> Iterator[_Embedded]:
        """Yield groups of items, why each cannot be used or None, embeddings of the others.

        On processors each thread takes a group from files to embeddings by itself: threads that
        share a forward pass wait for each other more than they compute. A GPU gets whole batches
        from here, and the threads decode ahead of it.
        """
        model = self.model
        assert model is not None
        if on_cpu := model.device == "cpu":
            size, most = min(self.batch_size, GROUP), self.workers + 1
        else:
            size, most = self.batch_size, 2
        ahead: deque[tuple[list[Sample | Flawed], list[Future]]] = deque()
        with _threads(self.workers, alone=on_cpu) as pool:

            def finish() -> _Embedded:
                items, futures = ahead.popleft()
                if on_cpu:
                    return items, *futures[0].result()
                return items, *self._forward([future.result() for future in futures])

            for items in _groups(found, size):
                if on_cpu:
                    work = [pool.submit(self._through, items)]
                else:
                    work = [pool.submit(self._prepare, item) for item in items]
                ahead.append((items, work))
                if len(ahead) == most:
                    yield finish()
            while ahead:
                yield finish()

    def _through(self, items: list[Sample | Flawed]) -> tuple[list[str | None], np.ndarray]:
        return self._forward([self._prepare(item) for item in items])

    def _forward(self, prepared: list[torch.Tensor | str]) -> tuple[list[str | None], np.ndarray]:
        assert self.model is not None
        tensors = [tensor for tensor in prepared if not isinstance(tensor, str)]
        embedded = self.model.encode_tensors(tensors) if tensors else np.empty((0, 0), np.float32)
        return [flaw if isinstance(flaw, str) else None for flaw in prepared], embedded

    def _prepare(self, sample: Sample | Flawed) -> torch.Tensor | str:
        """Return the tensor of a sample, or why there is none."""
        assert self.model is not None
        if isinstance(sample, Flawed):
            return sample.reason
        try:
            if self.corruption is None:
                return self.model.prepare(sample.image)
            return self.model.prepare(self.corruption.of(sample.image, sample.key))
        except DataError as error:
            return str(error)

    def texts(self, texts: list[str]) -> np.ndarray:
        """Return the embeddings of texts, float32 (n, d); raise UsageError without a text tower."""
        embedded = self._encode(texts)
        if self.keeper is not None:
            self.keeper.texts(digest(texts), embedded)
        return embedded

    def classifier(self, classnames: tuple[str, ...], templates: tuple[str, ...]) -> np.ndarray:
        """Return the zero-shot classifier, float32 (d, classes); tasks that share it, share it.

        Every template is filled with each class name; the embeddings are normalised, averaged
        and normalised again. Only ``{c}`` is replaced; other braces are text.
        """
        key = digest([classnames, templates])
        if key not in self._classifiers:
            parts: list[np.ndarray] = []
            for start in range(0, len(classnames), CLASSES_AT_ONCE):
                names = classnames[start : start + CLASSES_AT_ONCE]
                texts = [template.replace("{c}", name) for name in names for template in templates]
                embedded = self._encode(texts).reshape(len(names), len(templates), -1)
                parts.append(embedded.mean(axis=1))
            weights = np.concatenate(parts)
            norms = np.linalg.norm(weights, axis=1, keepdims=True)
            self._classifiers[key] = (weights / np.maximum(norms, 1e-12)).T
        if self.keeper is not None:
            self.keeper.texts(key, self._classifiers[key])
        return self._classifiers[key]

    def _encode(self, texts: list[str]) -> np.ndarray:
        if isinstance(self.model, VisionEncoder):
            raise UsageError(f"{self.model.identity['model']} has no text tower")
        assert self.model is not None
        if self.model.device != "cpu" or not texts:
            return self.model.encode_texts(texts)
        parts = [texts[start : start + GROUP] for start in range(0, len(texts), GROUP)]
        with _threads(min(self.workers, len(parts)), alone=True) as pool:
            return np.concatenate(list(pool.map(self.model.encode_texts, parts)))


@contextlib.contextmanager
def _threads(count: int, alone: bool) -> Iterator[ThreadPoolExecutor]:
    """Yield threads; ``alone``, each computes with one processor, whatever torch is set to."""
    import torch

    pool = ThreadPoolExecutor(count, "embed", lambda: torch.set_num_threads(1) if alone else None)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(torch.get_num_threads())  # of this thread; for those to come


def _groups(found: Iterable[Sample | Flawed], size: int) -> Iterator[list[Sample | Flawed]]:
    items = iter(found)
    while group := list(itertools.islice(items, size)):
        yield group
