"""WebDataset shards: index them, view or build the shards of a subset, check them."""

from .append import AppendReport, append_shards
from .build import BuildReport, build_shards
from .check import CheckReport, check_shards
from .index import Index, IndexReport, ensure_index, index_shards, load_index
from .repair import RepairReport, repair_shards
from .select import SelectReport, select_shards

__all__ = [
    "AppendReport",
    "BuildReport",
    "CheckReport",
    "Index",
    "IndexReport",
    "RepairReport",
    "SelectReport",
    "append_shards",
    "build_shards",
    "check_shards",
    "ensure_index",
    "index_shards",
    "load_index",
    "repair_shards",
    "select_shards",
]
