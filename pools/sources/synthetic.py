"""Images by formula as sources: a set that ``datacomp synth`` made, or one made on the way in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from ...durable import digest
from ...errors import DataError, MissingError, UsageError
from ..synthetic import generator_class
from ..synthetic.build import PER_SHARD, Plan, build
from ..synthetic.contract import Generator, without_paths
from ..synthetic.marker import read_marker
from ..synthetic.presets import preset
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
        if "preset" in asked:
            asked = {**preset(str(asked.pop("preset")), cls.kind).options, **asked}
        generator = generator_class(cls.kind).with_options(asked) if options else None
        return cls(Path(path), False, generator, per_shard, tuple(sorted(options.items())))

    def options(self) -> dict[str, Any]:
        """Return the options that were given."""
        return dict(self.given)

    def estimate(self) -> int | None:
        """Return the number of images."""
        if self.generator is not None:
            return self.generator.total
        made = self._marker()["options"]
        return int(made.get("classes", 0)) * int(made.get("instances", 0))

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

    def _check(self, found: dict[str, Any]) -> None:
        if found.get("kind") != self.kind:
            raise UsageError(
                f"{self.path}: holds {found.get('kind')} images, not {self.kind}; "
                f"use kind {found.get('kind')}"
            )
        if found.get("format") != "shards":
            raise UsageError(
                f"{self.path}: holds the authors' folders, which have no captions; make the set "
                "with --format shards"
            )
        options = found["options"]
        total = int(options.get("classes", 0)) * int(options.get("instances", 0))
        shards = -(-total // int(found.get("per_shard") or 1))
        missing = [n for n in range(shards) if not (self.path / f"{n:05d}.tar").exists()]
        if missing:
            raise DataError(
                f"{self.path}: {len(missing):,} of {shards:,} shards are not made yet; run the "
                f"same 'datacomp synth {self.kind}' command again"
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
