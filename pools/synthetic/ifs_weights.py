"""How the instances of a fractal class differ: one parameter of all its maps times a multiplier.

The rows, their order and their numbers are those of the authors' ``weights_*.csv``.
"""

from __future__ import annotations

import math

Row = tuple[float, ...]

PLANE, SPACE = 6, 12
"""Parameters of a map in the plane and in space, without its chance."""

_LEAST = 0.01
"""Instead of 0, which would flatten the fractal."""

_REPEATED = {145: (108, 8, 0.6)}
"""The authors' file of 145 rows has 0.6 a second time where 1.6 is due: row, parameter, value."""


def plane_rows(step: float) -> tuple[Row, ...]:
    """Return the rows of ``weights_{step}.csv``: 1 and 1 +- step, 1 +- 2 step; one for step 0."""
    near = [round(1 + n * step, 10) for n in (-2, -1, 1, 2)]
    return _rows([max(_LEAST, one) for one in near] if step else [], PLANE)


def space_rows(count: int) -> tuple[Row, ...]:
    """Return the rows of ``weights_ins{count}.csv``, 24 for every tenth away from 1, and 1."""
    reach = (count - 1) // (2 * SPACE)
    rows = list(_rows([round(1 + n / 10, 1) for n in range(-reach, reach + 1) if n], SPACE))
    if count in _REPEATED:
        number, parameter, value = _REPEATED[count]
        rows[number] = _row(parameter, value, SPACE)
    return tuple(rows)


def _rows(multipliers: list[float], parameters: int) -> tuple[Row, ...]:
    """Multiply one parameter after another; the row of ones stands among the first's."""
    rows = [
        _row(parameter, by, parameters) for parameter in range(parameters) for by in multipliers
    ]
    rows.insert(len(multipliers) // 2, (1.0,) * parameters)
    return tuple(rows)


def _row(parameter: int, by: float, parameters: int) -> Row:
    return tuple(by if n == parameter else 1.0 for n in range(parameters))


def spread_order(rows: tuple[Row, ...]) -> list[int]:
    """Return all rows' numbers, the unchanged one first and every stretch of them well mixed.

    So that a set of few instances has its classes themselves and some of every parameter.
    """
    count = len(rows)
    ones = (1.0,) * len(rows[0])
    first = rows.index(ones) if ones in rows else 0
    step = max(1, round(count * (math.sqrt(5) - 1) / 2))
    while math.gcd(step, count) != 1:
        step -= 1
    return [(first + n * step) % count for n in range(count)]


def eased(row: Row, times: int) -> Row:
    """Move a row's multipliers halfway to 1, several times."""
    return row if times == 0 else tuple(1.0 + (by - 1.0) / 2**times for by in row)
