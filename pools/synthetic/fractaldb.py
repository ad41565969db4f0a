"""FractalDB: fractals of the plane (Kataoka et al., ACCV 2020; IJCV 2022).

A class is an iterated function system whose points fill enough of an image. Its instances
differ in one parameter of its maps (25 rows of multipliers), in the patches drawn at the points,
and in how the image is flipped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import DataError, UsageError
from .contract import ClassRecord, Cost, Picture, choice, option
from .ifs_csv import read_weights
from .ifs_generator import MASKS, PLAY, IFSGenerator, multiplied
from .ifs_weights import PLANE, Row, plane_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FLIPS = 4
INK = 127
AUTHORS_GAME = 100
"""Seed of the authors' chaos game, whatever is drawn."""

_SEARCH_SIDE, _SEARCH_PAD = 512, 6
_TRIES = 10_000


@dataclass(frozen=True, kw_only=True)
class FractalDB(IFSGenerator):
    """FractalDB with the parameters of the authors' published sets.

    In exact mode the search, the points and their order are the authors' (the masks of patches
    are not: their script does not seed them). In fast mode any class is searched and any image
    drawn by itself, and a row of multipliers that makes a class diverge is moved halfway to 1
    until it does not.
    """

    kind: ClassVar[str] = "fractaldb"
    modes = ("fast", "exact")
    kept: ClassVar[dict[str, str]] = {"weights": "weights.csv"}
    map_parameters: ClassVar[int] = PLANE
    digits: ClassVar[int] = 5
    measure: ClassVar[str] = "filling_rate"

    size: int = option(362, "side of the images in px", low=8, high=8192)
    draw: str = choice(
        "patch_gray", "a dot or a random patch of 3 px at each point, gray or in turning colours",
        "patch_gray", "patch_color", "point_gray", "point_color",
    )  # fmt: skip
    points: int = option(200_000, "points of an image", low=2, high=10_000_000)
    pad: int = option(6, "margin in px", low=1, high=4000)
    variation: float = option(
        0.4, "multipliers of a parameter are 1 and 1 +- this, 1 +- twice this; 0: no variation",
        low=0.0, high=0.5,
    )  # fmt: skip
    weights: str = option("", "CSV of multipliers to take instead, a line per variant")
    rate: float = option(0.2, "search: least share of pixels that points fill", low=0, high=1)
    search_points: int = option(100_000, "search: points of a trial", low=100, high=10_000_000)

    def check(self) -> None:
        """Refuse what leaves no room to draw, no class to find, or nothing new to draw."""
        super().check()
        if 2 * self.pad >= self.size:
            raise UsageError(
                f"{self.kind}: a margin of {self.pad} px leaves nothing of {self.size} px; "
                "lower pad"
            )
        if self._needed > self.search_points:
            raise UsageError(
                f"{self.kind}: {self.search_points:,} points cannot fill {self.rate:g} of "
                f"{_SEARCH_SIDE} x {_SEARCH_SIDE} pixels; lower rate or raise search_points"
            )
        if self.mode == "exact" and self.seed > 2**32 - 2:
            raise UsageError(f"{self.kind}: seed is {self.seed}, over {2**32 - 2} in exact mode")
        different = len(self.rows) * FLIPS
        if not self._patches and self.instances > different:
            raise UsageError(
                f"{self.kind}: {self.draw} gives {different} different images per class, not "
                f"{self.instances:,}; lower instances or draw patches"
            )

    def identity(self) -> dict[str, Any]:
        """Return what decides the pixels; files count by what is in them."""
        found = super().identity()
        if self.weights:
            found["weights"] = [list(row) for row in self.rows]
        return found

    def make_rows(self) -> tuple[Row, ...]:
        """Return the rows of multipliers."""
        if self.weights:
            return read_weights(self.weights, PLANE)
        return plane_rows(self.variation)

    @property
    def _needed(self) -> int:
        """The fewest different pixels that make a class."""
        return math.ceil(self.rate * _SEARCH_SIDE * _SEARCH_SIDE)

    @property
    def _patches(self) -> bool:
        return self.draw.startswith("patch")

    @property
    def _draws(self) -> int:
        """How often each row is drawn, each time with other patches."""
        return max(1, math.ceil(self.instances / (len(self.rows) * FLIPS)))

    @property
    def block(self) -> int:
        """The images of one row of multipliers: they share their points."""
        return min(self.instances, self._draws * FLIPS)

    def _place(self, instance: int) -> tuple[int, int, int]:
        """Return row, draw and flip of an instance."""
        row, rest = divmod(instance, self._draws * FLIPS)
        return self.order[row], rest // FLIPS, rest % FLIPS

    # -- classes ---------------------------------------------------------------------------

    def groups(self) -> list[range]:
        """Return groups of classes; the authors' search finds one after the other."""
        if self.mode == "exact" and not self.parameters:
            return [self.class_ids]
        return super().groups()

    def find(self, group: range) -> Iterator[ClassRecord]:
        """Yield classes from their CSVs or, without any, by search.

        Raises DataError for a class that diverges, or where the search is in vain.
        """
        if self.parameters:
            found = self._read(group)
        elif self.mode == "exact":
            found = self._search_exact(group)
        else:
            found = self._search_fast(group)
        for class_id, system, reached in found:
            if self.mode == "exact":
                self._check_rows(class_id, system)
            yield self.record(class_id, system, reached / (_SEARCH_SIDE * _SEARCH_SIDE))

    def _read(self, group: range) -> Iterator[tuple[int, NDArray[np.float64], int]]:
        from . import ifs

        room = _Room(self.search_points, _SEARCH_SIDE)
        chances = authors_chances(self.search_points)
        for class_id, path, system in self.read(group):
            reached = ifs.filling(
                system, chances, _SEARCH_SIDE, _SEARCH_PAD,
                room.chosen, room.xs, room.ys, room.pixels, room.seen,
            )  # fmt: skip
            wide = ifs.spread(room.xs, room.ys, self.search_points)
            if self.mode == "fast" and not wide < ifs.BOUND:
                raise self.diverges(path)
            if wide == 0:
                raise self.collapses(path)
            yield class_id, system, reached

    def _search_fast(self, group: range) -> Iterator[tuple[int, NDArray[np.float64], int]]:
        import numpy as np

        from . import ifs

        room = _Room(self.search_points, _SEARCH_SIDE)
        system, chances = np.empty((self.maps_max, PLANE + 1)), np.empty(self.search_points)
        for class_id in group:
            maps, reached, _ = ifs.search_plane(
                self.seed, class_id, self.maps_min, self.maps_max, self.span,
                _SEARCH_SIDE, _SEARCH_PAD, self._needed, self.search_points // 10, _TRIES,
                system, chances, room.chosen, room.xs, room.ys, room.pixels, room.seen,
            )  # fmt: skip
            self._check_found(class_id, maps)
            yield class_id, system[:maps].copy(), reached

    def _search_exact(self, group: range) -> Iterator[tuple[int, NDArray[np.float64], int]]:
        import numpy as np

        from . import ifs

        room = _Room(self.search_points, _SEARCH_SIDE)
        system, chances = np.empty((self.maps_max, PLANE + 1)), np.empty(self.search_points)
        raw = np.empty(2 * self.search_points, np.uint32)
        start: Any = np.random.RandomState(self.seed + 1).get_state()
        state = np.append(start[1], start[2]).astype(np.uint32)
        for class_id in range(group[-1] + 1):
            maps, reached, _ = ifs.legacy_search(
                state, self.maps_min, self.maps_max, self.span, _SEARCH_SIDE, _SEARCH_PAD,
                self._needed, _TRIES, system, raw, chances,
                room.chosen, room.xs, room.ys, room.pixels, room.seen,
            )  # fmt: skip
            self._check_found(class_id, maps)
            if class_id in group:
                yield class_id, system[:maps].copy(), reached

    def _check_found(self, class_id: int, maps: int) -> None:
        if maps == 0:
            raise DataError(
                f"{self.kind}: none of {_TRIES:,} systems fills {self.rate:g} of the image "
                f"(class {class_id}); lower rate, or raise search_points or span"
            )

    def _check_rows(self, class_id: int, system: NDArray[np.float64]) -> None:
        """Refuse what the authors' script breaks off at: points lost within a hundred steps."""
        from . import ifs

        room = _Room(min(self.points, ifs.DROPPED + 1), 1)
        chances = authors_chances(self.points)
        for number, row in enumerate(self.rows):
            if ifs.play(multiplied(system, row), chances, room.chosen, room.xs, room.ys) == 0:
                raise DataError(
                    f"{self.kind}: class {class_id} diverges within {ifs.DROPPED} points in row "
                    f"{number} of the multipliers, which the authors' code cannot draw; leave it "
                    "out or use mode fast"
                )

    # -- pictures --------------------------------------------------------------------------

    def pictures(self, record: ClassRecord, first: int, last: int) -> Iterator[Picture]:
        """Yield instances [first, last) of a class."""
        easel = _Easel(self, record)
        levels = (0, INK) if self.draw.endswith("gray") else None
        for instance in range(first, last):
            row, draw, flip = self._place(instance)
            image = easel.image(row, draw)
            # The script turns the image upside down before it flips it.
            down, right = (1, -1)[flip in (0, 2)], (1, -1)[flip in (2, 3)]
            yield Picture(
                instance,
                image[::down, ::right],
                {"row": row, "draw": draw, "flip": flip, "eased": easel.eased},
                levels=levels,
            )

    def play(self, record: ClassRecord, row: int, room: _Room) -> tuple[int, int]:
        """Play a class's game with a row of multipliers: points that hold, times it was eased."""
        import numpy as np

        from . import ifs
        from .draws import stream

        if self.mode == "exact":
            system = multiplied(self.system(record), self.rows[row])
            chances = authors_chances(self.points)
            return int(ifs.play(system, chances, room.chosen, room.xs, room.ys)), 0
        chances = np.empty(self.points)
        ifs.numbers(np.uint64(stream(self.seed, record.class_id, row, PLAY)), chances)

        def play(system: NDArray[np.float64]) -> float:
            ifs.play(system, chances, room.chosen, room.xs, room.ys)
            return ifs.spread(room.xs, room.ys, self.points)

        return self.points, self.tame(record, row, play)

    def caption(self, record: ClassRecord) -> str:
        """Return what the pictures of a class show."""
        return f"a fractal of {record.parameters['maps']} affine maps"

    def file_name(self, record: ClassRecord, instance: int) -> str:
        """Return the name the authors' script gives an image."""
        row, draw, flip = self._place(instance)
        name = f"{record.class_id:05d}"
        return f"{name}/{name}_{row:02d}_count_{draw}_flip{flip}.png"

    def class_files(self, record: ClassRecord) -> dict[str, bytes]:
        """Return the class's CSV, beside its images."""
        name = f"{record.class_id:05d}"
        return {f"{name}/{name}.csv": self.csv(record)}

    def cost(self) -> Cost:
        """Return a rough estimate."""
        pixels, points = self.size**2, self.points
        gray = self.draw.endswith("gray")
        image = (7e-2 if gray else 0.4) * pixels * (1.0 if self._patches else 0.6)
        seconds = points * 1e-8 / self.block + pixels * (1.2e-9 if gray else 6e-9) + 2e-5
        found = 1e-8 if self.parameters else (2e-7 if self.mode == "fast" else 4e-7)
        return Cost(300 + image, seconds, found * self.search_points)


@lru_cache(maxsize=2)
def authors_chances(points: int) -> NDArray[np.float64]:
    """Return the random numbers of the authors' chaos game; shared, not to be written to."""
    import numpy as np

    return np.random.RandomState(AUTHORS_GAME).random_sample(points)


@lru_cache(maxsize=1)
def color_wheel() -> NDArray[np.uint8]:
    """Return the 128 colours that points take in turn, (128, 3): hue once around.

    Saturation and value are 3/4. The authors mean blue, green, red but write them as red,
    green, blue; levels are truncated.
    """
    import numpy as np

    steps = 128
    wheel = np.empty((steps, 3), np.uint8)
    for n in range(steps):
        sixth = (3.0 / math.pi) * (2.0 * math.pi * (n / steps))
        whole = math.floor(sixth)
        falling = 0.75 * (1.0 - 0.75 * (sixth - whole))
        rising = 0.75 * (1.0 - 0.75 * ((1.0 - sixth) + whole))
        high, low, falling, rising = (int(one * 255.0) for one in (0.75, 0.1875, falling, rising))
        wheel[n] = (
            (low, rising, high), (low, high, falling), (rising, high, low),
            (high, falling, low), (high, low, rising), (falling, low, high),
        )[whole]  # fmt: skip
    return wheel


class _Room:
    """Room for a game of ``points`` points on an image of side * side."""

    def __init__(self, points: int, side: int) -> None:
        import numpy as np

        self.chosen = np.empty(points, np.uint8)
        self.xs, self.ys = np.empty(points), np.empty(points)
        self.pixels = np.empty(points, np.int32)
        self.seen = np.empty(side * side, np.uint8)


class _Easel:
    """Draws a class's images; those of one row in turn share their points."""

    def __init__(self, generator: FractalDB, record: ClassRecord) -> None:
        import numpy as np

        self._generator, self._record = generator, record
        points, side = generator.points, generator.size
        self._room = _Room(points, side)
        self._where = np.empty(points, np.int32)
        self._when = np.zeros(points + 1, np.int32)  # one more for pixels without a patch
        self._owner = np.empty(side * side, np.int32)
        self._masks = np.empty(points + 1, np.uint16)
        self._color = generator.draw.endswith("color")
        self._image = np.empty((side * side, 3) if self._color else side * side, np.uint8)
        self._drawn, self._row, self._visited = (-1, -1), -1, 0
        self.eased = 0

    def image(self, row: int, draw: int) -> NDArray[np.uint8]:
        """Return the image of a row and a draw, first row of pixels at the bottom."""
        if self._row != row:
            self._play(row)
            self._row = row
        if self._drawn != (row, draw):
            if self._generator.draw.startswith("patch"):
                self._paint(row, draw)
            else:
                self._dot()
            self._drawn = row, draw
        side = self._generator.size
        return self._image.reshape((side, side, 3) if self._color else (side, side))

    def _play(self, row: int) -> None:
        from . import ifs

        one, room = self._generator, self._room
        held, self.eased = one.play(self._record, row, room)
        ifs.settle(room.xs, room.ys, held, one.size, one.pad, room.pixels)
        self._visited = ifs.last_visits(room.pixels, held, self._owner, self._where, self._when)
        if one.draw.startswith("patch"):
            ifs.cover(self._where, self._visited, one.size, self._owner)

    def _paint(self, row: int, draw: int) -> None:
        import numpy as np

        from . import ifs
        from .draws import stream

        one = self._generator
        instance = draw * len(one.rows) + row
        key = np.uint64(stream(one.seed, self._record.class_id, instance, MASKS))
        ifs.draw_masks(key, self._when, self._visited, self._masks)
        if self._color:
            ifs.paint_color(self._owner, self._masks, self._when, color_wheel(), self._image)
        else:
            ifs.paint_gray(self._owner, self._masks, INK, self._image)

    def _dot(self) -> None:
        from . import ifs

        if self._color:
            ifs.dot_color(self._where, self._when, self._visited, color_wheel(), self._image)
        else:
            ifs.dot_gray(self._where, self._visited, INK, self._image)
