"""What a download did: bytes per channel, time and rate, and which sources failed how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .mirror import GONE


@dataclass
class GetReport:
    """The outcome of a download. ``whole`` means that every file is in place and verified."""

    directory: str
    name: str
    version: str | None
    signed: bool
    files: int
    bytes: int
    fetched_files: int = 0
    reused_files: int = 0
    seconds: float = 0.0
    channels: dict[str, int] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return not self.failed

    @property
    def gone(self) -> list[str]:
        """Those of the files that could not be had which a server says were taken back."""
        return [path for path, reason in self.failed.items() if GONE in reason]

    @property
    def fetched(self) -> int:
        """Bytes that came over the network."""
        return sum(self.channels.values())

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self.fetched / self.seconds if self.seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "directory": self.directory,
            "name": self.name,
            "version": self.version,
            "signed": self.signed,
            "whole": self.whole,
            "files": self.files,
            "bytes": self.bytes,
            "fetched_files": self.fetched_files,
            "reused_files": self.reused_files,
            "fetched_bytes": self.fetched,
            "seconds": round(self.seconds, 3),
            "bytes_per_second": round(self.rate),
            "channels": self.channels,
            "sources": self.sources,
            "failed": self.failed,
            "gone": self.gone,
            "removed": self.removed,
            "withdrawn": self.withdrawn,
        }
