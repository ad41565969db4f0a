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

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...pools.uids import UidArray
from ...progress import Progress
from ..contract import Decision, Scorer, View
from ..nearest import usable_device
from ..products import products
from ..published import Published
from ..ranking import Ranked
from ..sets import Samples, SetScorer, Values
from ..spool import gathered
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


class NegClipLossScorer(SetScorer):
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
        with gathered(samples) as (uids, (images, captions)):
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
