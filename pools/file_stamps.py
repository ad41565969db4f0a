"""What a file was when something was made of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ..durable import sha256_file


@dataclass(frozen=True)
class FileStamp:
    """Size, time of change (ns) and SHA-256 of a file."""

    size: int
    changed: int
    sha256: str

    @classmethod
    def of(cls, file: Path) -> Self:
        """Return what a file is now; reads it once."""
        stat = file.stat()
        return cls(stat.st_size, stat.st_mtime_ns, sha256_file(file))

    def untouched(self, file: Path) -> bool:
        """Tell whether the file has the size and time it had."""
        stat = file.stat()
        return (stat.st_size, stat.st_mtime_ns) == (self.size, self.changed)
