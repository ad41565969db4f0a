"""What the footer of a parquet file says, without the rest of ``pyarrow.parquet``."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa


def read_schema(file: Path) -> pa.Schema:
    """Return the schema of a parquet file, as ``pyarrow.parquet.read_schema`` does.

    That one brings the clients of every object store that Arrow knows: a tenth of a command that
    looks at little else. Raises ArrowException or OSError for what is no parquet.
    """
    from pyarrow._parquet import ParquetReader  # pyright: ignore[reportMissingModuleSource]

    reader: Any = ParquetReader()
    with closing(reader):
        reader.open(str(file), use_memory_map=False)
        return reader.schema_arrow
