"""Where samples come from: one file per kind.

A source either yields records it has read byte by byte (folders, tars) or is loaded by SQL
(tables of URLs). ``open_source`` finds the kind by name.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from ...errors import UsageError, suggest
from .base import LinkableSource, Record, RecordSource, SetAside, Source, SqlSource

KINDS = {
    "folder": "folder:FolderSource",
    "webdataset": "webdataset:WebDatasetSource",
    "commonpool": "commonpool:CommonPoolSource",
    "parquet": "table:ParquetSource",
    "csv": "table:CsvSource",
    "jsonl": "jsonl:JsonlSource",
    "coco": "coco:CocoSource",
    "huggingface": "huggingface:HuggingFaceSource",
    "glyphs": "glyphs:GlyphSource",
    "visualatom": "synthetic:VisualAtomSource",
    "rcdb": "synthetic:RcdbSource",
    "fractaldb": "synthetic:FractalDbSource",
    "exfractaldb": "synthetic:ExFractalDbSource",
}

__all__ = [
    "KINDS",
    "LinkableSource",
    "Record",
    "RecordSource",
    "SetAside",
    "Source",
    "SqlSource",
    "open_source",
]


def source_class(kind: str) -> type[Source]:
    """Return the class of a kind of source."""
    if kind not in KINDS:
        raise UsageError(
            f"unknown kind of source {kind!r}{suggest(kind, list(KINDS))}; "
            f"there are: {', '.join(KINDS)}"
        )
    module, name = KINDS[kind].split(":")
    return getattr(importlib.import_module(f".{module}", __package__), name)


def open_source(kind: str, path: Path | str, **options: Any) -> Source:
    """Return the source of ``kind`` at ``path``; unknown options are a UsageError."""
    return source_class(kind).with_options(path, options)
