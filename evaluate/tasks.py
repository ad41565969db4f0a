"""The task list: every task the evaluation knows, as data that is checked when it is read."""

from __future__ import annotations

import fnmatch
import functools
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..durable import digest
from ..errors import ConfigError, MissingError, UsageError, suggest
from ..pools.ranges import is_remote

CLASSIFYING = ("classification", "wilds", "fairness", "faces")
"""The families whose sets have class names and templates."""
GROUPED = ("wilds", "fairness", "faces")
"""The families whose samples have metadata."""
FACE_FIELDS = {"age", "gender", "race", "race_binary"}

HUB = "hub"
"""Stands for the Hugging Face Hub where a folder of evaluation sets is asked for."""

TASKLIST = Path(__file__).parent / "tasklist.toml"
_KEY = re.compile(r"[a-z0-9_-]+(/[a-z0-9_-]+)?")


class Task(BaseModel):
    """One task. ``chance`` is the main metric of guessing, ``size`` the number of samples.

    ``fields`` name the numbers in a sample's metadata, ``groups`` those that its metrics are
    grouped by. ``unknown_groups`` say which value of a field means that it is not known. ``top``
    is how many first classes count as recognised. ``licence`` and ``gate`` are the terms of who
    made the images, and what they ask for before they hand them out; ``licence_read`` is where
    that was read, empty where nobody has checked it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    name: str = Field(min_length=1)
    suite: str
    family: Literal["classification", "wilds", "fairness", "faces", "retrieval", "winogavil"]
    size: int = Field(gt=0)
    main_metric: str | None = None
    version: int = Field(ge=1)
    classes: int | None = Field(default=None, ge=2)
    chance: float | None = Field(default=None, gt=0, lt=1)
    near_chance: bool = False
    repeated_names: int = Field(default=0, ge=0)
    blank_names: int = Field(default=0, ge=0)
    tags: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    unknown_groups: dict[str, int] = Field(default_factory=dict)
    top: int = Field(default=1, ge=1)
    licence: str = ""
    licence_read: str = ""
    gate: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Task:
        if not _KEY.fullmatch(self.key):
            raise ValueError("key: expected lower-case letters, digits, _, - and at most one /")
        accepted = self._main_metrics()
        if self.main_metric not in accepted:
            known = ", ".join(str(metric) for metric in accepted)
            raise ValueError(
                f"main_metric is {self.main_metric!r}, for {self.family} there are: {known}"
            )
        # Faces are classified in four ways at once.
        if (self.classes is None) != (self.family in ("faces", "retrieval", "winogavil")):
            raise ValueError("classes: a classification task has them, a retrieval task has not")
        self._check_fields()
        return self

    def _main_metrics(self) -> tuple[str | None, ...]:
        """Return the metrics the task can be judged by; their uncertainty is known."""
        plain = ("acc1", "mean_per_class_recall")
        if self.family == "wilds" and len(self.groups) == 1:
            return (*plain, "acc_wg")
        if self.family == "wilds":
            worst = [f"acc_worst_{field}" for field in self.groups]
            return (*plain, *(worst or ["F1-macro_all"]))
        return {
            "classification": plain,
            "fairness": ("acc_wg" if self.top == 1 else f"acc_top{self.top}_wg",),
            "faces": (None,),
            "retrieval": ("mean_recall@1",),
            "winogavil": ("jaccard_score_10-12",),
        }[self.family]

    def _check_fields(self) -> None:
        if bool(self.fields) != (self.family in GROUPED):
            raise ValueError(f"fields: tasks of {', '.join(GROUPED)} have them, others have not")
        for what, names in (("groups", self.groups), ("unknown_groups", self.unknown_groups)):
            for name in names:
                if name not in self.fields:
                    raise ValueError(f"{what}: {name!r} is none of: {', '.join(self.fields)}")
        if self.family == "fairness" and not self.groups:
            raise ValueError("groups: a fairness task is grouped by at least one field")
        if self.family == "faces" and not set(self.fields) >= FACE_FIELDS:
            raise ValueError(f"fields: expected {', '.join(sorted(FACE_FIELDS))} among them")

    @property
    def terms(self) -> str:
        """Return licence and gate in one line, and whether nobody has checked them."""
        gate = f"; gated: {self.gate}" if self.gate else ""
        return self.licence + gate + ("" if self.licence_read else " (unverified)")

    @property
    def seed(self) -> int:
        """Return the seed of the task's resamples: another for each task, the same for all models.

        Were it one for all tasks, those of one size would be resampled alike.
        """
        return int(digest([self.key, self.version])[:15], 16)


class Suite(BaseModel):
    """A named set of tasks with the groups whose main metrics are averaged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    version: int = Field(ge=1)
    groups: dict[str, tuple[str, ...]]


@functools.cache
def load_tasks(path: Path = TASKLIST) -> dict[str, Task]:
    """Return all tasks by key, in the order of the file.

    Raises ConfigError naming file, task and key for anything that does not fit.
    """
    tables = _read(path).get("tasks", {})
    tasks = {key: _parse(Task, {**_table(path, f"tasks.{key}", table), "key": key}, path, key)
             for key, table in tables.items()}  # fmt: skip
    suites = _suites(path)
    folders: dict[str, str] = {}
    names: dict[str, str] = {}
    for key, task in tasks.items():
        if task.suite not in suites:
            raise ConfigError(
                f"{path}: task {key}: suite is {task.suite!r}, there are: {', '.join(suites)}"
            )
        for seen, value, what in (
            (folders, folder_name(key), "folder"),
            (names, f"{task.suite}: {task.name}", "name"),
        ):
            if value in seen:
                raise ConfigError(f"{path}: task {key}: {what} is already that of {seen[value]}")
            seen[value] = key
    for suite in suites.values():
        _check_groups(path, suite, tasks)
    return tasks


@functools.cache
def load_suites(path: Path = TASKLIST) -> dict[str, Suite]:
    """Return the suites by name; their groups are checked against the tasks."""
    load_tasks(path)
    return _suites(path)


def folder_name(key: str) -> str:
    """Return the folder of a task's data, as DataComp and CLIP_benchmark name it.

    >>> folder_name("vtab/dtd"), folder_name("fairness/geode")
    ('wds_vtab-dtd_test', 'wds_geode_test')
    """
    for prefix in ("fairness/", "retrieval/"):
        key = key.removeprefix(prefix)
    return f"wds_{key.replace('/', '-')}_test"


def folder_names(task: Task) -> tuple[str, ...]:
    """Return the names a task's folder may have: that of the tars, of a repository of parquet."""
    repository = task.key.rpartition("/")[2]
    if task.family == "winogavil":
        return (repository,)
    tars = folder_name(task.key)
    return (tars, repository) if task.family == "retrieval" else (tars,)


def is_url(data: Path | str) -> bool:
    """Tell whether evaluation sets lie elsewhere: at a URL, or (``hub``) on the Hub."""
    return data == HUB or is_remote(str(data))


def find_folder(data: Path | str, task: Task) -> Path | None:
    """Return where a task's data lie in ``data``, None if they do not."""
    folders = [Path(data) / name for name in folder_names(task)]
    return next((folder for folder in folders if folder.is_dir()), None)


def select_tasks(
    patterns: Sequence[str] = (), suite: str | None = None, data: Path | str | None = None
) -> list[Task]:
    """Return the tasks whose keys match any pattern (``vtab/*``), in the order of the list.

    Without patterns these are all tasks of ``suite``; without both, those whose folders lie
    in ``data``. Raises UsageError for what matches nothing.
    """
    tasks = list(load_tasks().values())
    if suite is not None:
        suites = load_suites()
        if suite not in suites:
            raise UsageError(
                f"unknown suite {suite!r}{suggest(suite, list(suites))}; "
                f"there are: {', '.join(suites)}"
            )
        tasks = [task for task in tasks if task.suite == suite]
    if patterns:
        keys = [task.key for task in tasks]
        for pattern in patterns:
            if not _matches(keys, pattern):
                raise UsageError(_unknown_task(pattern, keys, suite))
        return [t for t in tasks if any(fnmatch.fnmatchcase(t.key, p) for p in patterns)]
    if suite is None and data is not None:
        if is_url(data):
            raise UsageError(
                f"{data}: what lies there cannot be listed; name tasks with --tasks or --suite"
            )
        if not Path(data).is_dir():
            raise MissingError(
                f"no evaluation sets at {data}: no such folder; name where they are (--data), "
                f"'datacomp evalsets demo {data}' builds the demo suite"
            )
        tasks = [task for task in tasks if find_folder(data, task) is not None]
        if not tasks:
            raise UsageError(
                f"{data} holds no task's folder (wds_..._test); "
                "'datacomp evalsets demo DIR' builds the demo suite"
            )
    return tasks


def _matches(keys: Iterable[str], pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(key, pattern) for key in keys)


def _unknown_task(pattern: str, keys: list[str], suite: str | None) -> str:
    """Say where else a task is, or which one may be meant; a pattern may be meant for a group."""
    elsewhere = {t.suite for t in load_tasks().values() if _matches([t.key], pattern)}
    if elsewhere:
        return f"task {pattern!r} is not of suite {suite}, but of {' and '.join(sorted(elsewhere))}"
    groups = sorted({f"{key.split('/')[0]}/*" for key in keys if "/" in key})
    known = groups if "*" in pattern else keys
    return f"unknown task {pattern!r}{suggest(pattern, known)}; see 'datacomp evalsets list'"


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None


def _suites(path: Path) -> dict[str, Suite]:
    tables = _read(path).get("suites", {})
    return {
        name: _parse(Suite, {**_table(path, f"suites.{name}", table), "name": name}, path, name)
        for name, table in tables.items()
    }


def _table(path: Path, where: str, table: Any) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {where}: expected a table")
    return table


def _parse(kind: type[Any], values: dict[str, Any], path: Path, name: str) -> Any:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        text = first["msg"].removeprefix("Value error, ")
        what = "task" if kind is Task else "suite"
        raise ConfigError(f"{path}: {what} {name}: {f'{key}: ' if key else ''}{text}") from None


def _check_groups(path: Path, suite: Suite, tasks: dict[str, Task]) -> None:
    own = [task.key for task in tasks.values() if task.suite == suite.name]
    counted = [key for key in own if tasks[key].main_metric is not None]
    for group, keys in suite.groups.items():
        for key in keys:
            if key not in counted:
                what = "has no main metric" if key in own else "is no task of it"
                raise ConfigError(
                    f"{path}: suite {suite.name}: group {group!r} names {key!r}, "
                    f"which {what}{suggest(key, counted)}"
                )
    if not set(counted) <= set(suite.groups.get("Average", ())):
        left = next(key for key in counted if key not in suite.groups.get("Average", ()))
        raise ConfigError(f"{path}: suite {suite.name}: group 'Average' leaves out {left!r}")
