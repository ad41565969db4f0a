"""Batches of samples that stand in many files: candidates by file, replayed by one worker.

What a stretch of batches leaves stands in a folder of its own, for a worker may do its part twice,
and a machine that was taken for dead may do it late: how often the samples of a file were drawn
before it, its candidates, and who was drawn (``back``). The driver holds a number for each batch of
a stretch and some keys of each file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...durable import atomic_path, write_json
from ...pools.engine import Engine
from ...pools.uids import UidArray, npy_header
from ...progress import Progress
from ..narrowing import most_told
from ..together import Joint, Place, file_in, received, save, send
from .batches import (
    CANDIDATE,
    Hands,
    Law,
    State,
    Urn,
    candidates,
    draw_batches,
    numbers_of,
    replay,
    sizes_of,
    steps,
)

_TASKS = 1 << 10
"""In how many tasks at most the files are looked at for a stretch."""
_TOLD = 1 << 8

_DRAWN = np.dtype([("row", "<u4"), ("times", "<u4")])


@dataclass(frozen=True)
class SpreadBatches(Joint):
    """Batches of the samples of all partitions, as many as make up ``size`` draws.

    By default that is as many as there are samples, and a batch a ``batches``-th of it.
    """

    what: str
    size: int | None
    batch: int | None
    batches: int
    law: Law

    def share(self, place: Place, uids: UidArray, scores: NDArray[np.float64]) -> int:
        """Leave a partition's samples (n,); return how many they are."""
        save(place.file(self, "uids"), uids)
        save(place.file(self, "numbers"), numbers_of(uids, self.law))
        save(place.file(self, "scores"), scores)
        return len(uids)

    def settle(self, folder: Path, shares: Sequence[Any], engine: Engine) -> Any:
        """Draw all batches; return the number of the last stretch, -1 of none."""
        total = sum(shares)
        if not total:
            return -1
        size, batch = sizes_of(total, self.size, self.batch, self.batches)
        hands = _Files(folder, len(shares), self.law, engine)
        state = hands.found() or State(0, size)
        with Progress("drawing samples", size, "draws") as progress:
            progress.resume(size - state.left)

            def accept(state: State) -> None:
                hands.accept(state)
                progress.advance(size - state.left - progress.done)

            draw_batches(hands, total, batch, self.law, state, accept)
        return hands.base

    def counted(self, place: Place, last: int) -> tuple[UidArray, NDArray[np.uint32]]:
        """Return uids (n,) of a partition's samples, and how often each is drawn."""
        uids = np.load(place.file(self, "uids"), allow_pickle=False)
        return uids, _urn(place.folder(self), last, place.number).drawn


@dataclass(frozen=True)
class _Task:
    """What a worker does for some files: ``base`` is the stretch before, ``into`` its own."""

    folder: Path
    law: Law
    base: int
    into: int
    files: tuple[int, ...] = ()
    first: int = 0
    end: int = 0
    limit: float = 0.0
    most: int = 0
    sizes: tuple[int, ...] = ()


class _Files(Hands):
    """The samples of ``count`` files."""

    def __init__(self, folder: Path, count: int, law: Law, engine: Engine) -> None:
        self._folder, self._count, self._law, self._engine = folder, count, law, engine
        self.base = self._into = -1

    def found(self) -> State | None:
        """Return how far a run came that was interrupted."""
        try:
            said = json.loads(self._mark.read_bytes())
            state, base = State(**said["state"]), int(said["base"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        self.base = self._into = base
        return state

    @property
    def _mark(self) -> Path:
        return self._folder / "drawn.json"

    def accept(self, state: State) -> None:
        """Go on from the stretch that was just drawn."""
        before, self.base = self.base, self._into
        write_json(self._mark, {"base": self.base, "state": asdict(state)})
        for number in range(max(0, before), self.base):
            shutil.rmtree(_at(self._folder, number), ignore_errors=True)

    def steps(self, number: int) -> Iterator[tuple[Sequence[float], Sequence[int]]]:
        """Let the files tell some keys."""
        most = min(_TOLD, most_told(self._count))
        for told in self._map(_steps, first=number, most=most):
            yield from told

    def offer(self, first: int, end: int, limit: float) -> NDArray[np.int64]:
        """Let the files find candidates, for a stretch of a new number."""
        self._into += 1
        counts = self._map(_offer, first=first, end=end, limit=limit)
        return np.sum(list(counts), axis=0)

    def replay(self, sizes: Sequence[int], limit: float) -> tuple[int, float]:
        """Let one worker draw."""
        task = replace(
            self._task(), files=tuple(range(self._count)), sizes=tuple(sizes), limit=limit
        )
        (found,) = self._engine.map(_replay, [task], count=1)
        return found

    def _task(self) -> _Task:
        return _Task(self._folder, self._law, self.base, self._into)

    def _map(self, function: Any, **about: Any) -> Iterator[Any]:
        task = replace(self._task(), **about)
        parts = np.array_split(np.arange(self._count), min(self._count, _TASKS))
        tasks = [replace(task, files=tuple(part.tolist())) for part in parts]
        return self._engine.map(function, tasks, count=len(tasks))


def _at(folder: Path, stretch: int) -> Path:
    return folder / f"stretch-{stretch}"


def _urn(folder: Path, stretch: int, file: int) -> Urn:
    """Return the samples of a file as they are after a stretch; -1 is before all."""
    numbers, scores = (
        np.load(file_in(folder, kind, file), allow_pickle=False) for kind in ("numbers", "scores")
    )
    if stretch < 0:
        return Urn(scores, numbers, np.zeros(len(scores), np.uint32))
    at = _at(folder, stretch)
    drawn = np.load(file_in(at, "drawn", file), allow_pickle=False).astype(np.uint32)
    for _, back in received(at, "back", 1, file):
        drawn[back["row"]] += back["times"]
    return Urn(scores, numbers, drawn)


def _steps(task: _Task) -> list[tuple[list[float], list[int]]]:
    """Return some keys of each file in a batch, in a worker."""
    urns = (_urn(task.folder, task.base, file) for file in task.files)
    return [steps(urn, task.law, task.first, task.most) for urn in urns]


def _offer(task: _Task) -> list[int]:
    """Leave the candidates of some files; return how many there are in each batch. In a worker."""
    at, total = _at(task.folder, task.into), np.zeros(task.end - task.first, np.int64)
    for file in task.files:
        urn = _urn(task.folder, task.base, file)
        counts, found = candidates(urn, task.law, task.first, task.end, task.limit)
        # Nearly always a byte a sample is enough, of what each stretch writes for all of them.
        least = np.min_scalar_type(urn.drawn.max(initial=0))
        save(file_in(at, "drawn", file), urn.drawn.astype(least))
        with atomic_path(file_in(at, "offer", file)) as partial, partial.open("wb") as out:
            np.save(out, counts)
            np.save(out, found)
        total += counts
    return total.tolist()


def _replay(task: _Task) -> tuple[int, float]:
    """Draw batches of the candidates of all files, and leave who was drawn. In a worker."""
    at = _at(task.folder, task.into)
    found, numbers, index = [np.empty(0, CANDIDATE)], [], []
    drawn, rows, files = [], [], []
    known = 0
    for file in task.files:
        counts, some = _offered(file_in(at, "offer", file), len(task.sizes))
        row, first, which = np.unique(some["row"], return_index=True, return_inverse=True)
        found.append(some)
        numbers.append(np.repeat(np.arange(len(counts), dtype=np.int32), counts))
        index.append(which.reshape(-1) + known)
        drawn.append(some["drawn"][first])
        rows.append(row)
        files.append(np.full(len(row), file))
        known += len(row)
    number = np.concatenate(numbers)
    order = np.argsort(number, kind="stable")
    counts = np.bincount(number, minlength=len(task.sizes))
    every, which = np.concatenate(found)[order], np.concatenate(index)[order]
    before = np.concatenate(drawn)
    after = before.copy()
    answer = replay(which, every, counts, after, task.sizes, task.limit, task.law)
    chosen = np.flatnonzero(after > before)
    back = np.empty(len(chosen), _DRAWN)
    back["row"], back["times"] = np.concatenate(rows)[chosen], (after - before)[chosen]
    ways = np.concatenate(files)[chosen]
    send(file_in(at, "back", 0), ways, len(task.files), _DRAWN, lambda places: back[places])
    return answer


def _offered(path: Path, batches: int) -> tuple[NDArray[np.int64], NDArray[np.void]]:
    """Return how many candidates a file has in each of the first batches, and these."""
    with path.open("rb") as file:
        counts = np.load(file, allow_pickle=False)[:batches]
        npy_header(file)
        return counts, np.fromfile(file, CANDIDATE, int(counts.sum()))
