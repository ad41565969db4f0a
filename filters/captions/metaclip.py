"""Balance captions over a list of entries: all of the rare ones, some of the frequent ones.

Source: Xu et al., "Demystifying CLIP Data" (arXiv 2309.16671); written from the paper. A caption
matches the entries (of WordNet, of Wikipedia's words, word pairs and titles) that stand in it as
whole words. Of an entry that more than t captions match, each of these is drawn with probability
t / count; a caption stays if it is drawn for one entry or more, and one that matches nothing drops
out. So the score is 1 - prod(1 - t / max(count, t)) over the entries of a caption, and one draw
with that probability does what a draw for each entry does.

Before it is compared, `, . ; : ? ! `` become words of their own; letters are compared as they are.
The paper takes t = 20,000 for 400M pairs and 170,000 for 2.5B.
"""

from __future__ import annotations

import functools
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...durable import atomic_path, sha256_file, storage_errors
from ...errors import DataError, MissingError, UnsafeInputError
from ...pools.uids import UidArray
from ...progress import Progress
from ..contract import Decision, Filter, Scorer, View
from ..language import HAS_CAPTION
from ..sets import Samples, SpreadScorer, Values
from ..together import Sum, Together, save

_MAX_BYTES = 256 << 20
_MARKS = re.compile(r"[,.;:?!`]")
_SPACES = str.maketrans("\t\n\r", "   ")


class Metaclip(Filter):
    """Keep captions so that no entry of a list is met much more often than t times.

    MetaCLIP's own list is its metadata.json of 500,000 entries; any list of words and phrases
    will do, as JSON or one a line.
    """

    set_level = True
    not_reported = (
        "the paper trains on pools of its own: of 400M pairs a ViT-B has .708 on ImageNet, of "
        "CLIP's .683"
    )

    entries_file: str = Field(..., description="list of entries: a JSON array, or one a line")
    t: int = Field(20_000, ge=1, description="how many captions an entry may have before any drop")
    seed: int = Field(0, description="another seed draws other captions")

    def scorers(self) -> list[Scorer]:
        """Compute the probability of each caption."""
        return [self._scorer()]

    def before_scoring(self, view: View) -> list[Decision]:
        """Ask for a caption."""
        return [HAS_CAPTION]

    def decide(self, view: View) -> list[Decision]:
        """Draw."""
        chance = view.score(self._scorer())
        drawn = f"md5_number_lower(printf('%032x', uid) || '/metaclip/{self.seed}')"
        return [
            HAS_CAPTION,
            Decision("no_entry", f"{chance} > 0"),
            Decision("not_drawn", f"({drawn} // 2048)::DOUBLE / 9007199254740992 < {chance}"),
        ]

    def _scorer(self) -> BalanceScorer:
        return BalanceScorer(Path(self.entries_file), self.t)


class BalanceScorer(SpreadScorer):
    """The probability with which balancing keeps a caption; 0 if it matches nothing."""

    name = "metaclip"
    type = "DOUBLE"
    columns = ("text",)

    def __init__(self, path: Path, t: int) -> None:
        if not path.is_file():
            raise MissingError(f"{path}: no such list of entries")
        self._path, self._t = path, t

    def identity(self) -> dict[str, Any]:
        """Name the list by digest, and t."""
        return {"entries": sha256_file(self._path), "t": self._t}

    def score_set(self, samples: Samples) -> Iterator[tuple[UidArray, Values]]:
        """Count what matches each entry, then yield each caption's probability."""
        with storage_errors(tempfile.gettempdir()), tempfile.TemporaryFile() as matched:
            counts = self._match(samples, matched)
            yield from self._chances(matched, counts)

    def score_apart(
        self, samples: Samples, together: Together
    ) -> Iterator[tuple[UidArray, Values]]:
        """Let all partitions count, then yield the probabilities of one."""
        joint = Sum("matches", self.digest())
        kept = together.place.file(joint, "matched")

        def share() -> None:
            with atomic_path(kept) as partial, partial.open("w+b") as matched:
                counts = self._match(samples, matched)
            save(together.place.file(joint), counts)

        file = joint.total(together.place, together.ask(joint, share))
        with kept.open("rb") as matched:
            yield from self._chances(matched, np.load(file, allow_pickle=False))

    def _match(self, samples: Samples, matched: IO[bytes]) -> NDArray[np.int64]:
        """Write what each caption matches; return how many match each entry, shape (entries,)."""
        entries = load(self._path)
        counts = np.zeros(len(entries), np.int64)
        with Progress("matching captions", samples.count) as progress:
            for uids, batch in samples.batches():
                found = [entries.match(text) for text in batch.columns["text"].to_pylist()]
                lengths = np.fromiter(map(len, found), np.int32, len(found))
                ids = np.fromiter((i for some in found for i in some), np.int32, lengths.sum())
                counts += np.bincount(ids, minlength=len(entries))
                for array in (uids, lengths, ids):
                    np.save(matched, array)
                progress.advance(len(uids))
        return counts

    def _chances(
        self, matched: IO[bytes], counts: NDArray[np.int64]
    ) -> Iterator[tuple[UidArray, Values]]:  # fmt: skip
        """Yield each caption's probability."""
        end = matched.seek(0, os.SEEK_END)
        matched.seek(0)
        while matched.tell() < end:
            uids, lengths, ids = (np.load(matched, allow_pickle=False) for _ in range(3))
            yield uids, probabilities(lengths, ids, counts, self._t)


def probabilities(
    lengths: NDArray[np.int32], ids: NDArray[np.int32], counts: NDArray[np.int64], t: int
) -> NDArray[np.float64]:
    """Return the probability of each caption, shape (n,), whose entries stand end to end."""
    missed = 1 - t / np.maximum(counts[ids], t)
    found = np.ones(len(lengths))
    some = lengths > 0
    if some.any():
        starts = (np.cumsum(lengths) - lengths)[some]
        found[some] = np.multiply.reduceat(missed, starts)
    return 1 - found


class Entries:
    """Finds which of a list of words and phrases stand in a text, as whole words.

    Spaces are told apart exactly: an entry of two words needs one space between them. Entries are
    looked up by their words, so a text costs the same however long the list.
    """

    def __init__(self, entries: list[str]) -> None:
        self._numbers: dict[str, list[int]] = {}
        self._longest: dict[str, list[int]] = {}
        for number, entry in enumerate(entries):
            self._numbers.setdefault(entry, []).append(number)
            first, *rest = entry.split(" ")
            lengths = self._longest.setdefault(first, [])
            if 1 + len(rest) not in lengths:
                lengths.append(1 + len(rest))
        self._size = len(entries)

    def __len__(self) -> int:
        return self._size

    def match(self, text: str) -> list[int]:
        """Return the numbers of the entries that stand in a text, each once, in ascending order."""
        words = _MARKS.sub(r" \g<0> ", text).translate(_SPACES).split(" ")
        found: set[int] = set()
        for place, word in enumerate(words):
            for length in self._longest.get(word, ()):
                if place + length <= len(words):
                    entry = word if length == 1 else " ".join(words[place : place + length])
                    found.update(self._numbers.get(entry, ()))
        return sorted(found)


@functools.lru_cache(maxsize=1)
def load(path: Path) -> Entries:
    """Read a list of entries: a JSON array of strings (``.json``), or one a line.

    Raises DataError for what is no such list, UnsafeInputError for one of more than 256 MB.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise UnsafeInputError(f"{path}: larger than any list of entries; not read")
    try:
        text = path.read_bytes().decode()
        found = json.loads(text) if path.suffix == ".json" else text.split("\n")
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a list of entries: {error}") from None
    if not isinstance(found, list) or not all(isinstance(entry, str) for entry in found):
        raise DataError(f"{path}: not a list of entries: expected a JSON array of strings")
    entries = [entry.removesuffix("\r") for entry in found]
    entries = [entry for entry in entries if entry.strip()]
    if not entries:
        raise DataError(f"{path}: the list of entries is empty")
    return Entries(entries)
