"""Keep the samples with the highest values of a score: a fraction of them, or from a threshold."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from ..errors import DataError
from .contract import Decision, Filter, View, sql_number

NO_FEATURES = "no_features"
"""The reason of samples that have no features, or features that are no numbers."""


class Ranked(Filter):
    """A filter that keeps what scores high.

    Of a fraction, int(n * fraction) samples stay, at least one, n being those that have a score;
    of ties the smallest uids. A threshold is inclusive.
    """

    set_level = True

    usual_fraction: ClassVar[float] = 0.3
    """Which part is kept if nothing else is said."""

    fraction: float | None = Field(None, gt=0, le=1, description="part to keep (default 0.3)")
    threshold: float | None = Field(None, description="keep scores at or above this instead")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.fraction is not None and self.threshold is not None:
            raise ValueError("give fraction or threshold, not both")
        return self

    def high(
        self, view: View, score: str, reason: str, missing: str = NO_FEATURES
    ) -> list[Decision]:
        """Return the decisions that drop what has no score, and then what scores low."""
        known = Decision(missing, f"{score} IS NOT NULL")
        if self.threshold is not None:
            return [known, Decision(reason, f"{score} >= {sql_number(self.threshold)}")]
        fraction = self.usual_fraction if self.fraction is None else self.fraction
        return [known, Decision(reason, highest(view, score, fraction))]


def highest(view: View, score: str, fraction: float) -> str:
    """Return the SQL that is true of the int(n * fraction) samples that score highest.

    n counts those with a score; one stays in any case. Raises DataError where there is none.
    """
    known = view.count(f"{score} IS NOT NULL")
    if known == 0:
        raise DataError("no sample has a score")
    keep = max(1, int(known * fraction))
    if keep == known:
        return f"{score} IS NOT NULL"
    limit = sql_number(view.nth(score, keep - 1, descending=True))
    above = view.count(f"{score} > {limit}")
    last = view.nth("uid", keep - above - 1, where=f"{score} = {limit}")
    return f"{score} > {limit} OR ({score} = {limit} AND uid <= {last}::UHUGEINT)"
