"""A source of bytes as the download sees it: its name, what it gave, and how it behaved."""

from __future__ import annotations

import time
from enum import Enum
from typing import Any

STRIKES = 3
"""Failures in a row after which a source is dropped."""
CONVICTIONS = 3
"""Files given wrong after which a source is not used even where there is no other."""
REST = 1.0
"""Seconds of rest after a first failure; twice as many after each further one."""


class Standing(Enum):
    """How far a source is trusted with work."""

    GOOD = "used"
    RESERVE = "used only where there is no other"
    DROPPED = "dropped"


class Source:
    """A mirror, a gateway or the peers of a torrent."""

    def __init__(self, name: str, channel: str) -> None:
        self.name, self.channel = name, channel
        self.standing = Standing.GOOD
        self.reasons: list[str] = []
        self.bytes = 0
        self.files = 0
        self.rests_until = 0.0
        self._strikes = 0
        self._convictions = 0
        self._busy_since: float | None = None
        self._busy = 0.0

    def gave(self, amount: int) -> None:
        """Count bytes that came from here."""
        self.bytes += amount
        self._strikes = 0

    def strike(self, reason: str) -> None:
        """Note a failure that may pass: the source rests, and is dropped after several."""
        self.note(reason)
        if time.monotonic() < self.rests_until:  # another connection, the same failure
            return
        self._strikes += 1
        self.rests_until = time.monotonic() + REST * 2 ** (self._strikes - 1)
        if self._strikes >= STRIKES:
            self.standing = Standing.DROPPED

    def convict(self, reason: str) -> None:
        """Note that bytes from here were wrong: from now on it is the last to be asked."""
        self._convictions += 1
        self.note(reason)
        if self.standing is Standing.GOOD:
            self.standing = Standing.RESERVE
        if self._convictions >= CONVICTIONS:
            self.standing = Standing.DROPPED

    def drop(self, reason: str) -> None:
        """Ask nothing more of it."""
        self.note(reason)
        self.standing = Standing.DROPPED

    def begin(self) -> None:
        """Start the clock of its rate."""
        if self._busy_since is None:
            self._busy_since = time.monotonic()

    @property
    def rate(self) -> float:
        """Bytes a second since it was first asked."""
        if self._busy_since is None:
            return 0.0
        return self.bytes / max(time.monotonic() - self._busy_since, 0.1)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "source": self.name,
            "channel": self.channel,
            "files": self.files,
            "bytes": self.bytes,
            "standing": self.standing.value,
            "reasons": self.reasons,
        }

    def note(self, reason: str) -> None:
        """Remember a reason for a report."""
        if reason not in self.reasons:
            self.reasons.append(reason)
