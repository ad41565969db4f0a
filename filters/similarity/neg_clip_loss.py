"""Keep pairs with a low contrastive loss among other pairs.

Source: Wang et al., "CLIPLoss and Norm-Based Data Selection Methods for Multimodal Contrastive
Learning" (arXiv 2405.19547), *negCLIPLoss* (later *s-CLIPLoss*); written from the paper. The score
of a pair in a batch is its similarity less temperature / 2 times the log-sum-exp of its image with
all captions, and of its caption with all images, each divided by the temperature: the CLIP loss of
the pair by the model that made the features, with its sign turned. It is the mean over several
random divisions of the pool into batches. Batches here are drawn from the whole pool and are of
equal size, where the authors draw within a file of metadata and leave a smaller last one.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...errors import DataError
from ...pools.uids import UID_DTYPE, UidArray
from ...progress import Progress
from ..contract import Decision, Scorer, View
from ..nearest import asks_for_gpu, usable_device
from ..products import products
from ..published import Published
from ..ranking import Ranked
from ..sets import Samples, SpreadScorer, Values
from ..spool import Spool, gathered
from ..together import Exchange, Records, Sum, Together, save, send, uids_of
from ..vectors import Floats, draw, unit

_ROWS = 1024
"""How many images are compared with all captions of a batch at a time."""


class NegClipLoss(Ranked):
    """Keep the pairs whose image and caption fit each other better than they fit other pairs.

    The work grows with the number of samples times batch_size times repeats; a GPU is used when
    there.
    """

    published = (Published("L/14, 30 %", "medium", 0.288, 0.344, "33M", source="arXiv 2405.19547"),)

    arch: str = Field(
        "l14", description="features of image and caption: b32, l14, or a name of pool embed's"
    )
    temperature: float = Field(
        0.01, gt=0, le=1, description="that of the model: 0.01 is OpenAI's CLIP"
    )
    batch_size: int = Field(32768, ge=2, le=1 << 17, description="pairs in a batch")
    repeats: int = Field(10, ge=1, le=1000, description="divisions into batches to average over")
    seed: int = Field(0, description="another seed makes other batches")
    device: str = Field("auto", description="where to compare: auto, cpu, cuda")

    def scorers(self) -> list[Scorer]:
        """Compute the loss of each pair."""
        return [self._scorer()]

    def decide(self, view: View) -> list[Decision]:
        """Keep the pairs of the lowest loss."""
        return self.high(view, view.score(self._scorer()), "high_clip_loss")

    def _scorer(self) -> NegClipLossScorer:
        return NegClipLossScorer(
            self.arch, self.temperature, self.batch_size, self.repeats, self.seed, self.device
        )


class NegClipLossScorer(SpreadScorer):
    """Computes the CLIP loss of each pair, its sign turned, times the temperature; float32."""

    name = "neg_clip_loss"

    def __init__(
        self, arch: str, temperature: float, size: int, repeats: int, seed: int, device: str
    ) -> None:
        self.features = (f"{arch}_img", f"{arch}_txt")
        self._temperature, self._size, self._repeats = temperature, size, repeats
        self._seed, self._device = seed, device

    def identity(self) -> dict[str, Any]:
        """Name the features, and how batches are made."""
        return {
            "features": list(self.features),
            "temperature": self._temperature,
            "batch_size": self._size,
            "repeats": self._repeats,
            "seed": self._seed,
        }

    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Yield the mean over all divisions; pairs without usable features are left out."""
        device = usable_device(self._device)
        with self._pairs(samples) as (uids, images, captions):
            if not len(uids):
                return
            total = np.zeros(len(uids))
            batches = math.ceil(len(uids) / self._size)
            # Of one batch, every division is the same.
            repeats = 1 if batches == 1 else self._repeats
            with Progress(f"scoring {self.name}", len(uids) * repeats, "comparisons") as progress:
                for repeat in range(repeats):
                    order = np.lexsort((uids["f1"], uids["f0"], draw(uids, self._seed, repeat)))
                    for places in np.array_split(order, batches):
                        image, _ = unit(images.take(places))
                        caption, _ = unit(captions.take(places))
                        total[places] += neg_clip_loss(image, caption, self._temperature, device)
                        progress.advance(len(places))
        for start in range(0, len(uids), self.batch_size):
            part = slice(start, start + self.batch_size)
            yield uids[part], (total[part] / repeats).astype(np.float32)

    def score_apart(
        self, samples: Samples, together: Together
    ) -> Iterator[tuple[UidArray, Values]]:
        """Yield the mean of a partition's pairs; a batch is the work of one worker."""
        place, done = together.place, list[Division]()
        repeats, repeat = self._repeats, 0
        while repeat < repeats:
            file = self._shares(samples, together, repeat)
            rows = int(np.load(file, mmap_mode="r", allow_pickle=False)[0].sum())
            if not rows:
                return
            if rows <= self._size:
                repeats = 1  # of one batch, every division is the same
            joint = Division(
                self.digest(), repeat, rows, self._size, self._temperature, self._seed,
                "cpu" if self._device == "auto" else self._device, str(file),
            )  # fmt: skip

            def share(joint: Division = joint) -> None:
                if done:  # the vectors of the last division have been used
                    place.file(done[-1]).unlink(missing_ok=True)
                self._send(joint, samples, together)

            together.ask(joint, share)
            done.append(joint)
            repeat += 1
        every = [np.concatenate([np.empty(0, _LOSS), *one.answers(place)]) for one in done]
        every = [part[np.lexsort((part["f1"], part["f0"]))] for part in every]
        total = np.zeros(len(every[0]))
        for part in every:
            total += part["loss"]
        yield uids_of(every[0]), (total / repeats).astype(np.float32)

    @contextlib.contextmanager
    def _pairs(self, samples: Samples) -> Iterator[tuple[UidArray, Spool, Spool]]:
        """Yield uids (n,), and the features of their images and captions."""
        with gathered(samples) as (uids, (images, captions)):
            if images.dimension != captions.dimension:
                image, caption = self.features
                raise DataError(
                    f"{self.name}: the features {image} have {images.dimension} numbers each, but "
                    f"{caption} have {captions.dimension}: they are of different models and cannot "
                    "be compared"
                )
            yield uids, images, captions

    def _shares(self, samples: Samples, together: Together, repeat: int) -> Any:
        """Return the file of how many draws of all partitions lie where, from ``repeat`` on."""
        first = repeat // _AT_ONCE * _AT_ONCE
        joint = Sum(f"draws from {first}", self.digest())

        def share() -> None:
            with gathered(samples) as (uids, _):
                numbers = range(first, min(first + _AT_ONCE, self._repeats))
                counts = [
                    np.bincount(_bucket(draw(uids, self._seed, n)), minlength=_BUCKETS)
                    for n in numbers
                ]
            save(together.place.file(joint), np.stack(counts))

        return joint.total(together.place, together.ask(joint, share))

    def _send(self, joint: Division, samples: Samples, together: Together) -> None:
        """Send the pairs of a partition to the workers of their batches."""
        place = together.place
        with self._pairs(samples) as (uids, images, captions):
            first, last = joint.ways(place.count)
            buckets = _bucket(draw(uids, self._seed, joint.repeat))
            # Those near the end of a worker's batches go to the next one too.
            several = (last - first + 1)[buckets]
            pairs = np.repeat(np.arange(len(uids)), several)
            ways = np.repeat(first[buckets], several)
            ways += np.arange(len(pairs)) - np.repeat(np.cumsum(several) - several, several)
            kind = np.dtype([
                ("f0", "<u8"), ("f1", "<u8"),
                ("image", images.dtype, (images.dimension,)),
                ("caption", captions.dtype, (captions.dimension,)),
            ])  # fmt: skip

            def records(places: NDArray[np.int64]) -> Records:
                chosen = pairs[places]
                some = np.empty(len(places), kind)
                some["f0"], some["f1"] = uids["f0"][chosen], uids["f1"][chosen]
                some["image"], some["caption"] = images.take(chosen), captions.take(chosen)
                return some

            at_once = max(1, (16 << 20) // kind.itemsize)
            send(place.file(joint), ways, place.count, kind, records, at_once)


_BUCKETS, _AT_ONCE = 1 << 16, 16
"""By so many first bits draws are counted, for so many divisions at a time."""
_LOSS = np.dtype([("f0", "<u8"), ("f1", "<u8"), ("loss", "<f8")])


def _bucket(drawn: NDArray[np.uint64]) -> NDArray[np.int64]:
    return (drawn >> np.uint64(48)).astype(np.int64)


@dataclass(frozen=True)
class Division(Exchange):
    """One division of the pairs of all partitions into batches, in the order of their draws.

    Each way has as many successive batches as the others. ``counts`` is the file of how many
    draws have the same first bits: so each way knows where its first draw stands among all.
    """

    what: str
    repeat: int
    rows: int
    size: int
    temperature: float
    seed: int
    device: str
    counts: str

    @property
    def gpu(self) -> bool:
        """Whether it was said that a GPU compares."""
        return asks_for_gpu(self.device)

    def ways(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first and the last way that wants the pairs of each bucket, (buckets,)."""
        starts = self._starts()
        ends = np.array([self._range(way, count)[1] for way in range(count)])
        first = np.searchsorted(ends, starts[:-1], "right")
        last = np.searchsorted(ends, starts[1:] - 1, "right")
        return first, np.maximum(first, last)

    def judge(self, got: Iterator[tuple[int, Records]]) -> tuple[NDArray[np.int64], Records]:
        """Refuse: it matters which way it is."""
        raise TypeError("batches have their ways")

    def judge_way(
        self, got: Iterator[tuple[int, Records]], way: int, count: int
    ) -> tuple[NDArray[np.int64], Records]:
        """Compute the loss of the pairs of some batches."""
        numbers, parts = [np.empty(0, np.int64)], [np.empty(0, UID_DTYPE)]
        spools: list[Spool] = []
        try:
            for number, records in got:
                if not len(records):  # of a file without features: no dimension either
                    continue
                numbers.append(np.full(len(records), number))
                parts.append(uids_of(records))
                vectors = [records[name] for name in ("image", "caption")]
                spools = spools or [Spool(0, v.shape[1], v.dtype) for v in vectors]
                for spool, rows in zip(spools, vectors, strict=True):
                    spool.append(rows)
            number, uids = np.concatenate(numbers), np.concatenate(parts)
            drawn = draw(uids, self.seed, self.repeat)
            order = np.lexsort((uids["f1"], uids["f0"], drawn))
            start, end = self._range(way, count)
            losses, places = [np.empty(0)], [np.empty(0, np.int64)]
            if start < end:
                starts = self._starts()
                before = int(starts[np.searchsorted(starts, start, "right") - 1])
                device = usable_device(self.device)
                for first, last in self._batches(way, count):
                    chosen = order[first - before : last - before]
                    image, caption = (unit(spool.take(chosen))[0] for spool in spools)
                    losses.append(neg_clip_loss(image, caption, self.temperature, device))
                    places.append(chosen)
        finally:
            for spool in spools:
                spool.close()
        chosen = np.concatenate(places)
        found = np.empty(len(chosen), _LOSS)
        found["f0"], found["f1"] = uids["f0"][chosen], uids["f1"][chosen]
        found["loss"] = np.concatenate(losses)
        return number[chosen], found

    def _starts(self) -> NDArray[np.int64]:
        """Return how many draws stand before each bucket, and all, shape (buckets + 1,)."""
        counts = np.load(self.counts, mmap_mode="r", allow_pickle=False)[self.repeat % _AT_ONCE]
        return np.concatenate([[0], np.cumsum(counts)])

    def _batches(self, way: int, count: int) -> list[tuple[int, int]]:
        """Return from where to where the batches of a way reach, as numpy's array_split cuts."""
        batches = math.ceil(self.rows / self.size)
        least, larger = divmod(self.rows, batches)
        numbers = range(batches * way // count, batches * (way + 1) // count + 1)
        cuts = [n * least + min(n, larger) for n in numbers]
        return [*itertools.pairwise(cuts)]

    def _range(self, way: int, count: int) -> tuple[int, int]:
        """Return from where to where a way's batches reach in all."""
        batches = math.ceil(self.rows / self.size)
        least, larger = divmod(self.rows, batches)
        ends = [batches * n // count for n in (way, way + 1)]
        start, end = (n * least + min(n, larger) for n in ends)
        return start, end


def neg_clip_loss(
    images: Floats, captions: Floats, temperature: float, device: str = "cpu"
) -> NDArray[np.float64]:
    """Return the score of each pair of one batch, unit vectors of shape (n, d), as (n,)."""
    compare = _Torch(captions, device) if device != "cpu" else _Numpy(captions)
    of_images, of_captions = np.empty(len(images)), np.full(len(images), -np.inf)
    for start in range(0, len(images), _ROWS):
        rows, columns = compare.log_sums(images[start : start + _ROWS], temperature)
        of_images[start : start + len(rows)] = rows
        of_captions = np.logaddexp(of_captions, columns)
    own = np.einsum("nd,nd->n", images, captions, dtype=np.float64)
    return own - temperature / 2 * (of_images + of_captions)


class _Numpy:
    """Compares some images with all captions, on the CPU."""

    def __init__(self, captions: Floats) -> None:
        self._captions = captions

    def log_sums(
        self, images: Floats, temperature: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the log-sum-exp over all captions, and for each caption over these images."""
        logits = products(images, self._captions)
        logits /= np.float32(temperature)
        return _log_sum(logits, 1), _log_sum(logits, 0)


def _log_sum(logits: Floats, axis: int) -> NDArray[np.float64]:
    # Less the largest, nothing overflows at however low a temperature.
    largest = logits.max(axis=axis, keepdims=True)
    powers = logits - largest
    np.exp(powers, out=powers)
    return np.log(powers.sum(axis=axis, dtype=np.float64)) + largest.squeeze(axis)


class _Torch:
    """Does the same with torch, on another device."""

    def __init__(self, captions: Floats, device: str) -> None:
        import torch

        self._captions = torch.from_numpy(captions).to(device)

    def log_sums(
        self, images: Floats, temperature: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the log-sum-exp over all captions, and for each caption over these images."""
        import torch

        with torch.inference_mode():
            here = torch.from_numpy(images).to(self._captions.device)
            logits = here @ self._captions.T / temperature
            rows, columns = logits.logsumexp(1), logits.logsumexp(0)
        return rows.double().cpu().numpy(), columns.double().cpu().numpy()
