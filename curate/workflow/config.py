"""Read and validate a datacomp.toml before anything runs.

An error names file, line, key, what was found and what would be accepted. What the file says is
checked when it is read (``load_study``); that what it names is there, before anything runs
(``checks.check_inputs``).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationError,
    field_validator,
)

from ...errors import ConfigError, MissingError, suggest
from ...evaluate.scales import Scale, get_scale
from ...evaluate.tasks import is_url
from ...filters.assets import ASSETS, with_assets
from ...filters.expression import COMBINE, FilterGroup, Node
from ...filters.registry import get as get_filter
from ...filters.registry import parameters
from ...filters.spec import FilterSpec
from ...pools.ranges import is_remote
from ...pools.sources import KINDS, open_source, source_class
from ...pools.sources.base import Source
from ..engine.choice import ADDRESS, SIZE, EngineChoice
from .complaints import explain
from .location import Location, line_of

RUN = "run:"
"""``checkpoint = "run:NAME"`` means the checkpoint of dataset NAME, first seed.

``features = "run:NAME"``, or ``arch``, means the features that its model makes of the pool.
"""

_FEATURES = ("features", "arch")
"""Parameters of filters that name features."""
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"


def _on_file_systems(value: str) -> str:
    if is_remote(value):
        raise ValueError("a path on a file system, not a URL")
    return value


_Place = Annotated[str, Field(pattern=r"^[^\x00]+$")]
_Path = Annotated[_Place, AfterValidator(_on_file_systems)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StudySection(_Section):
    """[study]: what the study is called and where its outputs go."""

    name: str = Field("study", pattern=_NAME, description="name shown on the report")
    output: _Path = Field("datacomp-output", description="folder for everything that is made")


class SourceSection(BaseModel):
    """[[pool.source]]: a place samples come from; further keys are options of its kind."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    kind: str = Field(description=f"kind of source: {', '.join(KINDS)}")
    path: _Path | None = Field(None, description="folder or file, relative to datacomp.toml")

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in KINDS:
            raise ValueError(f"one of: {', '.join(KINDS)}{suggest(kind, list(KINDS))}")
        return kind


class PoolSection(_Section):
    """[pool]: the pool file and its sources."""

    path: _Path = Field("pool.duckdb", description="pool file, inside the output folder")
    source: list[SourceSection] = Field(min_length=1, description="where samples come from")
    memory: str | None = Field(
        None, pattern=r"^[1-9]\d*(\.\d+)? ?([KMGT]i?B|%)$",
        description="most memory the database may take (half of the machine's)",
        examples=['memory = "2GB"'],
    )  # fmt: skip
    threads: int | None = Field(None, ge=1, description="CPU threads of the database (every core)")


class FilterSection(BaseModel):
    """One filter of a dataset: ``use`` names it, further keys are its parameters."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    use: _Path = Field(description="a filter's name, or file.py:Class")
    negated: bool = Field(False, alias="not", description="keep what the filter would drop")

    def spec(self) -> FilterSpec:
        """Return the filter and its parameters."""
        return FilterSpec(self.use, dict(self.model_extra or {}), negated=self.negated)


_HOW = f"how the filters join: {', '.join(COMBINE)}"
_Combine = Literal["and", "or", "then", "minus"]


class GroupSection(_Section):
    """Filters that are joined into one, in place of a filter."""

    filters: list[Member] = Field(min_length=1, description="filters, in order")
    combine: _Combine = Field("and", description=_HOW)
    negated: bool = Field(False, alias="not", description="keep what the group would drop")


def _kind_of_member(value: Any) -> str:
    """Tell a group, which has filters, from a filter, which has a name."""
    filters = value.get("filters") if isinstance(value, dict) else None
    return "group" if filters is not None or isinstance(value, GroupSection) else "filter"


Member = Annotated[
    Annotated[FilterSection, Tag("filter")] | Annotated[GroupSection, Tag("group")],
    Discriminator(_kind_of_member),
]
"""One of a dataset's filters, or a group of them."""

GroupSection.model_rebuild()  # a group can hold groups


class AssetsSection(_Section):
    """[assets]: files that published rules need, for all filters; relative to datacomp.toml."""

    fasttext_lid: _Path | None = Field(None, description=ASSETS["fasttext_lid"].what)
    wordnet: _Path | None = Field(None, description=ASSETS["wordnet"].what)
    imagenet21k_synsets: _Path | None = Field(None, description=ASSETS["imagenet21k_synsets"].what)
    pool_centroids: _Path | None = Field(None, description=ASSETS["pool_centroids"].what)
    target_embeddings: _Path | None = Field(None, description=ASSETS["target_embeddings"].what)
    text_detector: _Path | None = Field(None, description=ASSETS["text_detector"].what)
    evaluation_features: _Path | None = Field(None, description=ASSETS["evaluation_features"].what)

    def given(self) -> dict[str, str]:
        """Return the paths that are given, by name."""
        return self.model_dump(exclude_none=True)


class DatasetSection(_Section):
    """[[dataset]]: a subset of the pool, made by filters."""

    name: str = Field(pattern=_NAME, description="name of the dataset")
    filters: list[Member] = Field(
        min_length=1,
        description="filters, or groups of them, in order",
        examples=['filters = [{ use = "no_filter" }]'],
    )
    combine: _Combine = Field("and", description=_HOW)

    def sections(self) -> Iterator[tuple[Location, FilterSection]]:
        """Yield the filters, those of groups too, with where they stand below the dataset."""
        return _sections(("filters",), self.filters)


def _sections(
    location: Location, members: Sequence[FilterSection | GroupSection]
) -> Iterator[tuple[Location, FilterSection]]:
    for place, member in enumerate(members):
        here = (*location, place)
        if isinstance(member, GroupSection):
            yield from _sections((*here, "filters"), member.filters)
        else:
            yield here, member


class TruthSection(_Section):
    """[truth]: filters held one by one against the pool's planted truth; nothing is trained."""

    filters: list[Member] = Field(
        default_factory=list,
        description="filters, or groups of them",
        examples=['filters = [{ use = "exact_dedup" }]'],
    )

    def sections(self) -> Iterator[tuple[Location, FilterSection]]:
        """Yield the filters, those of groups too, with where they stand below the section."""
        return _sections(("filters",), self.filters)


class ShardsSection(_Section):
    """[shards]: the WebDataset shards made of each dataset."""

    size: int = Field(10_000, ge=1, description="samples per shard")
    view: bool = Field(False, description="train on views of the sources' tars, copy nothing")


class TrainSection(_Section):
    """[train]: the recipe, and how it is run here."""

    scale: str = Field("small", description="demo, debug, small, medium, large or xlarge")
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(
        [0], min_length=1, description="one run per seed", examples=["seeds = [0, 1, 2]"]
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
            raise ValueError("seeds that differ")
        return seeds

    def resolved(self) -> Scale:
        """Return the scale with its overrides."""
        return get_scale(self.scale, self.samples_seen)


class EvaluateSection(_Section):
    """[evaluate]: the suite, and where its data lie."""

    suite: Literal["demo", "datacomp"] = Field("datacomp", description="demo or datacomp")
    data: _Place | None = Field(
        None, description="folder of evaluation sets, its URL, or hub (demo: made itself)"
    )
    tasks: list[str] = Field(
        ["*"], min_length=1, description="task keys or patterns",
        examples=['tasks = ["imagenet1k", "vtab/*"]'],
    )  # fmt: skip


class EngineSection(_Section):
    """[engine]: who works on partitions: processes of this machine, or a Ray cluster."""

    kind: Literal["local", "ray"] = Field("local", description="local or ray")
    address: str = Field(
        "auto", pattern=rf"^({ADDRESS})$",
        description="cluster: auto (the one of this machine), local (one made here), HOST:PORT",
        examples=['address = "10.0.0.1:6379"'],
    )  # fmt: skip
    workers: int | None = Field(
        None, ge=1, description="partitions at a time (1 locally, else every processor)"
    )
    memory: str | None = Field(
        None, pattern=rf"^({SIZE})$",
        description="most memory a worker may take", examples=['memory = "4GB"'],
    )  # fmt: skip

    def choice(self) -> EngineChoice:
        """Return the engine that is meant."""
        workers = self.workers or (1 if self.kind == "local" else None)
        return EngineChoice(self.kind, self.address, workers, self.memory)


class Study(_Section):
    """A validated datacomp.toml."""

    study: StudySection = Field(default_factory=lambda: StudySection.model_validate({}))
    pool: PoolSection
    assets: AssetsSection = Field(default_factory=lambda: AssetsSection.model_validate({}))
    dataset: list[DatasetSection] = Field(min_length=1)
    truth: TruthSection = Field(default_factory=lambda: TruthSection.model_validate({}))
    shards: ShardsSection = Field(default_factory=lambda: ShardsSection.model_validate({}))
    train: TrainSection = Field(default_factory=lambda: TrainSection.model_validate({}))
    evaluate: EvaluateSection = Field(default_factory=lambda: EvaluateSection.model_validate({}))
    engine: EngineSection = Field(default_factory=lambda: EngineSection.model_validate({}))
    _file: Path = PrivateAttr(Path("datacomp.toml"))
    _home: Path = PrivateAttr(Path())
    _text: str = PrivateAttr("")

    @property
    def home(self) -> Path:
        """Folder of the file: paths in it are relative to this."""
        return self._home

    def refuse(self, location: Location, message: str) -> NoReturn:
        """Raise ConfigError with the line of the file at which a key stands."""
        raise ConfigError(f"{self._file}:{line_of(self._text, location)}: {message}")

    @property
    def output(self) -> Path:
        """Folder for everything that is made."""
        return self.home / self.study.output

    @property
    def pool_path(self) -> Path:
        """The pool file."""
        return self.output / self.pool.path

    @property
    def eval_data(self) -> Path | str:
        """Folder of the evaluation sets, its URL, or ``hub``."""
        data = self.evaluate.data
        if data is None:
            return self.output / "evalsets"
        return data if is_url(data) else self.home / data

    def at(self, address: str) -> Study:
        """Return the study with its cluster at another address."""
        return self.model_copy(
            update={"engine": self.engine.model_copy(update={"address": address})}
        )

    def sources(self) -> list[Source]:
        """Open the pool's sources; those that make their files do so in the output folder."""
        opened: list[Source] = []
        for number, section in enumerate(self.pool.source):
            again = sum(other.kind == section.kind for other in self.pool.source[:number])
            own = self.output / (f"{section.kind}-{again + 1}" if again else section.kind)
            path = self.home / section.path if section.path else own
            options = dict(section.model_extra or {})
            for name in source_class(section.kind).file_options:
                if isinstance(options.get(name), str) and options[name]:
                    options[name] = str(self.home / options[name])
            opened.append(open_source(section.kind, path, **options))
        return opened

    def get_dataset(self, name: str) -> DatasetSection:
        """Return a dataset by name."""
        return next(dataset for dataset in self.dataset if dataset.name == name)

    def filters_of(self, dataset: DatasetSection | TruthSection) -> list[Node]:
        """Return a section's filters; ``run:NAME`` and relative files are replaced by full paths.

        Their titles are as the file has them, so records are alike in any folder.
        """
        return [self._node(member) for member in dataset.filters]

    def _node(self, member: FilterSection | GroupSection) -> Node:
        if isinstance(member, GroupSection):
            inside = tuple(self._node(one) for one in member.filters)
            return FilterGroup(inside, member.combine, member.negated)
        spec = self.spec_of(member)
        apart = features_of_runs(spec)
        named = {n: v for n, v in spec.parameters.items() if _is_run(v) and n not in apart}
        named |= spec.make().files()
        full = {name: str(self.resolve(value)) for name, value in named.items()}
        title = replace(member.spec(), negated=False).label()
        return replace(spec, parameters={**spec.parameters, **full}, title=title)

    def spec_of(self, section: FilterSection) -> FilterSpec:
        """Return a filter that can be made: its parameters as they are given, and its assets."""
        spec = section.spec()
        if spec.is_file:
            spec = replace(spec, use=str(self.home / spec.use))
        return with_assets(spec, self.assets.given())

    def resolve(self, value: str) -> Path:
        """Return the folder of the run that ``run:NAME`` stands for, or else the full path."""
        if value.startswith(RUN):
            return self.run_dir(run_of(value), self.train.seeds[0])
        return self.home / value

    def runs_named(self, section: FilterSection) -> list[str]:
        """Return the datasets whose runs a filter scores with."""
        values = (section.model_extra or {}).values()
        return [run_of(value) for value in values if _is_run(value)]

    def runs_needed(self, dataset: DatasetSection | TruthSection) -> list[str]:
        """Return the datasets whose runs a section's filters score with, each once."""
        named = [name for _, section in dataset.sections() for name in self.runs_named(section)]
        return list(dict.fromkeys(named))

    def subset_path(self, dataset: str) -> Path:
        """The subset file of a dataset."""
        return self.output / "subsets" / f"{dataset}.npy"

    def shards_dir(self, dataset: str) -> Path:
        """The shards of a dataset."""
        return self.output / "shards" / dataset

    def run_dir(self, dataset: str, seed: int) -> Path:
        """The run of a dataset and a seed."""
        return self.output / "runs" / f"{dataset}-seed{seed}"


def makes_its_files(source: Source) -> bool:
    """Tell whether a source makes its samples itself, so that nothing need lie at its path."""
    from ...pools.sources.glyphs import GlyphSource
    from ...pools.sources.synthetic import SyntheticSource

    drawn = isinstance(source, SyntheticSource) and source.generator is not None
    return drawn or isinstance(source, GlyphSource)


def run_of(value: str) -> str:
    """Return the dataset whose run a value ``run:NAME`` means."""
    return value.removeprefix(RUN)


def features_of_runs(spec: FilterSpec) -> dict[str, tuple[str, bool]]:
    """Return the parameters that name features by a run: the value, and whether of images alone.

    Those of images and captions are called by one name; a parameter for images is one that
    features of images are the default of.
    """
    said = {name: spec.parameters.get(name) for name in _FEATURES}
    given = {name: str(value) for name, value in said.items() if _is_run(value)}
    if not given:
        return {}
    usual = {parameter.name: parameter.default for parameter in parameters(get_filter(spec.use))}
    return {name: (value, str(usual[name]).endswith("_img")) for name, value in given.items()}


def _is_run(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(RUN)


def load_study(path: Path | str) -> Study:
    """Read and validate a datacomp.toml.

    Raises ConfigError: ``FILE:LINE: KEY is FOUND, expected ACCEPTED``.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingError(
            f"{path}: no such file; 'datacomp demo' shows one, docs/configuration.md explains it"
        )
    text, raw = _parse(path)
    try:
        study = Study.model_validate(raw)
    except ValidationError as error:
        location, message = explain(error, Study)
        raise ConfigError(f"{path}:{line_of(text, location)}: {message}") from None
    study._file, study._home, study._text = path, path.parent.resolve(), text
    from .checks import check_meaning

    check_meaning(study)
    return study


def _parse(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from None
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        line = re.search(r"\(at line (\d+), column \d+\)", message)
        where = line[1] if line else text.count("\n") + 1
        reason = re.sub(r" \(at .*\)$", "", message)
        raise ConfigError(f"{path}:{where}: not TOML: {reason}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
