"""The pages people look at: the report of a study and the contact sheet of a pool.

Each is one self-contained file that requests nothing; the same input gives the same bytes.
"""

from .contact import write_contact_sheet
from .page import write_report
from .sheets import Sheet, Thumbnail, collect_sheets
from .versus import write_comparison

__all__ = [
    "Sheet",
    "Thumbnail",
    "collect_sheets",
    "write_comparison",
    "write_contact_sheet",
    "write_report",
]
