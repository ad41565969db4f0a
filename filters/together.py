"""What all partitions of a pool find out together, through files and the engine's map alone.

Some filters need more than a number that partitions can tell the driver: which captions stand in
other files too, which samples share a cluster. Such work is a ``Joint``. Every partition writes its
share to a folder that all workers see and tells the driver little or nothing (``Together.ask``);
when all have done so the joint is settled, by workers once more; then the partitions are judged
again and read what was found.

An *exchange* is a joint whose records belong together by something else than the file they come
from. Each partition writes its records in the order of their *way* (``send``); each way is a worker
that reads its own from the files of all (``received``) and sends back, by partition, what it found.
There are as many ways as partitions, so a worker has about as much to hold as it has of one file.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..durable import atomic_path, digest, write_json
from ..errors import DataError
from ..pools.engine import Engine
from ..pools.merging import merge_subsets, walk
from ..pools.subset_files import SubsetFile
from ..pools.uids import UidArray, from_halves, npy_header, to_hex

GROUP = 256
"""How many files are summed by one worker."""

Records = NDArray[Any]
"""Records (n,) of a structured dtype."""


class Joint(ABC):
    """Work of all partitions; a frozen dataclass, since its ``repr`` is its name."""

    @abstractmethod
    def settle(self, folder: Path, shares: Sequence[Any], engine: Engine) -> Any:
        """Put together what the partitions left in ``folder`` and told; return what to tell them.

        Shares and answer are what JSON can hold, and small.
        """


class Barrier(Joint):
    """Work that is done once every partition has done its share of it."""

    def settle(self, folder: Path, shares: Sequence[Any], engine: Engine) -> Any:
        """Leave it at that."""
        return True


@dataclass(frozen=True)
class Of(Joint):
    """A joint of one of several sets: a scorer may score more than one in a run."""

    set: str
    joint: Joint

    def settle(self, folder: Path, shares: Sequence[Any], engine: Engine) -> Any:
        """Settle the joint."""
        return self.joint.settle(folder, shares, engine)


@dataclass(frozen=True)
class Place:
    """A partition among all: its number, how many there are, and where joint work stands."""

    number: int
    count: int
    work: Path

    def folder(self, joint: Joint) -> Path:
        """Return the folder of a joint."""
        if isinstance(joint, Of):
            return self.of(joint.set).folder(joint.joint)
        return self.work / digest(repr(joint))[:24]

    def of(self, set: str) -> Place:
        """Return the place in the joint work of a set."""
        return replace(self, work=self.work / set)

    def file(self, joint: Joint, kind: str = "sent") -> Path:
        """Return where the partition leaves its share for a joint."""
        return file_in(self.folder(joint), kind, self.number)


class Together(Protocol):
    """Asks the other partitions, for one of them."""

    @property
    def place(self) -> Place:
        """Which partition it is."""
        ...

    @property
    def total(self) -> int:
        """How many samples are scored in all partitions."""
        ...

    def ask(self, joint: Joint, share: Callable[[], Any]) -> Any:
        """Return what a joint came to; where it is not settled yet, do this partition's share."""
        ...

    def lowest(self, what: str, uids: UidArray, values: NDArray[Any], keep: int) -> NDArray[Any]:
        """Tell which samples (n,) are among the ``keep`` of the lowest values in all partitions.

        Of ties the smallest uids are; ``what`` tells this question from others.
        """
        ...


def share_once(place: Place, joint: Joint, share: Callable[[], Any]) -> Any:
    """Return a partition's share; what an interrupted run has done is not done again."""
    done = place.file(joint, "shares").with_suffix(".json")
    try:
        return json.loads(done.read_bytes())["share"]
    except (OSError, ValueError, KeyError, TypeError):
        found = share()
        write_json(done, {"share": found})
        return found


def settle_once(joint: Joint, shares: Sequence[Any], work: Path, engine: Engine) -> Any:
    """Settle a joint, in the driver, unless an interrupted run has."""
    folder = Place(0, len(shares), work).folder(joint)
    done = folder / "answer.json"
    try:
        return json.loads(done.read_bytes())["answer"]
    except (OSError, ValueError, KeyError, TypeError):
        found = joint.settle(folder, shares, engine)
        write_json(done, {"answer": found})
        return found


def sent_to(folder: Path, count: int) -> list[Path]:
    """Return what each of ``count`` partitions has left in the folder of a joint."""
    return [file_in(folder, "sent", number) for number in range(count)]


def file_in(folder: Path, kind: str, number: int) -> Path:
    """Return where a partition, or a way, leaves what is of a kind in the folder of a joint."""
    return folder / kind / f"{number:06d}.npy"


# -- exchanges -------------------------------------------------------------------------------


def send(
    path: Path, ways: NDArray[np.integer[Any]], count: int, dtype: np.dtype,
    records: Callable[[NDArray[np.int64]], Records], at_once: int = 1 << 16,
) -> None:  # fmt: skip
    """Write records so that those of each way (n,), from 0 to ``count``, stand together.

    ``records`` returns those at some places, in the order asked for.
    """
    order = np.argsort(ways, kind="stable")
    bounds = np.searchsorted(ways[order], np.arange(count + 1)).astype(np.int64)
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.save(file, bounds)
        header = np.lib.format.dtype_to_descr(dtype)
        np.lib.format.write_array_header_1_0(
            file, {"descr": header, "fortran_order": False, "shape": (len(order),)}
        )
        for start in range(0, len(order), at_once):
            some = np.ascontiguousarray(records(order[start : start + at_once]), dtype)
            file.write(some.view(np.uint8).data)


def received(folder: Path, kind: str, count: int, way: int) -> Iterator[tuple[int, Records]]:
    """Yield the number of each of ``count`` files, and the records that it has for a way."""
    for number in range(count):
        path = file_in(folder, kind, number)
        try:
            with path.open("rb") as file:
                # Of the bounds only two are read: there are as many in each file as files.
                bounds, _, whole, start = npy_header(file)
                file.seek(start + way * whole.itemsize)
                first, end = np.frombuffer(file.read(2 * whole.itemsize), whole).tolist()
                file.seek(start + bounds[0] * whole.itemsize)
                shape, _, dtype, start = npy_header(file)
                if not 0 <= first <= end <= shape[0]:
                    raise ValueError("records that it has not")
                file.seek(start + first * dtype.itemsize)
                yield number, np.fromfile(file, dtype, end - first)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path}: not what a partition sent: {error}") from None


def as_one(
    got: Iterator[tuple[int, Records]], kind: np.dtype[Any]
) -> tuple[NDArray[np.int64], Records]:
    """Return what was received as one: the number of the partition of each record, and records."""
    numbers, parts = [np.empty(0, np.int64)], [np.empty(0, kind)]
    for number, records in got:
        numbers.append(np.full(len(records), number))
        parts.append(records)
    return np.concatenate(numbers), np.concatenate(parts)


@dataclass(frozen=True)
class Exchange(Joint):
    """A joint of records that are put together by their ways; ``judge`` is done by workers."""

    @property
    def gpu(self) -> bool:
        """Whether these workers are to have a GPU."""
        return False

    def settle(self, folder: Path, shares: Sequence[Any], engine: Engine) -> Any:
        """Let every way have its worker."""
        count = len(shares)
        tasks = [(self, folder, count, way) for way in range(count)]
        list(engine.map(_judge, tasks, count=count, gpu=self.gpu))
        return True

    @abstractmethod
    def judge(self, got: Iterator[tuple[int, Records]]) -> tuple[NDArray[np.int64], Records]:
        """Return, for what one way got, records to send back and the partition of each, (n,)."""

    def judge_way(
        self, got: Iterator[tuple[int, Records]], way: int, count: int
    ) -> tuple[NDArray[np.int64], Records]:
        """Do that for a way of a number, of ``count``, where it matters which it is."""
        del way, count
        return self.judge(got)

    def answers(self, place: Place) -> Iterator[Records]:
        """Yield what was sent back to a partition."""
        for _, records in received(place.folder(self), "back", place.count, place.number):
            yield records


def _judge(task: tuple[Exchange, Path, int, int]) -> None:
    """Do the work of a way, in a worker."""
    exchange, folder, count, way = task
    partitions, records = exchange.judge_way(received(folder, "sent", count, way), way, count)
    send(
        file_in(folder, "back", way),
        partitions,
        count,
        records.dtype,
        lambda places: records[places],
    )


# -- sums and sets ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Members(Joint):
    """Which samples a set scorer scores: partitions leave their uids, sorted."""

    scorer: str
    relation: str

    def settle(self, folder: Path, shares: Sequence[Any], engine: Engine) -> Any:
        """Return the digest and the number of all uids, and which of them come again.

        That is how many do, and the first of these in hex if any does.
        """
        files = sent_to(folder, len(shares))
        (found,) = engine.map(_merged, [(files, folder)], count=1)
        return found


def _merged(task: tuple[list[Path], Path]) -> list[Any]:
    from ..pools.engine import Local

    files, folder = task
    every = folder / "merged.npy"
    merged = merge_subsets(files, every, folder, Local(1))
    copies, first = 0, ""
    for ((uids, counts),) in walk([SubsetFile.of(every)]):
        again = uids[counts > 1]
        if len(again) and not copies:
            (first,) = to_hex(again[:1])
        copies += len(again)
    return [merged.digest, merged.count, copies, first]


@dataclass(frozen=True)
class Scored(Barrier):
    """That all partitions have kept the values of a set score."""

    digest: str


@dataclass(frozen=True)
class Sum(Joint):
    """The sum of arrays of integers, all of one shape, of which each partition leaves one."""

    what: str
    of: str

    def settle(self, folder: Path, shares: Sequence[Any], engine: Engine) -> Any:
        """Let workers add up the files, some at a time; the sum stays a file."""
        return add_up(sent_to(folder, len(shares)), folder, engine).name

    def total(self, place: Place, name: str) -> Path:
        """Return the file of the sum; ``name`` is the answer."""
        return place.folder(self) / name


def add_up(files: list[Path], folder: Path, engine: Engine) -> Path:
    """Let workers add up arrays of integers, some files at a time; return the file of the sum."""
    level = 0
    while level == 0 or len(files) > 1:
        groups = [files[first : first + GROUP] for first in range(0, len(files), GROUP)]
        into = [folder / f"sum-{level}-{n}.npy" for n in range(len(groups))]
        list(engine.map(_add, list(zip(groups, into, strict=True)), count=len(groups)))
        files, level = into, level + 1
    return files[0]


def _add(task: tuple[list[Path], Path]) -> None:
    """Write the sum of some files, in a worker."""
    files, out = task
    found = np.load(files[0], allow_pickle=False)
    for file in files[1:]:
        found += np.load(file, allow_pickle=False)
    save(out, found)


def save(path: Path, array: NDArray[Any]) -> None:
    """Write an array whole."""
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.save(file, array)


# -- first of each ---------------------------------------------------------------------------

_KEYED = np.dtype([("k0", "<u8"), ("k1", "<u8"), ("f0", "<u8"), ("f1", "<u8")])


def keyed(keys: UidArray, uids: UidArray) -> Records:
    """Join keys of 128 bits and uids, both (n,), into records."""
    found = np.empty(len(keys), _KEYED)
    found["k0"], found["k1"] = keys["f0"], keys["f1"]
    found["f0"], found["f1"] = uids["f0"], uids["f1"]
    return found


@dataclass(frozen=True)
class FirstOfEach(Exchange):
    """Which of the samples with the same key, one from each file, are not of the smallest uid."""

    relation: str
    columns: tuple[str, ...]

    def share(self, place: Place, records: Records) -> None:
        """Send a partition's first of each key to where all of that key go."""
        ways = (records["k0"] % np.uint64(place.count)).astype(np.int64)
        send(place.file(self), ways, place.count, _KEYED, lambda places: records[places])

    def judge(self, got: Iterator[tuple[int, Records]]) -> tuple[NDArray[np.int64], Records]:
        """Return all but the first of each key; of equal uids that of the first file stays."""
        number, every = as_one(got, _KEYED)
        order = np.lexsort((number, every["f1"], every["f0"], every["k1"], every["k0"]))
        ordered = every[order]
        again = np.zeros(len(order), bool)
        same = [ordered[name][1:] == ordered[name][:-1] for name in ("k0", "k1")]
        again[1:] = same[0] & same[1]
        return number[order[again]], ordered[again]


def uids_of(records: Records) -> UidArray:
    """Return the uids of records (n,)."""
    return from_halves(records["f0"], records["f1"])
