"""The first sense WordNet gives a word, read from WordNet's own database files.

DataComp asks nltk for ``wordnet.synsets(word)[0]``. Which sense comes first depends on nltk's
version, since its search for base forms has changed; this is the search of the version that
DataComp pins (3.8.1): nouns before verbs, adjectives and adverbs; within one, the word itself
and the base forms that the exceptions or else the endings lead to; endings are taken off again
and again until a form is found.

WordNet 3.0 (Princeton University; its licence allows any use with the notice kept) comes with
Debian's ``wordnet-base`` and with nltk's data ``wordnet``. Other versions number their synsets
otherwise, so they are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from ..durable import sha256_file
from ..errors import DataError, MissingError, UnsafeInputError

PARTS = ("noun", "verb", "adj", "adv")
_VERSION = "WordNet 3.0 "
_NOTICE = 4096
"""Within how many characters of an index file its notice names the version."""
_MAX_BYTES = 64 << 20
_ENDINGS = {
    "noun": (
        ("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"),
        ("shes", "sh"), ("men", "man"), ("ies", "y"),
    ),
    "verb": (
        ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""),
        ("ing", "e"), ("ing", ""),
    ),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}  # fmt: skip
"""What is taken off a word's end, and what is put there instead, by part of speech."""


class WordNet:
    """The first senses of a WordNet 3.0 database: a folder with ``index.noun``, ``noun.exc``, ...

    Raises MissingError for a folder without these files, DataError for another version.
    """

    def __init__(self, folder: Path) -> None:
        files = [folder / name for part in PARTS for name in (f"index.{part}", f"{part}.exc")]
        for file in files:
            if not file.is_file():
                raise MissingError(f"{folder}: not a WordNet database: it has no {file.name}")
            if file.stat().st_size > _MAX_BYTES:
                raise UnsafeInputError(f"{file}: larger than any WordNet; not read")
        self._senses = {part: _read_index(folder / f"index.{part}") for part in PARTS}
        self._exceptions = {part: _read_exceptions(folder / f"{part}.exc") for part in PARTS}
        digests = "".join(sha256_file(file) for file in files)
        self.digest = hashlib.sha256(digests.encode()).hexdigest()

    def first(self, word: str) -> tuple[str, int] | None:
        """Return part of speech and offset of the first sense, or None for an unknown word."""
        word = word.lower()
        for part in PARTS:
            offset = self._first_as(part, word)
            if offset is not None:
                return part, offset
        return None

    def _first_as(self, part: str, word: str) -> int | None:
        """Return the offset of the first sense a word has as one part of speech."""
        senses = self._senses[part]
        exceptions = self._exceptions[part].get(word)
        if exceptions is not None:
            return _first_known(senses, (word, *exceptions))
        forms = [word]
        while forms:
            offset = _first_known(senses, forms)
            if offset is not None:
                return offset
            forms = _shortened(part, forms)
        return None


def _shortened(part: str, forms: list[str]) -> list[str]:
    """Return what the endings lead to, in nltk's order: by form, then by ending."""
    endings = _ENDINGS[part]
    return [form[: -len(old)] + new for form in forms for old, new in endings if form.endswith(old)]


def _first_known(senses: dict[str, int], forms: Iterable[str]) -> int | None:
    return next((senses[form] for form in forms if form in senses), None)


def _read_index(path: Path) -> dict[str, int]:
    """Return the offset of each lemma's first sense."""
    text = _text(path)
    if _VERSION not in text[:_NOTICE]:
        raise DataError(f"{path}: not of WordNet 3.0, whose synset numbers name ImageNet's classes")
    senses: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line or line.startswith(" "):
            continue
        # lemma pos synset_cnt p_cnt [pointer...] sense_cnt tagsense_cnt offset...
        fields = line.split()
        try:
            senses[fields[0]] = int(fields[6 + int(fields[3])])
        except (IndexError, ValueError):
            raise DataError(f"{path}:{number}: not a line of a WordNet index") from None
    return senses


def _read_exceptions(path: Path) -> dict[str, list[str]]:
    """Return the base forms of each inflected form that no rule explains."""
    lines = (line.split() for line in _text(path).split("\n"))
    return {inflected: base for inflected, *base in filter(None, lines)}


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}") from None
