"""What an evaluation set holds, however it is kept."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One test sample: the image's bytes, and its label, its metadata or its captions."""

    key: str
    image: bytes
    label: int = -1
    captions: tuple[str, ...] = ()
    metadata: tuple[float, ...] = ()


@dataclass(frozen=True)
class Puzzle:
    """One instance of WinoGAViL: a cue, its candidates, and which of them belong to it.

    ``names`` are the SHA-256 of the candidates' ``images``: many instances share them.
    """

    key: str
    cue: str
    images: tuple[bytes, ...]
    right: tuple[bool, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Flawed:
    """A test sample that cannot be used, and why."""

    key: str
    reason: str


def lines(text: str) -> tuple[str, ...]:
    """Split at line feeds only: some captions hold other characters that end a line in Unicode."""
    return tuple(line.strip() for line in text.removesuffix("\n").split("\n"))
