"""Groups that are joined by pairs, where pairs and samples are in many partitions.

Source: Kiveris et al., "Connected Components in MapReduce and Beyond" (SOCC 2014), the alternating
algorithm; written from the paper. Pairs are edges of a graph. In a *large star* every vertex hands
those of its neighbours that are above it to the least that it knows, in a *small star* those below
it and itself. Each worker has the edges of some vertices, by a number made of them. When nothing
changes any more, every vertex that is not the least of its group hangs under the one that is. That
takes a few rounds, as the logarithm of the longest chain grows.
"""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..pools.engine import Engine
from ..pools.uids import UidArray
from ..progress import say
from .groups import Groups
from .together import Joint, Place, Records, file_in, received, send, uids_of
from .vectors import draw

_MOST_ROUNDS = 200

VERTEX = np.dtype([("f0", "<u8"), ("f1", "<u8"), ("part", "<u4")])
"""A sample: its uid, and the number of its partition."""
_NAMES = tuple(VERTEX.names or ())
_EDGE = np.dtype(
    [(f"a_{name}", VERTEX[name]) for name in _NAMES]
    + [(f"b_{name}", VERTEX[name]) for name in _NAMES]
)


@dataclass(frozen=True)
class Chains(Joint):
    """Finds who is not the first, by uid, of the group that pairs join it to.

    Partitions send what ``pairs`` wants to know; each way is a worker.
    """

    def settle(self, folder: Path, shares: Sequence[Any], engine: Engine) -> Any:
        """Find the pairs, and follow the chains until nothing changes."""
        count = len(shares)

        def run(step: Any, *about: Any) -> list[Any]:
            return list(engine.map(step, [(*about, folder, count, n) for n in range(count)],
                                   count=count))  # fmt: skip

        run(_find, self)
        before: Any = None
        for number in range(_MOST_ROUNDS):
            run(_large_star, number)
            shutil.rmtree(folder / f"edges-{number}", ignore_errors=True)
            found = run(_small_star, number)
            now = sum(edges for edges, _ in found), sum(mark for _, mark in found) % 2**64
            if now == before or not now[0]:
                run(_tell, number)
                say(f"chains followed in {number + 1} rounds", 1)
                return True
            shutil.rmtree(folder / f"larger-{number}", ignore_errors=True)
            before = now
        raise DataError(f"chains of samples did not end after {_MOST_ROUNDS} rounds")

    @abstractmethod
    def pairs(self, folder: Path, count: int, way: int) -> tuple[Records, Groups]:
        """Return the vertices (n,) that a way got, and how its pairs join them."""

    def not_first(self, place: Place) -> UidArray:
        """Return the uids of those of a partition that are not the first of their group."""
        answers = received(place.folder(self), "back", place.count, place.number)
        return uids_of(np.concatenate([np.empty(0, VERTEX), *(some for _, some in answers)]))


def _find(task: tuple[Chains, Path, int, int]) -> None:
    """Send the edges of a way both ways, in a worker."""
    joint, folder, count, way = task
    vertices, groups = joint.pairs(folder, count, way)
    roots = groups.roots()
    hangs = np.flatnonzero(roots != np.arange(len(roots)))
    edges = _edges(vertices[hangs], vertices[roots[hangs]])
    _send(file_in(folder, "edges-0", way), np.concatenate([edges, _turned(edges)]), count)


def _large_star(task: tuple[int, Path, int, int]) -> None:
    """Hand those above a vertex to the least it knows, in a worker."""
    number, folder, count, way = task
    edges = _gathered(folder, f"edges-{number}", count, way)
    vertex, other = _sides(edges)
    least = _least(edges)
    above = _below(vertex, other)
    found = _unique(_edges(other[above], least[above]))
    _send(file_in(folder, f"larger-{number}", way), found, count)


def _small_star(task: tuple[int, Path, int, int]) -> tuple[int, int]:
    """Hand those below a vertex, and itself, to the least of them; in a worker.

    Returns how many edges there were, and a number made of all of them in any order.
    """
    number, folder, count, way = task
    edges = _gathered(folder, f"larger-{number}", count, way)
    vertex, other = _sides(edges)
    least = _least(edges)
    apart = _below(least, other)
    found = _unique(np.concatenate([_edges(vertex, least), _edges(other[apart], least[apart])]))
    _send(file_in(folder, f"edges-{number + 1}", way), np.concatenate([found, _turned(found)]),
          count)  # fmt: skip
    return len(edges), int(_mark(edges).sum(dtype=np.uint64))


def _tell(task: tuple[int, Path, int, int]) -> None:
    """Send the vertices that hang under another back to their partitions, in a worker."""
    number, folder, count, way = task
    vertex, _ = _sides(_gathered(folder, f"larger-{number}", count, way))
    parts = vertex["part"].astype(np.int64)
    send(file_in(folder, "back", way), parts, count, VERTEX, lambda places: vertex[places])


# -- edges -----------------------------------------------------------------------------------


def _edges(a: Records, b: Records) -> Records:
    """Join vertices (n,) and (n,) to edges."""
    found = np.empty(len(a), _EDGE)
    for name in _NAMES:
        found[f"a_{name}"], found[f"b_{name}"] = a[name], b[name]
    return found


def _sides(edges: Records) -> tuple[Records, Records]:
    """Return the vertices (n,) that edges begin and end with."""
    sides = []
    for side in "ab":
        found = np.empty(len(edges), VERTEX)
        for name in _NAMES:
            found[name] = edges[f"{side}_{name}"]
        sides.append(found)
    return sides[0], sides[1]


def _turned(edges: Records) -> Records:
    a, b = _sides(edges)
    return _edges(b, a)


def _unique(edges: Records) -> Records:
    """Return edges by their first vertex, then by their second, each once."""
    keys = [edges[f"{side}_{name}"] for side in "ba" for name in reversed(_NAMES)]
    ordered = edges[np.lexsort(keys)]
    new = np.ones(len(ordered), bool)
    same = [ordered[name][1:] == ordered[name][:-1] for name in _EDGE.names or ()]
    new[1:] = ~np.logical_and.reduce(same)
    return ordered[new]


def _least(edges: Records) -> Records:
    """Return the least of its first vertex and that one's neighbours for each of ordered edges."""
    vertex, other = _sides(edges)
    starts = np.ones(len(edges), bool)
    starts[1:] = np.logical_or.reduce([vertex[n][1:] != vertex[n][:-1] for n in _NAMES])
    first = np.flatnonzero(starts)[np.cumsum(starts) - 1] if len(edges) else np.empty(0, np.int64)
    neighbour = other[first]
    return np.where(_below(neighbour, vertex), neighbour, vertex)


def _below(a: Records, b: Records) -> NDArray[np.bool_]:
    """Tell which a are less than b, shape (n,)."""
    found = a["part"] < b["part"]
    for name in ("f1", "f0"):
        found = (a[name] < b[name]) | ((a[name] == b[name]) & found)
    return found


def _mark(edges: Records) -> NDArray[np.uint64]:
    """Return a number for each edge that is as good as random, shape (n,)."""
    a, b = _sides(edges)
    mixed = np.empty(len(edges), [("f0", "<u8"), ("f1", "<u8")])
    mixed["f0"], mixed["f1"] = draw(uids_of(a), 0, 6), draw(uids_of(b), 0, 7)
    parts = np.empty_like(mixed)
    parts["f0"], parts["f1"] = a["part"], b["part"]
    return draw(mixed, 0, 8) ^ draw(parts, 0, 9)


def _send(path: Path, edges: Records, count: int) -> None:
    """Send edges to the ways of their first vertices."""
    vertex, _ = _sides(edges)
    ways = ((draw(uids_of(vertex), 0, 10) ^ vertex["part"]) % np.uint64(count)).astype(np.int64)
    send(path, ways, count, _EDGE, lambda places: edges[places])


def _gathered(folder: Path, kind: str, count: int, way: int) -> Records:
    """Return the edges that a way got, as ``_unique``."""
    parts: Iterator[Records] = (some for _, some in received(folder, kind, count, way))
    return _unique(np.concatenate([np.empty(0, _EDGE), *parts]))
