"""What a filter is.

A **filter** is a named rule with typed parameters. It consists of **scorers**, which turn a
batch of samples into one immutable value each, written to the pool once; and **decisions**,
which are SQL predicates with a reason code. Scores are dear, decisions are free: a whole
funnel of decisions is one scan of the pool.

    class Sharpness(Filter):
        "Keep images whose edges are sharp."
        min: float = 3.0

        def scorers(self):
            return [SharpnessScorer()]

        def decide(self, view):
            return [Decision("blurred", f"{view.score(SharpnessScorer())} >= {self.min}")]
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, get_args

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticKnownError

from ..durable import digest
from ..errors import UsageError
from .published import Published

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Decision:
    """Keep the samples for which an SQL predicate is true; the others drop out under ``reason``.

    A predicate that is NULL drops the sample.
    """

    reason: str
    predicate: str

    def __post_init__(self) -> None:
        """Refuse what is no text: a number, or SQL that was compared in Python."""
        if not (isinstance(self.reason, str) and isinstance(self.predicate, str)):
            raise TypeError(
                f"a Decision takes a reason and SQL, both text; found {self.reason!r}, "
                f"{self.predicate!r}"
            )


@dataclass(frozen=True)
class Batch:
    """Some samples as a scorer sees them: the columns, the images or the features it asked for.

    Samples whose images cannot be read are left out. Each of ``features`` has one row per sample,
    shape (n, dimension), in the dtype of its file.
    """

    columns: pa.Table
    images: Sequence[bytes] = ()
    features: Mapping[str, NDArray[np.floating[Any]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return next(map(len, self.features.values()), len(self.images) or self.columns.num_rows)

    def frame(self) -> pl.DataFrame:
        """Return the columns as a Polars data frame, without copying them."""
        import polars as pl

        return pl.DataFrame(self.columns)


class Scorer(ABC):
    """Turns samples into one value each. Equal identities give equal values, for ever."""

    name: str
    type: str = "FLOAT"
    columns: tuple[str, ...] = ()
    images: bool = False
    features: tuple[str, ...] = ()
    """Features such as ``l14_img``, in place of columns and images; what has none gets no score."""
    batch_size: int = 256
    concurrent: bool = False
    """Whether several threads may score images at the same time."""
    gpu: bool = False
    """Whether a GPU is of use, where there is one."""

    def expect(self, total: int) -> None:  # noqa: B027
        """Hear, before the first batch, that at most ``total`` samples will come."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return what the values depend on: parameters, and the digest of any model."""

    @abstractmethod
    def score(self, batch: Batch) -> Sequence[Any] | pa.Array:
        """Return one value per sample; None where there cannot be one, now or ever.

        A list, or an Arrow array.

        A sample whose image cannot be read never gets here: the engine drops it for this run
        under the reason ``unreadable`` and stores nothing.
        """

    def digest(self) -> str:
        """Return the digest that names this score column."""
        return digest({"name": self.name, "type": self.type, **self.identity()})


class View(Protocol):
    """What a filter may see of the pool: everything but the truth column."""

    relation: str
    """Name of an SQL relation with one row per candidate; put it after FROM."""

    def has(self, column: str) -> bool:
        """Tell whether the candidates have a column."""
        ...

    def require(self, column: str, hint: str = "") -> str:
        """Return the quoted column, or raise MissingError with the columns there are."""
        ...

    def score(self, scorer: Scorer) -> str:
        """Return the SQL of a scorer's value; the scorer must be among ``scorers()``."""
        ...

    def scalar(self, query: str) -> Any:
        """Run a query and return its single value, where ``count`` and ``nth`` do not serve."""
        ...

    def count(self, where: str = "true") -> int:
        """Return the number of candidates for which an SQL predicate holds."""
        ...

    def nth(
        self, value: str, place: int, *, where: str = "true", descending: bool = False,
        repeated: bool = False,
    ) -> Any:  # fmt: skip
        """Return the value of an SQL expression at a place, from 0, of the order of all candidates.

        Only candidates count for which ``where`` holds and whose value is not NULL; None where
        there are not so many. ``repeated`` is a hint that there are few different values. Unlike
        ``scalar`` it is answered by a pool in partitions too.
        """
        ...

    def first(self, *columns: str) -> str:
        """Return SQL that is true of one of those candidates that are the same in the columns.

        It is that of the smallest uid. NULL is the same as NULL. Unlike a window of one's own it
        serves a pool in partitions too.
        """
        ...

    def kind(self, column: str) -> str:
        """Return the SQL type of a column."""
        ...


class Filter(BaseModel):
    """A rule with typed parameters (pydantic fields). Its docstring says rule and source."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true for 1 and 1 for true: either is more likely a slip."""
        assert info.field_name is not None
        kinds = _kinds(cls.model_fields[info.field_name].annotation)
        if isinstance(value, bool) and bool not in kinds and kinds & {int, float}:
            raise PydanticKnownError("float_type" if float in kinds else "int_type")
        if type(value) in (int, float) and bool in kinds and type(value) not in kinds:
            raise PydanticKnownError("bool_type")
        return value

    set_level: ClassVar[bool] = False
    """Whether the verdict on a sample depends on the others (top fraction, duplicates)."""

    published: ClassVar[tuple[Published, ...]] = ()
    """What the rule's papers report for it."""

    needs: ClassVar[Mapping[str, str]] = {}
    """Modules that it needs beyond the base installation, each with the extra that brings it."""

    not_reported: ClassVar[str] = ""
    """Why nothing is ``published``: what its papers do instead of training on DataComp's pools."""

    def files(self) -> dict[str, str]:
        """Return those parameters that name a file or folder the filter will read, as given.

        By default those called ``checkpoint`` or ``..._file``. A study takes them relative to
        its configuration, looks for them before it begins, and runs the filter again when one
        has changed.
        """
        values = {name: getattr(self, name) for name in type(self).model_fields}
        return {
            name: value
            for name, value in values.items()
            if isinstance(value, str) and (name == "checkpoint" or name.endswith("_file"))
        }

    def scorers(self) -> list[Scorer]:
        """Return the scorers whose values ``decide`` uses."""
        return []

    def before_scoring(self, view: View) -> list[Decision]:
        """Return those of the decisions that need no score: what they drop is not scored."""
        return []

    def decide(self, view: View) -> list[Decision]:
        """Return all decisions, in the order in which reasons are given."""
        raise NotImplementedError(f"{type(self).__name__} has no decide(self, view)")

    def weight(self, view: View) -> str | None:
        """Return SQL of how often a kept sample is to be seen, an integer; None is once.

        0 or NULL drops the sample for the reason ``not_drawn``.
        """
        return None

    @classmethod
    def rule(cls) -> str:
        """Return the first line of the docstring."""
        return (cls.__doc__ or "").strip().split("\n")[0]


def _kinds(annotation: Any) -> set[Any]:
    """Return the types that an annotation names, those within others included."""
    return {annotation}.union(*map(_kinds, get_args(annotation)))


def sql_text(text: str) -> str:
    """Quote a string for SQL."""
    return "'" + text.replace("'", "''") + "'"


def sql_number(value: float) -> str:
    """Write a number for SQL so that it reads back exactly."""
    if not math.isfinite(value):
        raise UsageError(f"{value} is not a number a filter can compare with")
    return f"'{value!r}'::DOUBLE"
