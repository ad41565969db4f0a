"""The server's own folder in a store: for its owner alone, and in no repository."""

from __future__ import annotations

from pathlib import Path

from ....durable import storage_errors, write_text

PRIVATE = ".server"


def private_folder(store: Path) -> Path:
    """Return the folder of what is not public, made if need be."""
    folder = store / PRIVATE
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        if not (folder / ".gitignore").exists():
            write_text(folder / ".gitignore", "*\n")
    return folder
