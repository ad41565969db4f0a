"""Random subsets, the control that every filter must beat.

Source: DataComp's baseline *random subset* (arXiv 2304.14108, Tables 25 and 26); written from the
paper. The draw by hashing is this tool's own.
"""

from __future__ import annotations

from pydantic import Field

from .contract import Decision, Filter, View
from .published import Published


class RandomSubset(Filter):
    """Keep a random fraction of the samples, drawn by hashing uid and seed.

    The draw does not depend on order, machine or number of workers, and a smaller fraction
    with the same seed is a part of the larger one.
    """

    set_level = True
    published = (
        Published("25 %", "small", 0.022, 0.126),
        Published("10 %", "small", 0.010, 0.103),
        Published("1 %", "small", 0.002, 0.078),
        Published("25 %", "medium", 0.155, 0.240),
        Published("10 %", "medium", 0.107, 0.200),
        Published("1 %", "medium", 0.009, 0.090),
    )

    fraction: float = Field(..., gt=0, le=1, description="part of the samples to keep")
    seed: int = Field(0, description="another seed draws another subset")

    def decide(self, view: View) -> list[Decision]:
        """Keep the round(n * fraction) samples of the smallest hash."""
        keep = round(view.count() * self.fraction)
        if keep == 0:
            return [Decision("not_drawn", "false")]
        draw = f"md5(printf('%032x', uid) || '/{self.seed}')"
        limit = view.nth(draw, keep - 1)
        return [Decision("not_drawn", f"{draw} <= '{limit}'")]
