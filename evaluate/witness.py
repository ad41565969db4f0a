"""What became of each sample of a task: remembered for its page, the worst with their images."""

from __future__ import annotations

import heapq
import io
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import DataError
from ..pools.images import decode
from .samples import Puzzle, Sample

WORST = 48
"""Mistakes of a classification remembered with their images."""
MISSED = 24
"""Queries of a retrieval remembered, each way, and instances of WinoGAViL."""
PREVIEW = 192
"""Longest side of a preview in px."""
_HELD = 16 << 20
"""Bytes of previews in memory; more of them go to a temporary file."""


class Witness:
    """Sees what becomes of the samples of a task; each family has one of its own."""


# -- classification ---------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Mistake:
    """A sample taken for another class; ``margin`` is by how much, as a difference of cosines."""

    margin: float
    key: str
    label: int = field(compare=False)
    prediction: int = field(compare=False)
    image: bytes = field(compare=False, repr=False)


class Confusions(Witness):
    """Sees the scores of every sample; remembers counts, and the worst WORST mistakes."""

    def __init__(self) -> None:
        self.confusion: Counter[tuple[int, int]] = Counter()
        """How often (label, prediction) came up."""
        self._worst: list[Mistake] = []

    @property
    def worst(self) -> list[Mistake]:
        """Return the mistakes by the largest margins, the worst first."""
        return sorted(self._worst, key=lambda mistake: (-mistake.margin, mistake.key))

    def classified(self, samples: Sequence[Sample], cosines: np.ndarray) -> None:
        """See a batch: ``cosines`` float32 (n, classes) of samples that have labels."""
        labels = np.array([sample.label for sample in samples])
        predictions = cosines.argmax(axis=1)
        rows = np.arange(len(samples))
        margins = cosines[rows, predictions] - cosines[rows, labels]
        self.confusion.update(zip(labels.tolist(), predictions.tolist(), strict=True))
        for row in np.flatnonzero(labels != predictions).tolist():
            mistake = Mistake(
                float(margins[row]), samples[row].key, int(labels[row]), int(predictions[row]),
                samples[row].image,
            )  # fmt: skip
            if len(self._worst) < WORST:
                heapq.heappush(self._worst, mistake)
            elif self._worst[0] < mistake:
                heapq.heapreplace(self._worst, mistake)


# -- retrieval --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """An image with one of its captions; ``preview`` is None where it cannot be decoded."""

    key: str
    caption: str
    preview: bytes | None = field(repr=False)


@dataclass(frozen=True)
class Miss:
    """A query whose answer is not the first: ``rank`` counts from 0, ``first`` came first."""

    rank: int
    wanted: Shown
    first: Shown


class Misses(Witness):
    """Sees pairs and their ranks; remembers all ranks, and the worst MISSED queries each way."""

    def __init__(self) -> None:
        self.image_ranks = self.text_ranks = np.zeros(0, np.int64)
        """The rank of each caption's image, and of each image's best caption."""
        self.images: list[Miss] = []
        """Captions whose image is not found, the worst first."""
        self.texts: list[Miss] = []
        """Images none of whose captions is found, the worst first."""
        self._samples: list[tuple[str, tuple[str, ...]]] = []
        self._previews = Previews()

    def seen(self, samples: Sequence[Sample]) -> None:
        """See a batch of images; small copies of all are kept until they are ranked."""
        for sample in samples:
            self._previews.add(len(self._samples), sample.image)
            self._samples.append((sample.key, sample.captions))

    def ranked(
        self,
        images: np.ndarray,
        texts: np.ndarray,
        owner: np.ndarray,
        image_ranks: np.ndarray,
        text_ranks: np.ndarray,
    ) -> None:
        """See the ranks, by the embeddings (n, d) and (m, d); ``owner`` (m,) of each text."""
        self.image_ranks, self.text_ranks = image_ranks, text_ranks
        starts = np.searchsorted(owner, np.arange(len(images)))
        for text in _worst(image_ranks):
            first = int(np.argmax(images @ texts[text]))
            self.images.append(
                Miss(int(image_ranks[text]), self._shown(int(owner[text]), text - starts),
                     self._shown(first, None))
            )  # fmt: skip
        for image in _worst(text_ranks):
            scores = texts @ images[image]
            own = starts[image] + int(np.argmax(scores[owner == image]))
            first = int(np.argmax(scores))
            self.texts.append(
                Miss(int(text_ranks[image]), self._shown(image, own - starts),
                     self._shown(int(owner[first]), first - starts))
            )  # fmt: skip
        self._samples.clear()
        self._previews.clear()

    def _shown(self, image: int, places: np.ndarray | None) -> Shown:
        """Show an image with its caption at ``places[image]``, by default its first."""
        key, captions = self._samples[image]
        caption = captions[0 if places is None else int(places[image])]
        return Shown(key, caption, self._previews.get(image))


def _worst(ranks: np.ndarray) -> list[int]:
    """Return where the worst ranks are; what was found first is none of them."""
    return [place for place in np.argsort(-ranks, kind="stable")[:MISSED].tolist() if ranks[place]]


# -- WinoGAViL --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """A picture of an instance: whether it belongs to the cue, and whether it was picked."""

    right: bool
    picked: bool
    cosine: float
    preview: bytes | None = field(repr=False)


@dataclass(frozen=True)
class Association:
    """An instance of WinoGAViL as it was solved; candidates in the order of the model."""

    key: str
    cue: str
    jaccard: float
    candidates: tuple[Candidate, ...]


class Associations(Witness):
    """Sees pictures and solved instances; remembers all scores, and the worst MISSED instances.

    Among equal scores the worse is where what was picked wrongly lies further before what was
    missed.
    """

    def __init__(self) -> None:
        self.scores: list[tuple[int, float]] = []
        """Number of candidates and Jaccard index of each instance."""
        self.worst: list[Association] = []
        self._previews = Previews()

    def seen(self, samples: Sequence[Sample]) -> None:
        """See a batch of pictures; small copies of all are kept until the instances are solved."""
        for sample in samples:
            self._previews.add(sample.key, sample.image)

    def solved(self, instances: Sequence[tuple[Puzzle, np.ndarray, np.ndarray, float]]) -> None:
        """See instances with their cosines (n,), what was picked (n,) bool, and their scores."""
        margins: list[float] = []
        for puzzle, cosines, picked, score in instances:
            right = np.array(puzzle.right)
            wrong, missed = cosines[picked & ~right], cosines[right & ~picked]
            margins.append(float(wrong.mean() - missed.mean()) if len(wrong) else 0.0)
            self.scores.append((len(right), score))
        order = sorted(
            range(len(instances)), key=lambda n: (instances[n][3], -margins[n], instances[n][0].key)
        )
        for number in order[:MISSED]:
            puzzle, cosines, picked, score = instances[number]
            if score < 1:
                self.worst.append(self._shown(puzzle, cosines, picked, score))
        self._previews.clear()

    def _shown(
        self, puzzle: Puzzle, cosines: np.ndarray, picked: np.ndarray, score: float
    ) -> Association:
        candidates = tuple(
            Candidate(
                puzzle.right[place], bool(picked[place]), float(cosines[place]),
                self._previews.get(puzzle.names[place]),
            )
            for place in np.argsort(-cosines, kind="stable").tolist()
        )  # fmt: skip
        return Association(puzzle.key, puzzle.cue, score, candidates)


# -- all --------------------------------------------------------------------------------------


def witness_of(family: str) -> Witness:
    """Return a witness for a task of a family. For faces the metrics say everything."""
    return {"retrieval": Misses, "winogavil": Associations, "faces": Witness}.get(
        family, Confusions
    )()


class Previews:
    """Small copies of images, by number or name, of which memory holds a bounded part."""

    def __init__(self) -> None:
        self._file: tempfile.SpooledTemporaryFile[bytes] | None = None
        self._places: dict[int | str, tuple[int, int]] = {}

    def add(self, key: int | str, image: bytes) -> None:
        """Keep a small copy of an image, if it can be decoded."""
        small = preview(image)
        if small is None:
            return
        if self._file is None:
            self._file = tempfile.SpooledTemporaryFile(_HELD)  # noqa: SIM115  until cleared
        self._places[key] = (self._file.seek(0, io.SEEK_END), len(small))
        self._file.write(small)

    def get(self, key: int | str) -> bytes | None:
        """Return the copy, None where there is none."""
        if self._file is None or key not in self._places:
            return None
        start, size = self._places[key]
        self._file.seek(start)
        return self._file.read(size)

    def clear(self) -> None:
        """Forget all copies."""
        if self._file is not None:
            self._file.close()
        self._file = None
        self._places.clear()


def preview(image: bytes) -> bytes | None:
    """Return a small JPEG of an image, None where it cannot be decoded."""
    try:
        small = decode(image)
    except DataError:
        return None
    small.thumbnail((PREVIEW, PREVIEW))
    buffer = io.BytesIO()
    small.convert("RGB").save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
