"""Remove exact copies.

Source: this tool's own rule, of no paper: equal bytes have equal SHA-256.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .contract import Decision, Filter, View


class ExactDedup(Filter):
    """Keep one sample of those whose image bytes (or caption, or both) are the same.

    The sample of the smallest uid stays, so the result does not depend on order. Images are
    compared by the SHA-256 of their bytes; a sample without one is kept.
    """

    set_level = True
    not_reported = (
        "DataComp's appendix K removes near duplicates instead, which at medium leaves 29.6M with "
        ".227 and .295"
    )

    by: Literal["image", "caption", "both"] = Field("image", description="what must be the same")

    def decide(self, view: View) -> list[Decision]:
        """Number the copies of each and keep the first."""
        key = {"image": ["sha256"], "caption": ["text"], "both": ["sha256", "text"]}[self.by]
        if self.by != "caption":
            view.require("sha256")
        first = view.first(*key)
        if self.by == "caption":
            return [Decision("duplicate", first)]
        return [Decision("duplicate", f"(sha256 IS NULL OR {first})")]
