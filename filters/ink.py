"""Blank and near-blank images of synthetic sets, by the share of pixels that are drawn on.

Some of a formula's images show next to nothing: 2 to 4 of 100 of VisualAtom's (Takashima et al.,
CVPR 2023) at 512 px, those of the fewest orbits, are drawn on less than 1 % of their pixels.

Source: this tool's own rule, of no paper; the shares were counted on the sets it draws.
"""

from __future__ import annotations

from pydantic import Field

from .contract import Decision, Filter, View, sql_number


class MinInk(Filter):
    """Keep images of synthetic sets that are not blank or nearly so.

    Looks at the column ``ink`` of a set by ``datacomp synth``: the share of pixels that differ
    from the background. Samples of other sources, which have none, are dropped.
    """

    not_reported = "it is for synthetic sets"

    share: float = Field(0.01, ge=0, le=1, description="share of pixels drawn on, at least")

    def decide(self, view: View) -> list[Decision]:
        """Compare the column that the source has filled."""
        ink = view.require("ink", "it comes with sources of synthetic images, such as visualatom")
        return [
            Decision("ink_unknown", f"{ink} IS NOT NULL"),
            Decision("too_little_ink", f"{ink} >= {sql_number(self.share)}"),
        ]
