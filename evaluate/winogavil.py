"""WinoGAViL: which of the pictures belong to the cue?

For each instance the model picks as many candidates as there are associations; the score is the
Jaccard index of picked and right ones. Instances with 10 or 12 candidates make the main metric.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import DataError
from . import metrics
from .embedding import Embedder, Outcome, SetAside
from .evalsets import EvalSet
from .samples import Flawed, Puzzle, Sample
from .witness import Associations

SIZES = (5, 6, 10, 12)
FEW, MANY = 6, 10


@dataclass
class _Pictures:
    """Hands out each picture once, and notes the instances on the way."""

    evalset: EvalSet
    aside: SetAside
    items: list[Puzzle | Flawed] = field(default_factory=list)

    def __iter__(self) -> Iterator[Sample]:
        seen: set[str] = set()
        for puzzle in self.evalset.puzzles():
            if isinstance(puzzle, Flawed):
                self.items.append(puzzle)
                self.aside.add(puzzle.key, puzzle.reason)
                continue
            self.items.append(replace(puzzle, images=()))
            for name, image in zip(puzzle.names, puzzle.images, strict=True):
                if name not in seen:
                    seen.add(name)
                    yield Sample(name, image)


def evaluate_winogavil(evalset: EvalSet, embedder: Embedder, aside: SetAside) -> Outcome:
    """Return the mean Jaccard index, over all instances and by number of candidates.

    A picture that several instances show is embedded once.
    """
    pictures = _Pictures(evalset, aside)
    broken = SetAside()
    vectors: dict[str, np.ndarray] = {}
    for samples, embedded in embedder.embed(pictures, broken):
        names = [sample.key for sample in samples]
        vectors.update(zip(names, embedded, strict=True))
        if isinstance(embedder.witness, Associations):
            embedder.witness.seen(samples)
    if embedder.keeper is not None:
        embedder.keeper.puzzles(pictures.items)
    usable: list[Puzzle] = []
    for instance in pictures.items:
        if isinstance(instance, Flawed):
            continue
        if all(name in vectors for name in instance.names):
            usable.append(instance)
        else:
            aside.add(instance.key, "a candidate's image cannot be decoded")
    if not usable:
        raise DataError(f"{evalset.path}: not one usable instance ({aside.count} set aside)")
    cues = embedder.texts([prompt(instance.cue) for instance in usable])
    cosines = [
        np.stack([vectors[name] for name in instance.names]) @ cue
        for instance, cue in zip(usable, cues, strict=True)
    ]
    rights = [np.array(instance.right) for instance in usable]
    picks = [pick(found, right) for found, right in zip(cosines, rights, strict=True)]
    scores = [jaccard(picked, right) for picked, right in zip(picks, rights, strict=True)]
    if isinstance(embedder.witness, Associations):
        embedder.witness.solved(list(zip(usable, cosines, picks, scores, strict=True)))
    sizes = [len(instance.right) for instance in usable]
    return summarise(np.array(scores), np.array(sizes), evalset.task.seed)


def prompt(cue: str) -> str:
    """Return the text of a cue: an article, chosen by the first letter, and the cue.

    >>> prompt("Egg"), prompt("wolf")
    ('An egg', 'A wolf')
    """
    cue = cue.lower()
    return f"{'An' if cue[0] in 'aeiou' else 'A'} {cue}"


def pick(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return which candidates have the best ``right.sum()`` scores (n,), bool (n,).

    Of equal ones the later is picked, as DataComp's ascending sort leaves it.
    """
    picked = np.zeros(len(right), bool)
    picked[np.argsort(scores, kind="stable")[len(scores) - int(right.sum()) :]] = True
    return picked


def jaccard(picked: np.ndarray, right: np.ndarray) -> float:
    """Return the Jaccard index of two sets of candidates, bool (n,) each; one is not empty."""
    return float((picked & right).sum() / (picked | right).sum())


def summarise(scores: np.ndarray, sizes: np.ndarray, seed: int) -> Outcome:
    """Average the scores (n,) of instances by their numbers of candidates, ``sizes`` (n,)."""
    chosen = {
        "avg_jaccard_score": sizes > 0,
        **{f"jaccard_score_{size}": sizes == size for size in SIZES},
        "jaccard_score_5-6": sizes <= FEW,
        "jaccard_score_10-12": sizes >= MANY,
    }
    values = {name: _mean(scores[which]) for name, which in chosen.items()}
    many = scores[sizes >= MANY]
    uncertainty = metrics.mean_uncertainty(many, seed) if len(many) else None
    return Outcome(values, uncertainty, len(scores))


def _mean(scores: np.ndarray) -> float | None:
    return float(scores.mean()) if len(scores) else None
