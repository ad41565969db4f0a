"""Read and validate a datacomp.toml before anything runs.

An error names file, line, key, what was found and what would be accepted.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ...durable import digest
from ...errors import ConfigError, DatacompError, MissingError, suggest
from ...evaluate.scales import Scale, get_scale
from ...filters.spec import FilterSpec
from ...pools.sources import KINDS, open_source
from ...pools.sources.base import Source

RUN = "run:"
"""``checkpoint = "run:NAME"`` means the checkpoint of dataset NAME, first seed."""

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StudySection(_Section):
    """[study]: what the study is called and where its outputs go."""

    name: str = Field("study", pattern=_NAME, description="name shown on the report")
    output: str = Field("datacomp-output", description="folder for everything that is made")


class SourceSection(BaseModel):
    """[[pool.source]]: a place samples come from; further keys are options of its kind."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    kind: str = Field(description=f"kind of source: {', '.join(KINDS)}")
    path: str | None = Field(None, description="folder or file, relative to datacomp.toml")

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in KINDS:
            raise ValueError(f"one of: {', '.join(KINDS)}{suggest(kind, list(KINDS))}")
        return kind


class PoolSection(_Section):
    """[pool]: the pool file and its sources."""

    path: str = Field("pool.duckdb", description="pool file, inside the output folder")
    source: list[SourceSection] = Field(min_length=1, description="where samples come from")


class FilterSection(BaseModel):
    """One filter of a dataset: ``use`` names it, further keys are its parameters."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    use: str = Field(description="a filter's name, or file.py:Class")

    def spec(self) -> FilterSpec:
        """Return the filter and its parameters."""
        return FilterSpec(self.use, dict(self.model_extra or {}))


class DatasetSection(_Section):
    """[[dataset]]: a subset of the pool, made by filters."""

    name: str = Field(pattern=_NAME, description="name of the dataset")
    filters: list[FilterSection] = Field(min_length=1, description="filters, in order")
    combine: Literal["and", "or", "then"] = Field("and", description="how the filters join")


class ShardsSection(_Section):
    """[shards]: the WebDataset shards made of each dataset."""

    size: int = Field(10_000, ge=1, description="samples per shard")


class TrainSection(_Section):
    """[train]: the recipe, and how it is run here."""

    scale: str = Field("small", description="demo, debug, small, medium, large or xlarge")
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(
        [0], min_length=1, description="one run per seed"
    )
    samples_seen: int | None = Field(None, ge=1, description="override the scale's budget")
    precision: Literal["fp32", "amp", "amp_bf16", "bf16", "fp16"] | None = Field(
        None, description="fp32, amp, amp_bf16, bf16 or fp16"
    )
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu or cuda"
    )
    workers: int = Field(2, ge=0, description="loader processes of each run")
    threads: int | None = Field(None, ge=1, description="CPU threads of each run")
    parallel: int = Field(1, ge=1, description="runs trained or evaluated at the same time")
    accumulation: int = Field(1, ge=1, description="gradient accumulation steps")

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("different seeds")
        return seeds

    def resolved(self) -> Scale:
        """Return the scale with its overrides."""
        return get_scale(self.scale, self.samples_seen)


class EvaluateSection(_Section):
    """[evaluate]: the suite, and where its data lie."""

    suite: Literal["demo", "datacomp"] = Field("datacomp", description="demo or datacomp")
    data: str | None = Field(None, description="folder of evaluation sets (demo: made itself)")
    tasks: list[str] = Field(["*"], min_length=1, description="task keys or patterns")


class Study(_Section):
    """A validated datacomp.toml."""

    study: StudySection = Field(default_factory=lambda: StudySection.model_validate({}))
    pool: PoolSection
    dataset: list[DatasetSection] = Field(min_length=1)
    shards: ShardsSection = Field(default_factory=lambda: ShardsSection.model_validate({}))
    train: TrainSection = Field(default_factory=lambda: TrainSection.model_validate({}))
    evaluate: EvaluateSection = Field(default_factory=lambda: EvaluateSection.model_validate({}))
    home: Path = Field(default=Path(), exclude=True)

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [dataset.name for dataset in self.dataset]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise ValueError(f"two datasets are called {double!r}; names must differ")
        return self

    @property
    def output(self) -> Path:
        """Folder for everything that is made."""
        return self.home / self.study.output

    @property
    def pool_path(self) -> Path:
        """The pool file."""
        return self.output / self.pool.path

    @property
    def eval_data(self) -> Path:
        """Folder of the evaluation sets."""
        if self.evaluate.data is not None:
            return self.home / self.evaluate.data
        return self.output / "evalsets"

    def sources(self) -> list[Source]:
        """Open the pool's sources."""
        opened = []
        for section in self.pool.source:
            path = self.home / section.path if section.path else self.output / section.kind
            opened.append(open_source(section.kind, path, **(section.model_extra or {})))
        return opened

    def get_dataset(self, name: str) -> DatasetSection:
        """Return a dataset by name."""
        return next(dataset for dataset in self.dataset if dataset.name == name)

    def filters_of(self, dataset: DatasetSection) -> list[FilterSpec]:
        """Return a dataset's filters, ``run:NAME`` replaced by the folder of that run."""
        specs = []
        for section in dataset.filters:
            spec = section.spec()
            parameters = {key: self._resolved(value) for key, value in spec.parameters.items()}
            use = spec.use
            if ".py:" in use:
                use = str(self.home / use)
            specs.append(FilterSpec(use, parameters))
        return specs

    def _resolved(self, value: Any) -> Any:
        """Replace ``run:NAME`` by the run's folder, and the name of a file by its full path."""
        if not isinstance(value, str):
            return value
        if value.startswith(RUN):
            return str(self.run_dir(value.removeprefix(RUN), self.train.seeds[0]))
        return str(self.home / value) if value and (self.home / value).is_file() else value

    def runs_needed(self, dataset: DatasetSection) -> list[str]:
        """Return the datasets whose runs a dataset's filters score with."""
        values = [value for f in dataset.filters for value in (f.model_extra or {}).values()]
        return [v.removeprefix(RUN) for v in values if isinstance(v, str) and v.startswith(RUN)]

    def subset_path(self, dataset: str) -> Path:
        """The subset file of a dataset."""
        return self.output / "subsets" / f"{dataset}.npy"

    def shards_dir(self, dataset: str) -> Path:
        """The shards of a dataset."""
        return self.output / "shards" / dataset

    def run_dir(self, dataset: str, seed: int) -> Path:
        """The run of a dataset and a seed."""
        return self.output / "runs" / f"{dataset}-seed{seed}"

    def identity(self) -> str:
        """Return a digest of the whole configuration."""
        return digest(self.model_dump(mode="json"))


def load_study(path: Path | str, output: Path | None = None) -> Study:
    """Read and validate a datacomp.toml; ``output`` overrides where outputs go.

    Raises ConfigError: ``FILE:LINE: KEY is FOUND, expected ACCEPTED``.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingError(
            f"{path}: no such file; 'datacomp demo' shows one, docs/configuration.md explains it"
        )
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from None
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        line = re.search(r"\(at line (\d+), column \d+\)", message)
        where = line[1] if line else text.count("\n") + 1
        reason = re.sub(r" \(at .*\)$", "", message)
        raise ConfigError(f"{path}:{where}: not TOML: {reason}") from None
    raw["home"] = path.parent.resolve()
    if output is not None:
        raw.setdefault("study", {})
        if isinstance(raw["study"], dict):
            raw["study"]["output"] = str(output.resolve())
    try:
        study = Study.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_complaint(path, text, error)) from None
    _check_meaning(path, text, study)
    return study


def _check_meaning(path: Path, text: str, study: Study) -> None:
    """Check what needs the registries: sources, filters, references, scale."""

    def attempt(location: tuple[str | int, ...], action: Any) -> None:
        try:
            action()
        except DatacompError as error:
            raise ConfigError(f"{path}:{line_of(text, location)}: {error}") from None

    for number, section in enumerate(study.pool.source):
        source: tuple[str | int, ...] = ("pool", "source", number)
        if section.path is None and section.kind != "glyphs":
            attempt(source, lambda s=section: _fail(
                f"pool.source.path is missing, expected the folder or file of the {s.kind} source"
            ))  # fmt: skip
        for name, value in (section.model_extra or {}).items():
            attempt((*source, name), lambda s=section, n=name, v=value: open_source(
                s.kind, ".", **{n: v}
            ))  # fmt: skip
    if not study.pool_path.resolve().is_relative_to(study.output.resolve()):
        attempt(("pool", "path"), lambda: _fail(
            f"pool.path is {study.pool.path!r}, expected a name inside the output folder"
        ))  # fmt: skip
    wanted = "samples_seen" if study.train.samples_seen is not None else "scale"
    attempt(("train", wanted), study.train.resolved)
    names = [dataset.name for dataset in study.dataset]
    for number, dataset in enumerate(study.dataset):
        for place, section in enumerate(dataset.filters):
            location = ("dataset", number, "filters", place)
            spec = section.spec()
            if ".py:" in spec.use:
                spec = FilterSpec(str(study.home / spec.use), spec.parameters)
            attempt(location, spec.make)
        for needed in study.runs_needed(dataset):
            earlier = names[:number]
            if needed not in earlier:
                known = f"expected a dataset that stands before it: {', '.join(earlier) or 'none'}"
                attempt(("dataset", number, "filters"), lambda n=needed, k=known, d=dataset: _fail(
                    f"dataset.{d.name} scores with {RUN}{n}, {k}"
                ))  # fmt: skip


def _fail(message: str) -> None:
    raise ConfigError(message)


def _complaint(path: Path, text: str, error: ValidationError) -> str:
    """Put pydantic's first complaint into our words."""
    first = error.errors()[0]
    location = first["loc"]
    key = ".".join(str(part) for part in location if not isinstance(part, int))
    line = line_of(text, location)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        return (
            f"{path}:{line}: unknown key {key!r}{suggest(str(location[-1]), known)}, "
            f"expected one of: {', '.join(known)}"
        )
    if first["type"] == "missing":
        return f"{path}:{line}: {key} is missing, expected {_description(location)}"
    if not location:
        return f"{path}:{line}: {message}"
    accepted = re.sub(
        r"^(Input should be|Value should have|String should|List should) ", "", message
    )
    return f"{path}:{line}: {key} is {first['input']!r}, expected {accepted}"


def _model_at(location: tuple[str | int, ...]) -> type[BaseModel]:
    model: type[BaseModel] = Study
    for part in location:
        if isinstance(part, int) or part not in model.model_fields:
            continue
        annotation = model.model_fields[part].annotation
        for candidate in (annotation, *getattr(annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
    return model


def _known_keys(location: tuple[str | int, ...]) -> list[str]:
    return [name for name in _model_at(location).model_fields if name != "home"]


def _description(location: tuple[str | int, ...]) -> str:
    field = _model_at(location[:-1]).model_fields.get(str(location[-1]))
    if field is None or not field.description:
        return "a value" if field is None else f"a [{location[-1]}] section"
    return field.description


def line_of(text: str, location: tuple[str | int, ...]) -> int:
    """Return the line (from 1) at which a key path stands in a TOML text, or the nearest above it.

    >>> line_of("[train]\\nseeds = 3\\n", ("train", "seeds"))
    2
    """
    lines = text.splitlines()
    counts: dict[str, int] = {}
    header: tuple[str | int, ...] = ()
    best, depth = 1, 0
    for number, line in enumerate(lines, 1):
        table = re.match(r"\s*\[\[?\s*([A-Za-z0-9_.\"' -]+?)\s*\]\]?", line)
        key = re.match(r"\s*([A-Za-z0-9_-]+)\s*=", line)
        if table:
            name = table[1].replace('"', "").replace(" ", "")
            header = tuple(name.split("."))
            if line.lstrip().startswith("[["):
                counts[name] = counts.get(name, -1) + 1
                header = (*header, counts[name])
            found: tuple[str | int, ...] = header
        elif key:
            found = (*header, key[1])
        else:
            continue
        if len(found) > depth and location[: len(found)] == found:
            best, depth = number, len(found)
    return _line_inside(lines, best, location[depth:])


def _line_inside(lines: list[str], start: int, rest: tuple[str | int, ...]) -> int:
    """Follow an array of inline tables from its first line: the n-th brace, then the key."""
    if not rest or not isinstance(rest[0], int):
        return start
    left = rest[0]
    for number in range(start, len(lines) + 1):
        braces = lines[number - 1].count("{")
        if braces > left:
            return number
        left -= braces
    return start
