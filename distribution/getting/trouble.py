"""What a source of bytes can do wrong, and what follows from it."""

from __future__ import annotations

from enum import Enum


class Consequence(Enum):
    """What becomes of a source that gave trouble."""

    RETRY = "asked again later"
    SKIP = "not asked for that file again"
    DROP = "dropped"


class SourceTrouble(Exception):  # noqa: N818  it is dealt with, not raised to a user
    """A source did not give what was asked of it; ``str`` says what it did, in a few words."""

    def __init__(self, what: str, consequence: Consequence) -> None:
        super().__init__(what)
        self.consequence = consequence

    @property
    def may_pass(self) -> bool:
        """Whether it is worth asking again."""
        return self.consequence is Consequence.RETRY
