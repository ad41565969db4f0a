"""What VisualAtom and RCDB share: ellipses whose vertices move outward, orbit by orbit."""

from __future__ import annotations

import io
import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from ...errors import UsageError
from .contract import ClassRecord, Generator, Picture, Values, option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CHECKPOINTS = 20_000
"""How many states of a stream are kept in exact mode, 2.5 kB each."""

_CLASSES_AT_ONCE = 5000
"""Classes of fast mode cost nothing to find, but files of them do."""

_STATE_BYTES = 4 * 625
_CLASS, _PLACE, _NOISE = 0, 1, 2
"""Purposes of the streams of fast mode."""


class Draws(Protocol):
    """What parameters are drawn from: the part of ``random.Random`` that is needed."""

    def randint(self, low: int, high: int) -> int:
        """Return an integer in [low, high]."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """Return a number between low and high."""
        ...

    def expovariate(self, rate: float) -> float:
        """Return a number of the exponential distribution with mean 1 / rate."""
        ...


@dataclass(frozen=True, slots=True)
class Contour:
    """All that one image is drawn from but its noise; lengths in px of the canvas."""

    vertices: int
    orbits: int
    noise: float
    drift: float
    radius: int
    oval_x: float
    oval_y: float
    x: float
    y: float
    waves: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class ContourGenerator(Generator):
    """Moving contours. In exact mode, process t of ``processes`` is seeded with seed + t + 1."""

    modes = ("fast", "exact")
    gain: ClassVar[float]
    background: ClassVar[int]
    centre_at_start: ClassVar[bool]
    """Whether vertices move with the centre added: it decides how floats are rounded."""

    processes: int = option(
        1, "exact mode: how many processes the authors' script was run with", low=1, high=100_000
    )
    canvas: int = option(
        0, "side in px the formula is meant for; 0: 512, or the image's size in exact mode",
        low=0, high=8192,
    )  # fmt: skip
    noise_min: float = option(0.0, "smallest distance of orbits in px", low=-100, high=100)
    noise_span: float = option(4.0, "largest minus smallest distance of orbits", low=0, high=100)
    drift: float = option(0.1, "largest extra distance of orbits ('line width')", low=0, high=100)
    oval: float = option(2.0, "largest stretching of the first ellipse", low=1, high=100)

    def check(self) -> None:
        """Refuse what cannot be split or scaled as the authors' code does."""
        if self.mode == "exact":
            if self.classes % self.processes:
                raise UsageError(
                    f"{self.kind}: {self.classes} classes cannot be split over {self.processes} "
                    "processes; in exact mode classes must be a multiple of processes"
                )
            if self.canvas not in (0, self.size):
                raise UsageError(
                    f"{self.kind}: canvas is {self.canvas}; in exact mode it is the image's size "
                    f"({self.size}), since the authors' code does not scale"
                )
        elif self.processes != 1:
            raise UsageError(
                f"{self.kind}: processes is {self.processes}, but only exact mode depends on it; "
                "use --workers to run several"
            )

    @property
    def side(self) -> int:
        """Side of the canvas in px."""
        return self.canvas or (self.size if self.mode == "exact" else 512)

    @property
    @abstractmethod
    def grays(self) -> int:
        """How many gray levels an orbit is drawn from."""

    @abstractmethod
    def draw_class(self, draws: Draws) -> tuple[Values, Values]:
        """Draw a class and its first instance, in the authors' order."""

    @abstractmethod
    def draw_instance(self, draws: Draws) -> Values:
        """Draw a later instance, in the authors' order."""

    @abstractmethod
    def contour(self, class_values: Values, values: Values) -> Contour:
        """Return what an image is drawn from."""

    # -- classes ---------------------------------------------------------------------------

    @property
    def block(self) -> int:
        """In exact mode, the images between two kept states of a stream."""
        if self.mode == "fast":
            return 1
        kept = min(self.instances, max(1, _CHECKPOINTS // self.classes))
        return math.ceil(self.instances / kept)

    def groups(self) -> list[range]:
        """In exact mode, the classes of each of the authors' processes."""
        step = self.classes // self.processes if self.mode == "exact" else _CLASSES_AT_ONCE
        return [self.class_ids[at : at + step] for at in range(0, self.classes, step)]

    def find(self, group: range) -> Iterator[ClassRecord]:
        """Yield the classes of a group; in exact mode all their images are passed over."""
        if self.mode == "exact":
            yield from self._find_exact(group)
            return
        from .draws import CLASS, NamedStream

        for class_id in group:
            yield ClassRecord(
                class_id, self.draw_class(NamedStream(self.seed, class_id, CLASS, _CLASS))[0]
            )

    def _find_exact(self, group: range) -> Iterator[ClassRecord]:
        import numpy as np

        from .contour_kernels import pass_exact
        from .mersenne import MersenneStream

        process = (group[0] - self.start_class) // len(group)
        draws = MersenneStream(self.seed + process + 1)
        for class_id in group:
            class_values, values = self.draw_class(draws)
            states = io.BytesIO()  # held once: there may be 50 MB of them
            for instance in range(self.instances):
                if instance % self.block == 0:
                    carried = np.array([float(value) for value in values.values()], "<f8")
                    states.write(draws.state.astype("<u4").tobytes() + carried.tobytes())
                pass_exact(
                    draws.state, class_values["vertices"], class_values["orbits"], self.grays
                )
                values = self.draw_instance(draws)
            yield ClassRecord(class_id, class_values, states.getvalue())

    def first_values(self, record: ClassRecord) -> Values:
        """Return the parameters of a class's instance 0."""
        if self.mode == "exact":
            return self._restore(record, 0)[1]
        return self._values(record.class_id, 0)

    def _values(self, class_id: int, instance: int) -> Values:
        from .draws import NamedStream

        return self.draw_instance(NamedStream(self.seed, class_id, instance, _PLACE))

    def _restore(self, record: ClassRecord, block: int) -> tuple[NDArray[np.uint32], Values]:
        """Return the stream's state and the instance's values at the start of a block."""
        import numpy as np

        blocks = math.ceil(self.instances / self.block)
        step = len(record.state) // blocks
        part = record.state[block * step : (block + 1) * step]
        state = np.frombuffer(part, "<u4", 625).astype(np.uint32)
        carried = np.frombuffer(part, "<f8", offset=_STATE_BYTES)
        return state, self.carried(carried.tolist())

    @abstractmethod
    def carried(self, numbers: list[float]) -> Values:
        """Return an instance's values from its numbers, in their order."""

    # -- pictures --------------------------------------------------------------------------

    def pictures(self, record: ClassRecord, first: int, last: int) -> Iterator[Picture]:
        """Yield instances [first, last) of a class."""
        if self.mode == "exact":
            yield from self._pictures_exact(record, first, last)
        else:
            yield from self._pictures_fast(record, first, last)

    def _pictures_exact(self, record: ClassRecord, first: int, last: int) -> Iterator[Picture]:
        import numpy as np

        from .contour_kernels import draw_exact, pass_exact
        from .mersenne import MersenneStream
        from .perlin import GRADIENTS

        draws = MersenneStream(0)
        block = first // self.block
        draws.state, values = self._restore(record, block)
        pixels = np.empty((self.size, self.size), np.uint8)
        shape = _shape_exact(self.contour(record.parameters, values))
        for instance in range(block * self.block, last):
            drawn = self.contour(record.parameters, values)
            if instance < first:
                pass_exact(draws.state, drawn.vertices, drawn.orbits, self.grays)
            else:
                pixels[:] = self.background
                x, y = (
                    shape[0] * drawn.radius * drawn.oval_x,
                    shape[1] * drawn.radius * drawn.oval_y,
                )
                shift = (drawn.x, drawn.y)
                if self.centre_at_start:
                    x, y, shift = x + drawn.x, y + drawn.y, (0.0, 0.0)
                draw_exact(
                    pixels, draws.state, shape, x, y, *shift, drawn.noise, self.gain,
                    drawn.drift, drawn.orbits, self.grays, GRADIENTS,
                )  # fmt: skip
                yield Picture(instance, pixels, dict(values), self.background)
            values = self.draw_instance(draws)

    def _pictures_fast(self, record: ClassRecord, first: int, last: int) -> Iterator[Picture]:
        import numpy as np

        from .contour_kernels import draw_fast
        from .draws import stream
        from .perlin import table

        pixels = np.empty((self.size, self.size), np.uint8)
        shape: NDArray[np.float64] | None = None
        for instance in range(first, last):
            values = self._values(record.class_id, instance)
            drawn = self.contour(record.parameters, values)
            if shape is None:
                shape = _shape_fast(drawn)
            pixels[:] = self.background
            x = shape[0] * drawn.radius * drawn.oval_x + drawn.x
            y = shape[1] * drawn.radius * drawn.oval_y + drawn.y
            key = np.uint64(stream(self.seed, record.class_id, instance, _NOISE))
            draw_fast(
                pixels, key, shape, x, y, self.size / self.side, drawn.noise, self.gain,
                drawn.drift, drawn.orbits, self.grays, table(),
            )  # fmt: skip
            yield Picture(instance, pixels, dict(values), self.background)


def _shape_exact(contour: Contour) -> NDArray[np.float64]:
    """Return cosine, sine and two waves at each vertex, (4, q), as Python's ``math`` has them."""
    import numpy as np

    angle = (math.pi * 2) / contour.vertices
    turns = [angle * vertex for vertex in range(contour.vertices)]
    rows = [[math.cos(turn) for turn in turns], [math.sin(turn) for turn in turns]]
    rows += [[size * math.sin(turn * n) for turn in turns] for size, n in contour.waves]
    shape = np.zeros((4, contour.vertices))
    shape[: len(rows)] = rows
    return shape


def _shape_fast(contour: Contour) -> NDArray[np.float64]:
    """Return the same from additions and multiplications alone: same bits on any machine."""
    import numpy as np

    from .contour_kernels import fill_shape

    shape = np.empty((4, contour.vertices))
    (size1, n1), (size2, n2) = (*contour.waves, (0.0, 0), (0.0, 0))[:2]
    fill_shape(shape, float(size1), n1, float(size2), n2)
    return shape
