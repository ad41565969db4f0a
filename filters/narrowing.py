"""Put the shares of partitions together: which value stands at a place of the whole order.

Nobody sees all values. Each partition tells some of its own, evenly spaced, with how many stand at
or before each; from these follow two values between which the one looked for must lie, and the
next round looks only there. When the partitions tell all they have between the two, the answer is
known, exactly. A round leaves about 2/m of the candidates where each partition tells m values, so
two or three rounds serve for any size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..errors import DataError
from .answers import Bounds, Question, Steps

TOLD = 1 << 20
"""How many values all partitions together tell in a round: what the driver holds."""
FEWEST = 16


def most_told(partitions: int) -> int:
    """Return how many values a partition may tell."""
    return max(FEWEST, TOLD // max(1, partitions))


def settle(question: Question, shares: Sequence[Any], bounds: Bounds) -> tuple[bool, Any]:
    """Return whether the answer is known, and it or the bounds of the next round.

    ``shares`` are those of all partitions, in their order.
    """
    if question.kind == "count":
        return True, sum(shares)
    if question.kind == "features":  # of the first file that has them, or why it has none
        return True, next((s for s in shares if not isinstance(s, str)), shares[0])
    return _narrow(question, shares, bounds)


def _narrow(question: Question, shares: Sequence[Steps], bounds: Bounds) -> tuple[bool, Any]:
    below = sum(share.below for share in shares)
    place = bounds.place
    if place is None:  # the first round, which sees all there are
        place = question.place
        if question.descending:
            place = _total(shares) - 1 - place
        if place < 0:
            return True, None
    low, high = _closest(shares, below, place, bounds)
    if high is None:
        return True, None  # there is no such place
    if all(share.every for share in shares):
        return True, high
    narrowed = Bounds(low, high, place)
    if narrowed == bounds:
        raise DataError(f"{question.value} has no order")
    return False, narrowed


def _total(shares: Sequence[Steps]) -> int:
    return sum(share.values[-1][1] for share in shares if share.values)


def _closest(shares: Sequence[Steps], below: int, place: int, bounds: Bounds) -> tuple[Any, Any]:
    """Return the largest value told that stands before ``place``, and the smallest that does not.

    Between two values that a partition tells it may have any number of those that lie between
    them in its order, so at each value there is a fewest and a most that can stand at or before
    it. Only the partitions that told the value know exactly.
    """
    told = sorted(
        (
            (value, number, step)
            for number, share in enumerate(shares)
            for step, (value, _) in enumerate(share.values)
        ),
        key=lambda one: (order_key(one[0]), one[1]),
    )
    fewest = most = below
    gaps = [_gap(share, -1) for share in shares]
    most += sum(gaps)
    low, high = bounds.low, None
    at = 0
    while at < len(told):
        value = told[at][0]
        opened = 0
        while at < len(told) and order_key(told[at][0]) == order_key(value):
            _, number, step = told[at]
            share = shares[number]
            before = share.values[step - 1][1] if step else 0
            gain = share.values[step][1] - before
            fewest += gain
            most += gain - gaps[number]
            gaps[number] = _gap(share, step)
            opened += gaps[number]
            at += 1
        if most <= place:
            low = value
        if fewest > place:
            high = value
            break
        most += opened
    return low, high


def _gap(share: Steps, step: int) -> int:
    """Return how many values a partition may have between a step and the next, untold."""
    if share.every or step + 1 >= len(share.values):
        return 0
    before = share.values[step][1] if step >= 0 else 0
    return share.values[step + 1][1] - before - 1


def order_key(value: Any) -> tuple[bool, Any]:
    """Return what sorts as DuckDB sorts: NaN is the largest number."""
    nan = isinstance(value, float) and math.isnan(value)
    return nan, 0 if nan else value
