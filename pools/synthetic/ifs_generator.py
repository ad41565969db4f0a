"""What FractalDB and ExFractalDB share: classes that are iterated function systems."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any, ClassVar

from ...durable import sha256_file
from ...errors import DataError, MissingError, UsageError
from .contract import ClassRecord, Generator, Scalar, option
from .ifs_csv import format_system, read_system, system_files
from .ifs_weights import Row, eased, spread_order

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MULTIPLIERS = (0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)
"""What parameters are multiplied by to show what they do."""

EASINGS = 10
"""How often a row of multipliers is moved halfway to 1 before it is taken as 1."""

PLAY, MASKS, VIEW = 13, 14, 15
"""Purposes of streams: random numbers of a game, of patches, and of a point of view."""


@dataclass(frozen=True, kw_only=True)
class IFSGenerator(Generator):
    """Fractals whose maps are searched or given, and vary by rows of multipliers."""

    map_parameters: ClassVar[int]
    """Parameters of a map, without its chance."""
    digits: ClassVar[int]
    """Digits of a class's number in the names of files."""
    measure: ClassVar[str]
    """What the search measures."""

    parameters: str = option("", "folder of the classes' CSVs; none: classes are searched")
    maps_min: int = option(2, "search: fewest maps", low=2, high=64)
    maps_max: int = option(7, "search: most maps", low=2, high=64)
    span: float = option(1.0, "search: parameters are drawn from -this to this", low=0.01, high=2)

    def check(self) -> None:
        """Refuse an empty range of maps."""
        if self.maps_min > self.maps_max:
            raise UsageError(
                f"{self.kind}: maps_min is {self.maps_min}, more than maps_max {self.maps_max}"
            )

    def identity(self) -> dict[str, Any]:
        """Return what decides the pixels; files count by what is in them."""
        found = super().identity()
        if self.parameters:
            files = self.files(self.class_ids)
            found["parameters"] = {
                f"{number:0{self.digits}d}.csv": sha256_file(path) for number, path in files.items()
            }
        return found

    @abstractmethod
    def make_rows(self) -> tuple[Row, ...]:
        """Return the rows of multipliers."""

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The rows of multipliers."""
        return self.make_rows()

    @cached_property
    def order(self) -> list[int]:
        """The numbers of the rows in the order in which instances take them."""
        return [*range(len(self.rows))] if self.mode == "exact" else spread_order(self.rows)

    def files(self, class_ids: range) -> dict[int, Path]:
        """Return the CSVs of classes; raise MissingError where one is not there."""
        files = system_files(self.parameters)
        for class_id in class_ids:
            if class_id not in files:
                raise MissingError(
                    f"{self.parameters}: there is no {class_id:0{self.digits}d}.csv; the set has "
                    f"classes {self.class_ids[0]} to {self.class_ids[-1]}"
                )
        return {class_id: files[class_id] for class_id in class_ids}

    def read(self, group: range) -> Iterator[tuple[int, Path, NDArray[np.float64]]]:
        """Yield number, file and system of the classes that CSVs hold."""
        import numpy as np

        for class_id, path in self.files(group).items():
            yield class_id, path, np.array(read_system(path, self.map_parameters))

    def record(self, class_id: int, system: NDArray[np.float64], measured: float) -> ClassRecord:
        """Return the record of a class; ``coefficients`` are the system, row by row."""
        return ClassRecord(
            class_id,
            {
                "maps": len(system),
                self.measure: float(measured),
                "coefficients": system.ravel().tolist(),
            },
        )

    def system(self, record: ClassRecord) -> NDArray[np.float64]:
        """Return the maps of a class, multiplied by what ``sweeps`` may have set."""
        import numpy as np

        maps = np.array(record.parameters["coefficients"]).reshape(-1, self.map_parameters + 1)
        return multiplied(maps, tuple(record.parameters.get(name, 1.0) for name in self._times))

    @property
    def _times(self) -> list[str]:
        return [f"times_{letter}" for letter in ascii_lowercase[: self.map_parameters]]

    def sweeps(self) -> dict[str, list[Scalar]]:
        """Vary each parameter of all maps, as the rows of multipliers do: 1 is the class itself."""
        return {name: [*MULTIPLIERS] for name in self._times}

    def tame(
        self, record: ClassRecord, row: int, play: Callable[[NDArray[np.float64]], float]
    ) -> int:
        """Play a class with a row of multipliers, eased until its points stay together.

        ``play`` takes a system and returns how wide its points spread. Returns how often the
        row was eased.
        """
        from .ifs import BOUND

        system = self.system(record)
        for times in range(EASINGS):
            if play(multiplied(system, eased(self.rows[row], times))) < BOUND:
                return times
        play(system)
        return EASINGS

    def diverges(self, path: Path) -> DataError:
        """Return the error for a CSV whose points do not stay together."""
        return DataError(f"{path}: the maps diverge; take maps that bring points closer on average")

    def collapses(self, path: Path) -> DataError:
        """Return the error for a CSV whose points all fall on one."""
        return DataError(f"{path}: the maps bring all points to one; take maps that spread them")

    def csv(self, record: ClassRecord) -> bytes:
        """Return a class's CSV as the authors' search writes it."""
        values, wide = record.parameters["coefficients"], self.map_parameters + 1
        return format_system([values[at : at + wide] for at in range(0, len(values), wide)])


def multiplied(system: NDArray[np.float64], row: Row) -> NDArray[np.float64]:
    """Multiply the parameters of all maps by a row; their chances stay."""
    return system * (*row, 1.0)
