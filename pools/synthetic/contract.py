"""What a generator of synthetic images must provide: one frozen dataclass per formula.

A data set is made in two steps. First the classes are found: every group of ``groups`` can be
found by itself, in any process, and gives one ``ClassRecord`` per class. Then pictures are
drawn: ``pictures`` draws any run of instances of any class from its record alone. Neither
depends on how the work is cut, so the number of workers never changes a pixel.

This module imports nothing heavy: the command line reads the dataclasses for its options.
Generators import numpy and numba inside the functions that draw.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ...durable import digest
from ...errors import UsageError, suggest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Scalar = bool | int | float | str
Values = dict[str, Any]
"""Parameters by name: scalars, or flat lists of floats (such as the maps of a fractal)."""

MAX_SIDE = 8192
MAX_CLASSES = 10_000_000
MAX_INSTANCES = 100_000_000


@dataclass(frozen=True, slots=True)
class ClassRecord:
    """One class: its number, its parameters, and what else its generator needs to draw it.

    ``class_id`` counts from ``start_class``. ``parameters`` go into classes.parquet and
    into the ``.json`` of each picture. ``state`` is opaque bytes, kept in
    a file beside it and handed back to ``pictures``: of one length for all classes of a set, empty
    where the parameters suffice.
    """

    class_id: int
    parameters: Values
    state: bytes = b""


@dataclass(frozen=True, slots=True)
class Picture:
    """One image.

    ``pixels`` is uint8 of shape (h, w) for gray or (h, w, 3) for colour; views with negative
    strides are fine. ``levels`` promises that a gray picture holds these two values only, the
    background first: it is then stored with one bit a pixel. ``background`` is the gray value
    (or the value of all three channels) of a pixel nothing was drawn on. ``parameters`` are
    the scalars that differ from instance to instance.
    """

    instance: int
    pixels: NDArray[np.uint8]
    parameters: dict[str, Scalar] = field(default_factory=dict)
    background: int = 0
    levels: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a set costs to make, roughly, on one core of an ordinary machine.

    Bytes of the PNG and seconds per image, and seconds per class for finding it.
    """

    image_bytes: float
    image_seconds: float
    class_seconds: float = 0.0


def option(default: Any, text: str, **limits: float) -> Any:
    """Declare a parameter: default, meaning (the option's help text) and ``low``/``high``.

    The option's name on the command line is the field's name with dashes. The limits are
    inclusive and are checked by ``Generator.__post_init__``, which also refuses values of
    another type, NaN and infinity.
    """
    return field(default=default, metadata={"help": text, **limits})


def choice(default: str, text: str, *values: str) -> Any:
    """Declare a parameter that takes one of several words."""
    return field(default=default, metadata={"help": text, "choices": values})


@dataclass(frozen=True, kw_only=True)
class Generator(ABC):
    """A formula with all its parameters; frozen, validated, picklable, cheap to make.

    Subclasses are ``@dataclass(frozen=True, kw_only=True)``, declare their own fields with
    ``option`` and ``choice``, override ``modes`` and defaults (by declaring the field again),
    and check what concerns several fields in ``check``.
    """

    kind: ClassVar[str]
    """The word for it on the command line and in datacomp.toml."""
    version: ClassVar[int] = 1
    """Raised whenever the pixels of the same parameters change."""
    modes: ClassVar[tuple[str, ...]] = ("fast",)
    kept: ClassVar[dict[str, str]] = {}
    """Options that name a file which a set needs ever after, and the name of the set's copy."""

    classes: int = option(1000, "number of classes", low=1, high=MAX_CLASSES)
    instances: int = option(1000, "images per class", low=1, high=MAX_INSTANCES)
    size: int = option(512, "side of the images in px", low=1, high=MAX_SIDE)
    seed: int = option(0, "another seed gives another data set", low=0, high=2**63 - 1)
    start_class: int = option(0, "number of the first class", low=0, high=MAX_CLASSES)
    mode: str = choice(
        "fast", "fast: any image by itself; exact: the pixels of the authors' code", "fast", "exact"
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            _check_field(self.kind, item, getattr(self, item.name))
        if self.mode not in self.modes:
            raise UsageError(f"{self.kind}: there is no mode {self.mode!r}; use {self.modes[0]!r}")
        self.check()

    def check(self) -> None:
        """Refuse parameters that cannot be used together: one-line UsageErrors."""
        return

    @classmethod
    def with_options(cls, options: dict[str, Any]) -> Self:
        """Make the generator; an unknown option is a UsageError."""
        known = [item.name for item in fields(cls)]
        for name in options:
            if name not in known:
                raise UsageError(
                    f"{cls.kind}: unknown option {name!r}{suggest(name, known)}; "
                    f"options: {', '.join(known)}"
                )
        return cls(**options)

    def options(self) -> dict[str, Scalar]:
        """Return all parameters as plain values, in the order they are declared."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def identity(self) -> dict[str, Any]:
        """Return what decides the pixels, as plain JSON values: kind, version and parameters.

        A generator that reads files adds what is in them here, under the option's name.
        """
        return {"kind": self.kind, "version": self.version, "options": self.options()}

    def digest(self) -> str:
        """Return the name of this configuration: the SHA-256 of what decides its pixels."""
        return digest(without_paths(self.identity()))

    @property
    def class_ids(self) -> range:
        """The numbers of the classes."""
        return range(self.start_class, self.start_class + self.classes)

    @property
    def total(self) -> int:
        """The number of images."""
        return self.classes * self.instances

    @property
    def block(self) -> int:
        """How many neighbouring instances are best drawn together (they share work).

        Shards hold blocks of many classes rather than many instances of few.
        """
        return 1

    def groups(self) -> list[range]:
        """Return runs of class numbers that can be found independently of one another."""
        step = max(1, min(64, math.ceil(self.classes / 64)))
        ids = self.class_ids
        return [ids[at : at + step] for at in range(0, self.classes, step)]

    @abstractmethod
    def find(self, group: range) -> Iterator[ClassRecord]:
        """Yield the records of the classes of one of ``groups``, in order."""

    @abstractmethod
    def pictures(self, record: ClassRecord, first: int, last: int) -> Iterator[Picture]:
        """Yield instances [first, last) of a class, in order; each is the same however cut.

        ``pixels`` may be a buffer that the next picture overwrites.
        """

    def picture(self, class_id: int, instance: int) -> Picture:
        """Return one image; in exact mode everything before it in its stream is passed over."""
        if class_id not in self.class_ids or not 0 <= instance < self.instances:
            raise UsageError(
                f"{self.kind}: no image of class {class_id}, instance {instance}; there are "
                f"classes {self.class_ids[0]} to {self.class_ids[-1]} of {self.instances:,} each"
            )
        group = next(group for group in self.groups() if class_id in group)
        record = next(found for found in self.find(group) if found.class_id == class_id)
        return next(iter(self.pictures(record, instance, instance + 1)))

    @abstractmethod
    def caption(self, record: ClassRecord) -> str:
        """Return what the pictures of a class show, in a line of English."""

    @abstractmethod
    def file_name(self, record: ClassRecord, instance: int) -> str:
        """Return the authors' name of an image's file, relative to the data set's folder."""

    def class_files(self, record: ClassRecord) -> dict[str, bytes]:
        """Return the authors' files about a class (parameter CSVs) by relative name."""
        return {}

    def sweeps(self) -> dict[str, list[Scalar]]:
        """Return class parameters worth varying by themselves, with the values to show.

        ``pictures`` must draw a record in which one of them was replaced.
        """
        return {}

    @abstractmethod
    def cost(self) -> Cost:
        """Return a rough estimate of what the images cost."""


def without_paths(identity: dict[str, Any]) -> dict[str, Any]:
    """Return an identity less the options that name files whose contents it holds."""
    options = {name: one for name, one in identity["options"].items() if name not in identity}
    return {**identity, "options": options}


def spread(low: float, high: float, count: int = 7) -> list[int]:
    """Return about ``count`` whole numbers from low to high, evenly spaced."""
    steps = max(1, count - 1)
    return sorted({round(low + (high - low) * n / steps) for n in range(count)})


def _check_field(kind: str, item: Field[Any], value: Any) -> None:
    name = f"{kind}: {item.name}"
    choices = item.metadata.get("choices")
    if choices is not None:
        if value not in choices:
            raise UsageError(f"{name} is {value!r}, expected one of {', '.join(choices)}")
        return
    wanted = type(item.default)
    accepted = (int, float) if wanted is float else (wanted,)
    if type(value) not in accepted:
        raise UsageError(f"{name} is {value!r}, expected {wanted.__name__}")
    low, high = item.metadata.get("low", -math.inf), item.metadata.get("high", math.inf)
    if wanted in (int, float) and not (math.isfinite(value) and low <= value <= high):
        raise UsageError(f"{name} is {value!r}, expected {_between(low, high)}")


def _between(low: float, high: float) -> str:
    if high == math.inf:
        return "a finite number" if low == -math.inf else f"at least {low:,}"
    return f"{low:,} to {high:,}"
