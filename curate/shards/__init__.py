"""WebDataset shards: index them, build the shards of a subset, check them."""

from .build import BuildReport, build_shards
from .check import CheckReport, check_shards
from .index import Index, IndexReport, ensure_index, index_shards, load_index

__all__ = [
    "BuildReport",
    "CheckReport",
    "Index",
    "IndexReport",
    "build_shards",
    "check_shards",
    "ensure_index",
    "index_shards",
    "load_index",
]
