"""What a file of metadata with features was made of: the footer of ``NAME.parquet``.

Where a footer was found to hold for other tars, that is noted in ``.NAME.parquet.json`` beside it,
since rewriting the file would make it another one to whoever uses it.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...durable import read_json, write_json
from ...errors import DatacompError, UsageError
from ..file_stamps import FileStamp
from .embedder import UNREADABLE
from .store import expect_same

KEY = b"datacomp"
_LIMIT = 1 << 20


@dataclass(frozen=True)
class FileDone:
    """What a file was made of, and what became of its samples.

    ``tars`` is the state of all tars, ``images`` the digest of the file's own.
    """

    of: FileStamp
    tars: str
    images: str
    identity: dict[str, Any]
    preparation: dict[str, Any]
    embedded: int
    set_aside: dict[str, int]
    without_image: int
    examples: list[str]

    def is_of(self, file: Path) -> bool:
        """Tell whether this is of a file that has not been touched, and nothing is to try again."""
        return self.of.untouched(file) and UNREADABLE not in self.set_aside

    def footer(self, name: str) -> dict[bytes, bytes]:
        """Return this as what stands in the footer, for features of a name."""
        return {KEY: json.dumps({name: asdict(self)}, sort_keys=True).encode()}


def read(place: Path, name: str, identity: dict[str, Any]) -> FileDone | None:
    """Return what a file was made of, with what was noted since; None where there is none.

    Raises UsageError for one that something else wrote, or of features of another provenance.
    """
    if not place.exists():
        return None
    try:
        written = json.loads((pq.read_schema(place).metadata or {})[KEY])
        done = _checked(_values(written, {name: dict})[name])
    except (pa.ArrowException, KeyError, ValueError, OSError, RecursionError):
        raise UsageError(
            f"{place}: is not what 'datacomp pool embed' wrote with features {name!r}; choose "
            "another folder"
        ) from None
    expect_same(place, name, done.identity, identity)
    return _with_note(place, done) if place.with_suffix(".npz").exists() else None


def note(place: Path, done: FileDone) -> None:
    """Note the file of metadata and the tars for which a footer was found to hold."""
    noted = {"of": asdict(done.of), "tars": done.tars, "images": done.images}
    write_json(_note_of(place), noted)


def remove(place: Path) -> None:
    """Remove a file that is to be made anew, and what was noted of it."""
    place.unlink(missing_ok=True)
    _note_of(place).unlink(missing_ok=True)


def _with_note(place: Path, done: FileDone) -> FileDone:
    with contextlib.suppress(DatacompError, ValueError):  # none, or damaged: it is looked up again
        found = _values(
            read_json(_note_of(place), _LIMIT), {"of": dict, "tars": str, "images": str}
        )
        of = _stamp(found["of"])
        if (of.sha256, found["images"]) == (done.of.sha256, done.images):
            return replace(done, of=of, tars=found["tars"])
    return done


def _note_of(place: Path) -> Path:
    return place.with_name(f".{place.name}.json")


def _checked(found: dict[str, Any]) -> FileDone:
    """Return a footer of which every value has its type; raise ValueError for another."""
    values = _values(
        found,
        {
            "of": dict, "tars": str, "images": str, "identity": dict, "preparation": dict,
            "embedded": int, "set_aside": dict, "without_image": int, "examples": list,
        },
    )  # fmt: skip
    if not all(isinstance(one, str) for one in values["examples"]):
        raise ValueError("examples")
    _values(values["set_aside"], dict.fromkeys(values["set_aside"], int))
    of = _stamp(values.pop("of"))
    return FileDone(of=of, **values)


def _stamp(found: dict[str, Any]) -> FileStamp:
    return FileStamp(**_values(found, {"size": int, "changed": int, "sha256": str}))


def _values(found: Any, kinds: dict[str, type]) -> dict[str, Any]:
    """Return a JSON object that has just these keys, with values of these types."""
    if not isinstance(found, dict) or found.keys() != kinds.keys():
        raise ValueError("keys")
    if not all(type(found[key]) is kind for key, kind in kinds.items()):
        raise ValueError("types")
    return found
