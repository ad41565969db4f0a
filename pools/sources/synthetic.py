"""Images by formula as sources: a set that ``datacomp synth`` made, or one made on the way in."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from ...durable import digest
from ...errors import DataError, MissingError, UsageError
from ..synthetic import KINDS, generator_class
from ..synthetic.build import PER_SHARD, Plan, build
from ..synthetic.contract import MAX_CLASSES, MAX_INSTANCES, Generator, without_paths
from ..synthetic.marker import MARKER, read_marker
from ..synthetic.presets import make_generator
from .base import Record, SetAside
from .webdataset import WebDatasetSource


@dataclass(frozen=True)
class SyntheticSource(WebDatasetSource):
    """A synthetic set in a folder. With options, it is made there first; without, only read."""

    file_options: ClassVar[tuple[str, ...]] = ("parameters", "weights")
    verify: bool = False
    generator: Generator | None = None
    per_shard: int = PER_SHARD
    given: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def option_names(cls) -> list[str]:
        """Return the generator's options, and those of the set."""
        return [*(one.name for one in fields(generator_class(cls.kind))), "preset", "per_shard"]

    @classmethod
    def with_options(cls, path: Path | str, options: dict[str, Any]) -> Self:
        """Make the source from the generator's options, ``preset`` and ``per_shard``."""
        asked = dict(options)
        per_shard = asked.pop("per_shard", PER_SHARD)
        if type(per_shard) is not int:
            raise UsageError(f"source {cls.kind}: option per_shard is {per_shard!r}, expected int")
        name = str(asked.pop("preset")) if "preset" in asked else None
        generator = make_generator(cls.kind, name, asked) if options else None
        return cls(Path(path), False, generator, per_shard, tuple(sorted(options.items())))

    def options(self) -> dict[str, Any]:
        """Return the options that were given."""
        return dict(self.given)

    def estimate(self) -> int | None:
        """Return the number of images."""
        if self.generator is not None:
            return self.generator.total
        return self._total(self._marker())

    def signature(self) -> str:
        """Return a digest of the set's configuration: it decides every byte."""
        if self.generator is not None:
            return digest(without_paths(self._plan(self.generator).identity()))
        return digest(without_paths(self._marker()))

    def records(self) -> Iterator[Record | SetAside]:
        """Make what is not made yet if options say how, then read the shards."""
        if self.generator is not None:
            build(self._plan(self.generator))
        else:
            self._check(self._marker())
        yield from super().records()

    def _plan(self, generator: Generator) -> Plan:
        return Plan(generator, self.path, "shards", self.per_shard)

    def _marker(self) -> dict[str, Any]:
        found = read_marker(self.path)
        if found is None:
            raise MissingError(
                f"{self.path}: no synthetic set; make one with 'datacomp synth {self.kind} "
                f"{self.path}', or give options, such as classes=100"
            )
        return found

    def _total(self, found: dict[str, Any]) -> int:
        made = found["options"]
        classes = self._count("classes", made.get("classes"), MAX_CLASSES)
        return classes * self._count("instances", made.get("instances"), MAX_INSTANCES)

    def _count(self, name: str, value: Any, most: int) -> int:
        if type(value) is not int or not 1 <= value <= most:
            raise self._broken(name, value, f"1 to {most:,}")
        return value

    def _broken(self, name: str, value: Any, expected: str) -> DataError:
        return DataError(
            f"{self.path / MARKER}: {name} is {reprlib.repr(value)}, expected {expected}; "
            f"remove {self.path} and make the set again"
        )

    def _check(self, found: dict[str, Any]) -> None:
        if found.get("kind") not in [*KINDS]:
            raise self._broken("kind", found.get("kind"), f"one of {', '.join(KINDS)}")
        if found["kind"] != self.kind:
            raise UsageError(
                f"{self.path}: holds {found.get('kind')} images, not {self.kind}; "
                f"use kind {found.get('kind')}"
            )
        if found.get("format") != "shards":
            raise UsageError(
                f"{self.path}: holds the authors' folders, which have no captions; make the set "
                "with --format shards"
            )
        per_shard = self._count("per_shard", found.get("per_shard"), MAX_INSTANCES)
        shards = -(-self._total(found) // per_shard)
        stems = (path.stem for path in self.path.glob("*.tar"))
        made = {int(stem) for stem in stems if stem.isdecimal() and int(stem) < shards}
        if len(made) < shards:
            raise DataError(
                f"{self.path}: {shards - len(made):,} of {shards:,} shards are not made yet; run "
                f"the same 'datacomp synth {self.kind}' command again"
            )


@dataclass(frozen=True)
class VisualAtomSource(SyntheticSource):
    """VisualAtom: orbits that wave. A set made by `datacomp synth`, or options to make one."""

    kind: ClassVar[str] = "visualatom"


@dataclass(frozen=True)
class RcdbSource(SyntheticSource):
    """RCDB: radial contours. A set made by `datacomp synth`, or options to make one."""

    kind: ClassVar[str] = "rcdb"


@dataclass(frozen=True)
class FractalDbSource(SyntheticSource):
    """FractalDB: fractals of affine maps. A set made by `datacomp synth`, or options."""

    kind: ClassVar[str] = "fractaldb"


@dataclass(frozen=True)
class ExFractalDbSource(SyntheticSource):
    """ExFractalDB: views of 3-D fractals. A set made by `datacomp synth`, or options."""

    kind: ClassVar[str] = "exfractaldb"
