"""What can be wrong with a study beyond its form, all of it told before anything runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import DatacompError, UsageError
from ...evaluate.evalsets import check_evalsets
from ...evaluate.scales import get_scale
from ...evaluate.tasks import select_tasks
from ...filters.assets import assets_of, check_assets
from ...filters.contract import Filter
from ...filters.needs import check_modules
from ...filters.wording import found
from ...pools.clip_runs import model_of_run
from ...pools.ranges import is_remote
from ...pools.sources import open_source, source_class
from ...pools.sources.webdataset import WebDatasetSource
from .config import RUN, FilterSection, SourceSection, Study, makes_its_files
from .location import Location

_MADE = ("stages", "evalsets", "subsets", "shards", "runs")
"""Folders that a study makes in its output folder."""


def check_meaning(study: Study) -> None:
    """Check what needs the registries: sources, filters, references, scale, tasks."""
    for number, source in enumerate(study.pool.source):
        _check_source(study, ("pool", "source", number), source)
    if not study.pool_path.resolve().is_relative_to(study.output.resolve()):
        inside = "expected a name inside the output folder"
        study.refuse(("pool", "path"), f"pool.path is {found(study.pool.path)}, {inside}")
    for number in range(len(study.pool.source)):
        _check_apart(study, number)
        _check_viewable(study, number)
    _check_training(study)
    _check_tasks(study)
    for number in range(len(study.dataset)):
        _check_dataset(study, number)
    _check_truth(study)


def _check_source(study: Study, location: Location, section: SourceSection) -> None:
    options = section.model_extra or {}
    for name in source_class(section.kind).file_options:
        if is_remote(str(options.get(name))):
            told = f"pool.source.{name} is {found(options[name])}"
            study.refuse((*location, name), f"{told}, expected a path on a file system, not a URL")
    try:
        source = open_source(section.kind, ".", **options)
    except DatacompError as error:
        guilty = [name for name, value in options.items()
                  if _complains(section.kind, name, value, str(error))]  # fmt: skip
        study.refuse((*location, *guilty[:1]), str(error))
    if section.path is None and not makes_its_files(source):
        wanted = f"expected the folder or file of the {section.kind} source"
        study.refuse(location, f"pool.source.path is missing, {wanted}")


def _check_apart(study: Study, number: int) -> None:
    """Check that no source takes what the study makes, or the evaluation sets, for samples."""
    section, source = study.pool.source[number], study.sources()[number]
    if section.path is None or makes_its_files(source):
        return
    location, folder = ("pool", "source", number, "path"), source.path.resolve()
    output = study.output.resolve()
    told = f"pool.source.path is {found(section.path)}"
    if output.is_relative_to(folder):
        study.refuse(
            location, f"{told}, which holds the study's own output {found(study.study.output)}; "
            "expected folders apart, or the output would become samples",
        )  # fmt: skip
    if any(folder.is_relative_to(output / name) for name in _MADE):
        study.refuse(location, f"{told}, which the study itself makes; expected samples of yours")
    sets = None if study.evaluate.data is None else study.eval_data
    if isinstance(sets, Path) and sets.resolve().is_relative_to(folder):
        study.refuse(
            location, f"{told}, which holds the evaluation sets {found(study.evaluate.data)}; "
            "expected folders apart, or models would be trained on what they are tested on",
        )  # fmt: skip


def _check_viewable(study: Study, number: int) -> None:
    """Check that what a view is asked of are folders of tars."""
    source = study.sources()[number]
    if study.shards.view and (
        not isinstance(source, WebDatasetSource) or source.path.suffix == ".tar"
    ):
        said = "shards.view is true, but the source of kind"
        wanted = "expected sources that are folders of tars: webdataset or glyphs"
        study.refuse(("shards", "view"), f"{said} {source.kind} is none of tars; {wanted}")


def _complains(kind: str, name: str, value: Any, complaint: str) -> bool:
    """Tell whether one option alone is what is wrong."""
    try:
        open_source(kind, ".", **{name: value})
    except DatacompError as error:
        return str(error) == complaint
    return False


def _check_training(study: Study) -> None:
    train = study.train
    with _refusing(study, ("train", "scale"), "train.scale: "):
        get_scale(train.scale)
    with _refusing(study, ("train", "samples_seen"), "train."):
        scale = train.resolved()
    if scale.batch_size % train.accumulation:
        wanted = f"expected a divisor of scale {scale.name}'s batch of {scale.batch_size:,}"
        message = f"train.accumulation is {train.accumulation}, {wanted}"
        study.refuse(("train", "accumulation"), message)


def _check_tasks(study: Study) -> None:
    evaluate = study.evaluate
    for number, pattern in enumerate(evaluate.tasks):
        with _refusing(study, ("evaluate", "tasks", number), "evaluate.tasks: "):
            select_tasks([pattern], evaluate.suite)
    if evaluate.data is None and evaluate.suite != "demo":
        wanted = f"expected the folder of suite {evaluate.suite}'s evaluation sets"
        study.refuse(("evaluate", "suite"), f"evaluate.data is missing, {wanted}")


def _check_dataset(study: Study, number: int) -> None:
    dataset, earlier = study.dataset[number], [d.name for d in study.dataset[:number]]
    if dataset.name in earlier:
        wanted = "expected a name that no dataset before it has"
        message = f"dataset.name is {found(dataset.name)}, {wanted}"
        study.refuse(("dataset", number, "name"), message)
    for place, section in dataset.sections():
        location = ("dataset", number, *place)
        _make(study, location, section)
        for needed in study.runs_named(section):
            if needed not in earlier:
                known = ", ".join(earlier) or "none"
                wanted = f"expected a dataset that stands before it: {known}"
                study.refuse(
                    location, f"dataset.{dataset.name} scores with {RUN}{needed}, {wanted}"
                )


def _check_truth(study: Study) -> None:
    """Check the filters that are only held against the truth: they may score with any run."""
    known = [dataset.name for dataset in study.dataset]
    wanted = f"expected one of the datasets: {', '.join(known)}"
    for place, section in study.truth.sections():
        location = ("truth", *place)
        _make(study, location, section)
        for needed in study.runs_named(section):
            if needed not in known:
                study.refuse(location, f"truth.filters score with {RUN}{needed}, {wanted}")


def _make(study: Study, location: Location, section: FilterSection) -> Filter:
    with _refusing(study, location):
        return study.spec_of(section).make()


def check_inputs(study: Study) -> None:
    """Check that all files and folders that the study names are there, before anything runs."""
    if study.output.exists() and not study.output.is_dir():
        message = f"study.output is {found(study.study.output)}, a file; expected a folder"
        study.refuse(("study", "output"), message)
    for number, (section, source) in enumerate(
        zip(study.pool.source, study.sources(), strict=True)
    ):
        if section.path is not None and not makes_its_files(source):
            location = ("pool", "source", number, "path")
            folder = section.kind == "folder"
            _check_there(study, location, "pool.source.path", section.path, folder)
    for number, dataset in enumerate(study.dataset):
        for place, section in dataset.sections():
            _check_files(study, ("dataset", number, *place), section)
    for place, section in study.truth.sections():
        _check_files(study, ("truth", *place), section)
    if study.evaluate.data is not None:
        with _refusing(study, ("evaluate", "data"), "evaluate.data: "):
            chosen = select_tasks(study.evaluate.tasks, study.evaluate.suite)
            check_evalsets(study.eval_data, chosen)
    if study.train.device.startswith("cuda"):
        from ...pools.devices import resolve_device

        try:
            resolve_device(study.train.device)
        except UsageError:
            message = f"train.device is {found(study.train.device)}, which this machine has not"
            study.refuse(("train", "device"), f"{message}; expected auto or cpu")


def _check_files(study: Study, location: Location, section: FilterSection) -> None:
    """Check that the files which a filter will read are there."""
    made = _make(study, location, section)
    for name, value in made.files().items():
        if not value.startswith(RUN):
            _check_there(study, location, f"filter {section.use}: {name}", value)
            if name not in assets_of(type(made)):
                _check_run(study, location, section, study.resolve(value))
    with _refusing(study, location):
        check_modules(section.use, made)
        check_assets(section.use, made)


def _check_there(
    study: Study, location: Location, key: str, value: str, folder: bool = False
) -> None:
    full = study.resolve(value)
    if not (full.is_dir() if folder else full.exists()):
        wanted = "an existing folder" if folder else "an existing file or folder"
        study.refuse(location, f"{key} is {found(value)}, expected {wanted}; {full} is not there")


def _check_run(study: Study, location: Location, section: FilterSection, path: Path) -> None:
    """Check that a folder given as a model is that of a finished run."""
    if path.is_dir():
        with _refusing(study, location, f"filter {section.use}: "):
            model_of_run(path)


@contextlib.contextmanager
def _refusing(study: Study, location: Location, key: str = "") -> Iterator[None]:
    """Add file, line and key to what a part of the library says is wrong."""
    try:
        yield
    except DatacompError as error:
        study.refuse(location, f"{key}{error}")
