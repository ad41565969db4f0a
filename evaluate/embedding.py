"""What every family of tasks shares: one model, decoding ahead of it, classifiers kept."""

from __future__ import annotations

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

    Order and content of the results do not depend on ``workers``. With a ``corruption`` every
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
        tensors: list[torch.Tensor] = []
        for sample, tensor in self._decoded(found):
            if self.progress is not None:
                self.progress.advance()
            if isinstance(sample, Flawed) or isinstance(tensor, DataError):
                reason = sample.reason if isinstance(sample, Flawed) else str(tensor)
                aside.add(sample.key, reason)
                if self.keeper is not None:
                    self.keeper.flawed(sample.key, reason)
                continue
            samples.append(sample)
            tensors.append(tensor)
            if len(samples) == self.batch_size:
                yield self._batch(samples, tensors)
                samples, tensors = [], []
        if samples:
            yield self._batch(samples, tensors)

    def _batch(
        self, samples: list[Sample], tensors: list[torch.Tensor]
    ) -> tuple[list[Sample], np.ndarray]:
        assert self.model is not None
        embedded = self.model.encode_tensors(tensors)
        if self.keeper is not None:
            self.keeper.images(samples, embedded)
        return samples, embedded

    def _decoded(self, samples: Iterable[Sample | Flawed]) -> Iterator[tuple]:
        ahead: deque[tuple[Sample | Flawed, Future | None]] = deque()
        with ThreadPoolExecutor(self.workers, "decode") as pool:
            try:
                for sample in samples:
                    flawed = isinstance(sample, Flawed)
                    work = None if flawed else pool.submit(self._prepare, sample)
                    ahead.append((sample, work))
                    if len(ahead) > self.batch_size + self.workers:
                        done, work = ahead.popleft()
                        yield done, work and work.result()
                while ahead:
                    done, work = ahead.popleft()
                    yield done, work and work.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _prepare(self, sample: Sample) -> torch.Tensor | DataError:
        assert self.model is not None
        try:
            if self.corruption is None:
                return self.model.prepare(sample.image)
            return self.model.prepare(self.corruption.of(sample.image, sample.key))
        except DataError as error:
            return error

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
        return self.model.encode_texts(texts)
