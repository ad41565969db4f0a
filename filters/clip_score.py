"""Keep samples whose image and caption agree, as a CLIP model sees it.

Source: Hessel et al., "CLIPScore" (arXiv 2104.08718), and DataComp's baseline *CLIP score*
(arXiv 2304.14108); written from the papers and from the selection semantics of DataComp's
tools. The score is a column of the pool, or is computed with any open_clip checkpoint.

The exact form selects as DataComp's tools do. The threshold is the element at (0-based) place
int(n * fraction) of the scores in descending order; everything at or above it stays, so at
least int(n * fraction) + 1 samples and all ties. Of a column, n counts the samples without a
score too. The sane form keeps int(n * fraction) samples, n being those that have a score, and of
ties the smallest uids. A given threshold is inclusive in both; comparisons are made in float32.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from ..errors import DataError, MissingError, UsageError
from ..pools.embedding.score import score_column
from ..pools.images import decode
from .contract import Batch, Decision, Filter, Scorer, View, sql_number
from .published import Published
from .stored import EmbeddedScore

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..pools.clip_model import ClipModel, ModelSpec


_SCORES = (
    "bring it as a column of a source ('datacomp pool add'), or let 'datacomp filter run POOL "
    "clip_score:checkpoint=FILE,model=ARCHITECTURE' score"
)
"""What makes a score that is not there."""

_NUMBER = re.compile(r"U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL\(.*\)")
_SHOWN = 40


class ClipScore(Filter):
    """Keep the samples with the highest CLIP similarity of image and caption.

    The score comes from ``column``, from CommonPool's column of ``arch``, from the ``features``
    that 'datacomp pool embed' computed, or is computed with ``checkpoint``: a weights file
    together with ``model``, or the folder of a run.
    """

    set_level = True
    published = (
        Published("L/14, 30 %", "small", 0.051, 0.173, "3.8M"),
        Published("L/14, 30 %", "medium", 0.273, 0.328, "38M"),
        Published("L/14, 30 %", "large", 0.578, 0.529, "384M"),
        Published("L/14, 30 %", "xlarge", 0.764, 0.650, "3.8B"),
        Published("B/32, 30 %", "small", 0.045, 0.167),
        Published("B/32, 30 %", "medium", 0.285, 0.338),
        Published("B/32, from 0.3", "small", 0.052, 0.161, "2.6M"),
        Published("B/32, from 0.3", "medium", 0.282, 0.333),
        Published("B/32, 30 % minus the best 5 %", "small", 0.052, 0.169),
        Published("B/32, 30 % minus the best 5 %", "medium", 0.281, 0.339),
    )

    fraction: float | None = Field(None, gt=0, le=1, description="part to keep (default 0.3)")
    threshold: float | None = Field(None, description="keep scores at or above this instead")
    arch: Literal["b32", "l14"] | None = Field(None, description="CommonPool's stored score")
    column: str | None = Field(None, description="any score column of the pool")
    features: str | None = Field(None, description="name of features that pool embed computed")
    checkpoint: str | None = Field(None, description="weights file, or folder of a run")
    model: str | None = Field(None, description="open_clip architecture of the weights file")
    model_config_file: str | None = Field(None, description="JSON of an architecture of one's own")
    device: str = Field("auto", description="where to score: auto, cpu, cuda")
    exact: bool = Field(True, description="select as DataComp's tools do, ties and all")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.fraction is not None and self.threshold is not None:
            raise ValueError("give fraction or threshold, not both")
        origins = (self.arch, self.column, self.features, self.checkpoint)
        if sum(value is not None for value in origins) != 1:
            raise ValueError(
                "give one of arch, column, features or checkpoint: where the score comes from"
            )
        return self

    _made: Scorer | None = PrivateAttr(None)

    @property
    def _computed(self) -> bool:
        """Whether what has no score could not be seen, and so is no candidate."""
        return self.checkpoint is not None or self.features is not None

    def scorers(self) -> list[Scorer]:
        """Score with the checkpoint, or take what it scored before."""
        return [self._scorer()] if self._computed else []

    def decide(self, view: View) -> list[Decision]:
        """Find the threshold over all candidates, then compare."""
        if self._computed:
            column = view.score(self._scorer())
        elif self.arch is not None:
            hint = "DataComp's metadata has it ('datacomp pool add POOL METADATA_DIR'); else "
            column = _stored(view, score_column(self.arch), hint + _SCORES)
        else:
            assert self.column is not None
            column = _stored(view, self.column, _SCORES)
        score = f"(CASE WHEN isnan({column}::FLOAT) THEN NULL ELSE {column}::FLOAT END)"
        return [Decision("no_score", f"{score} IS NOT NULL"), *self._high(view, score)]

    def _high(self, view: View, score: str) -> list[Decision]:
        """Keep the high ones among the samples that have a score."""
        if self.threshold is not None:
            return [_at_least(score, self.threshold)]
        fraction = 0.3 if self.fraction is None else self.fraction
        if not self.exact:
            known = self._known(view, score)
            return self._exactly(view, score, known, max(1, int(known * fraction)))
        # Of scores computed here, what could not be scored is no candidate.
        total = self._known(view, score) if self._computed else view.count()
        place = int(total * fraction)
        # DataComp's own tool fails at fraction 1.0; keeping all is what it means.
        limit = None if place == total else _ranked(view, score, place)
        if limit is not None:
            return [_at_least(score, limit)]
        known = self._known(view, score)
        if place == total:
            return []
        raise DataError(
            f"clip_score: fraction {fraction} of {total:,} samples asks for more than the "
            f"{known:,} that have a score; exact=false counts these only"
        )

    def _known(self, view: View, score: str) -> int:
        """Return how many samples have a score; raise DataError if none has."""
        known = view.count(f"{score} IS NOT NULL")
        if known == 0:
            where = self.checkpoint or self.column or self.features or score_column(str(self.arch))
            raise DataError(f"clip_score: no sample has a score: all of {where} are empty or NaN")
        return known

    def _exactly(self, view: View, score: str, known: int, keep: int) -> list[Decision]:
        """Keep so many samples; of those that tie at the threshold, the smallest uids."""
        if keep == known:
            return []
        threshold = _ranked(view, score, keep - 1)
        assert threshold is not None  # so many have a score
        limit = f"{sql_number(threshold)}::FLOAT"
        above = view.count(f"{score} > {limit}")
        last = view.nth("uid", keep - above - 1, where=f"{score} = {limit}")
        among = f"{score} > {limit} OR ({score} = {limit} AND uid <= {last}::UHUGEINT)"
        return [Decision("low_clip_score", among)]

    def _scorer(self) -> Scorer:
        """Return the scorer, made once: its identity is the digest of the weights."""
        if self._made is None and self.features is not None:
            self._made = EmbeddedScore(self.features)
        elif self._made is None:
            assert self.checkpoint is not None
            model = model_of("clip_score", self.checkpoint, self.model, self.model_config_file)
            self._made = ClipScorer(model, self.device)
        return self._made


def model_of(
    use: str, checkpoint: str, architecture: str | None, config_file: str | None
) -> ModelSpec:
    """Return the model of a weights file or of a run's folder, for the filter ``use``."""
    # Asked for here: it brings what a stored score does without.
    from ..pools.clip_model import ModelSpec
    from ..pools.clip_runs import model_of as model_in

    path = Path(checkpoint)
    if architecture is None or path.is_dir():
        return model_in(path, use=use)
    if not path.is_file():
        raise MissingError(f"{use}: no checkpoint at {path}")
    return ModelSpec(architecture, path, None if config_file is None else Path(config_file))


def _stored(view: View, column: str, hint: str) -> str:
    """Return a score column of the pool; text in it must be numbers."""
    found = view.require(column, hint)
    if not _NUMBER.fullmatch(view.kind(column)):
        odd = f"{found} IS NOT NULL AND TRY_CAST({found}::VARCHAR AS FLOAT) IS NULL"
        other = view.nth(f"{found}::VARCHAR", 0, where=odd)
        if other is not None:
            raise UsageError(
                f"clip_score: column {column!r} is no score: it has {other[:_SHOWN]!r}, "
                "expected numbers"
            )
    return found


def _at_least(score: str, threshold: float) -> Decision:
    return Decision("low_clip_score", f"{score} >= {sql_number(threshold)}::FLOAT")


def _ranked(view: View, score: str, place: int) -> float | None:
    """Return the score at a place, from 0, of the descending order; None if none stands there.

    Scores that are stored in half precision have few values: these are counted, not sorted one
    by one.
    """
    return view.nth(score, place, descending=True, repeated=True)


class ClipScorer(Scorer):
    """Computes the cosine of image and caption embeddings, float32."""

    name = "clip_score"
    columns = ("text",)
    images = True
    batch_size = 64
    concurrent = True

    def __init__(self, model: ModelSpec, device: str) -> None:
        self._model, self._device = model, device
        self._identity = model.identity()
        self._clip: ClipModel | None = None
        self._loading, self._alone = threading.Lock(), threading.Lock()
        self.gpu = device != "cpu"

    def identity(self) -> dict[str, Any]:
        """Name the model by architecture, weights and preprocessing."""
        return self._identity

    def score(self, batch: Batch) -> Sequence[float | None]:
        """Return one similarity per sample; None where the image cannot be decoded."""
        clip = self._loaded()
        texts = batch.columns["text"].to_pylist()
        tensors, places = [], []
        for place, data in enumerate(batch.images):
            try:
                tensors.append(clip.prepare(self.seen(decode(data))))
            except DataError:
                continue
            places.append(place)
        values: list[float | None] = [None] * len(texts)
        if places:
            # On a GPU one batch after the other: threads are there to decode.
            with contextlib.nullcontext() if clip.device == "cpu" else self._alone:
                images = clip.encode_tensors(tensors)
                captions = clip.encode_texts([self.read(texts[place]) for place in places])
            similarities = np.einsum("nd,nd->n", images, captions).astype(np.float32)
            for place, value in zip(places, similarities.tolist(), strict=True):
                values[place] = value
        return values

    def _loaded(self) -> ClipModel:
        """Return the model; on a processor each of the threads that share it works alone."""
        with self._loading:
            if self._clip is None:
                self._clip = self._model.load(self._device)
        if self._clip.device == "cpu":
            import torch

            torch.set_num_threads(1)  # sums of several depend, in their last digits, on how many
        return self._clip

    def seen(self, image: Image) -> Image:
        """Return the image as the model is to see it."""
        return image

    def read(self, text: str) -> str:
        """Return the caption as the model is to read it."""
        return text
