"""ExFractalDB: fractals of space, seen from many sides (Kataoka et al., CVPR 2022).

A class is an iterated function system whose points vary enough along every axis. Its instances
differ in one parameter of its maps (145 rows of multipliers) and in the point of view: all
around the equator, which is MV-FractalDB and what the public code does, or anywhere, which is
ExFractalDB as the paper has it. White points in perspective need no depth, so that no OpenGL is
needed either. The authors' search and games are not seeded, hence no exact mode.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ...errors import DataError, UsageError
from .contract import ClassRecord, Cost, Picture, choice, option
from .ifs_generator import PLAY, VIEW, IFSGenerator
from .ifs_weights import SPACE, Row, space_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INK = 255
_TRIES = 50_000
_NEAREST = 1.0
_FIRST_VIEW = math.radians(30)


@dataclass(frozen=True, kw_only=True)
class ExFractalDB(IFSGenerator):
    """ExFractalDB or MV-FractalDB with the parameters of the authors' scripts.

    Any class is searched and any image drawn by itself. A row of multipliers that makes a class
    diverge (the authors leave such models out or blank) is moved halfway to 1 until it does not.
    """

    kind: ClassVar[str] = "exfractaldb"
    map_parameters: ClassVar[int] = SPACE
    digits: ClassVar[int] = 6
    measure: ClassVar[str] = "variance"

    size: int = option(224, "side of the images in px", low=8, high=8192)
    models: int = option(145, "models per class: 1 and 24 for every 0.1 of variation", low=1)
    views: int = option(12, "images per model", low=1, high=100_000)
    viewpoints: str = choice(
        "random", "seen from anywhere (paper) or from the equator (public code)",
        "random", "equator",
    )  # fmt: skip
    jitter: float = option(
        math.pi, "equator: largest turn off an even spacing in degrees", low=0, high=180
    )
    points: int = option(10_000, "points of a model", low=3, high=10_000_000)
    field_of_view: float = option(45.0, "angle of view in degrees", low=1, high=170)
    distance: float = option(4.0, "how far the camera is from the centre", low=1, high=50)
    variance: float = option(
        0.05, "search: the variance along every axis is above this, on a scale of -1 to 1",
        low=0, high=1,
    )  # fmt: skip

    def check(self) -> None:
        """Refuse numbers of models that no file of the authors has, and repeated images."""
        super().check()
        if (self.models - 1) % (2 * SPACE) or self.models > 1 + 9 * 2 * SPACE:
            raise UsageError(
                f"{self.kind}: models is {self.models}, expected 1, 25, 49, 73, 97, 121, 145, "
                "169, 193 or 217"
            )
        different = self.models * self.views
        if self.viewpoints == "equator" and self.instances > different:
            raise UsageError(
                f"{self.kind}: {self.models} models from {self.views} sides are {different:,} "
                f"images, not {self.instances:,}; raise views or lower instances"
            )

    def make_rows(self) -> tuple[Row, ...]:
        """Return the rows of multipliers, one for each model."""
        return space_rows(self.models)

    @property
    def block(self) -> int:
        """The images of a model."""
        return min(self.instances, self.views)

    def _place(self, instance: int) -> tuple[int, int]:
        """Return model and view of an instance; past all models, views go on being numbered."""
        model, view = divmod(instance, self.views)
        again, model = divmod(model, self.models)
        return self.order[model], view + again * self.views

    def find(self, group: range) -> Iterator[ClassRecord]:
        """Yield classes from their CSVs or, without any, by search.

        Raises DataError for a class that diverges, or where the search is in vain.
        """
        yield from self._read(group) if self.parameters else self._search(group)

    def _read(self, group: range) -> Iterator[ClassRecord]:
        from . import ifs

        room = _Room(self.points)
        for class_id, path, system in self.read(group):
            if self._play(class_id, self.order[0], room, system) >= ifs.BOUND:
                alike = (room.points == room.points[0, 0]).all()
                raise self.collapses(path) if alike else self.diverges(path)
            yield self.record(class_id, system, ifs.least_variance(room.points))

    def _search(self, group: range) -> Iterator[ClassRecord]:
        import numpy as np

        from . import ifs

        room, system = _Room(self.points), np.empty((self.maps_max, SPACE + 1))
        for class_id in group:
            maps, variance, _ = ifs.search_space(
                self.seed, class_id, self.maps_min, self.maps_max, self.span, self.variance,
                _TRIES, system, room.chances, room.chosen, room.points,
            )  # fmt: skip
            if maps == 0:
                raise DataError(
                    f"{self.kind}: none of {_TRIES:,} systems varies by {self.variance:g} along "
                    f"every axis (class {class_id}); lower variance"
                )
            yield self.record(class_id, system[:maps].copy(), variance)

    def _play(self, class_id: int, model: int, room: _Room, system: NDArray[np.float64]) -> float:
        """Play a model's game and normalize its points; return how wide they were."""
        import numpy as np

        from . import ifs
        from .draws import stream

        ifs.numbers(np.uint64(stream(self.seed, class_id, model, PLAY)), room.chances)
        ifs.play_space(system, room.chances, room.chosen, room.points)
        return ifs.normalize(room.points)

    def pictures(self, record: ClassRecord, first: int, last: int) -> Iterator[Picture]:
        """Yield instances [first, last) of a class."""
        import numpy as np

        from . import ifs

        room, current, times = _Room(self.points), -1, 0
        points = np.empty((3, self.points - 1), np.float32)
        image = np.empty(self.size * self.size + 1, np.uint8)
        focal = np.float32(1 / math.tan(math.radians(self.field_of_view) / 2))
        distance, nearest = np.float32(self.distance), np.float32(_NEAREST)
        for instance in range(first, last):
            model, view = self._place(instance)
            if model != current:
                times = self.tame(record, model, partial(self._play, record.class_id, model, room))
                points[:], current = room.points, model
            rotation = self._rotation(record.class_id, model, view).astype(np.float32)
            ifs.project(
                points, rotation, focal, distance, nearest, self.size, INK,
                room.seen, room.pixels, image,
            )  # fmt: skip
            yield Picture(
                instance,
                image[:-1].reshape(self.size, self.size),
                {"model": model, "view": view, "eased": times},
                levels=(0, INK),
            )

    def _rotation(self, class_id: int, model: int, view: int) -> NDArray[np.float64]:
        """Return the camera's axes as columns: forward, up, right; (3, 3)."""
        import numpy as np

        from . import ifs
        from .draws import stream, unit

        key = np.uint64(stream(self.seed, class_id, view * self.models + model, VIEW))
        rotation = np.empty((3, 3))
        if self.viewpoints == "random":
            ifs.draw_rotation(key, rotation)
            return rotation
        turn = 2 * math.pi * (view % self.views) / self.views + _FIRST_VIEW
        turn += math.radians(self.jitter) * (2 * float(unit(key, 0)) - 1)
        # Rounded, so that no two machines differ in the last place.
        cosine, sine = round(math.cos(turn), 12), round(math.sin(turn), 12)
        rotation[:] = (cosine, 0, sine), (0, 1, 0), (-sine, 0, cosine)
        return rotation

    def caption(self, record: ClassRecord) -> str:
        """Return what the pictures of a class show."""
        return f"a fractal of {record.parameters['maps']} affine maps of space"

    def file_name(self, record: ClassRecord, instance: int) -> str:
        """Return the name the authors' script gives an image."""
        model, view = self._place(instance)
        name = f"{record.class_id:06d}"
        return f"images/{name}/{name}_{model:05d}_{view:03d}.png"

    def class_files(self, record: ClassRecord) -> dict[str, bytes]:
        """Return the class's CSV."""
        return {f"3DIFS_params/{record.class_id:06d}.csv": self.csv(record)}

    def cost(self) -> Cost:
        """Return a rough estimate."""
        pixels, points = self.size**2, self.points
        seconds = points * (2e-9 + 1e-8 / self.block) + pixels * 6e-10 + 3e-5
        return Cost(
            200 + min(0.02 * pixels, 0.1 * points),
            seconds,
            1e-8 * points if self.parameters else 1.3e-6 * points,
        )


class _Room:
    """Room for a game of ``points`` points; as in the authors' code the origin is left out."""

    def __init__(self, points: int) -> None:
        import numpy as np

        self.chances = np.empty(points - 1)
        self.chosen = np.empty(points - 1, np.uint8)
        self.points = np.empty((3, points - 1))
        self.seen = np.empty((3, points - 1), np.float32)
        self.pixels = np.empty(points - 1, np.int32)
