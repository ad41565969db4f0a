"""Bring evaluation sets from the Hub, where the benchmark's authors put them.

Sets of tars lie in ``djghosh/wds_..._test``, retrieval and WinoGAViL as parquet in ``nlphuji/...``,
which the Hub itself makes of older forms (at ``refs/convert/parquet``).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DatacompError
from ..pools.hub.folder import Plan, carry_out, plan
from ..pools.hub.listing import RemoteFile, Repository
from .checking import check_sets
from .tasks import Task, folder_names

TARS, PARQUET = "djghosh", "nlphuji"
CONVERTED = "refs/convert/parquet"
_OF_A_SET = (
    "classnames.txt", "zeroshot_classification_templates.txt", "dataset_type.txt",
    "test/nshards.txt", "test/*.tar",
)  # fmt: skip


@dataclass(frozen=True)
class SetPlan:
    """What is to be brought of one task's set; ``error`` says why nothing can be."""

    task: Task
    repository: str
    found: Plan | None
    licence: str
    error: str | None = None


@dataclass(frozen=True)
class Fetched:
    """What became of one task's set: its bytes, its digest, whether that was known before."""

    key: str
    bytes: int
    licence: str
    digest: str | None = None
    known: bool = False
    flawed: int = 0
    error: str | None = None


def plan_sets(data: Path, tasks: Sequence[Task]) -> list[SetPlan]:
    """Ask the Hub for every task's set; one that cannot be told does not stop the others."""
    return [_plan(data, task) for task in tasks]


def _plan(data: Path, task: Task) -> SetPlan:
    folder = folder_names(task)[-1]
    in_parquet = task.family in ("retrieval", "winogavil")
    name = f"{PARQUET if in_parquet else TARS}/{folder}"
    try:
        if in_parquet:
            found = plan(name, data / folder, _parquet, _flat, ("main", CONVERTED))
        else:
            found = plan(name, data / folder, _tars)
    except DatacompError as error:
        return SetPlan(task, name, None, task.terms if task.licence else "unknown", str(error))
    return SetPlan(task, name, found, task.terms if task.licence else found.repository.licence)


def _tars(repository: Repository) -> Sequence[RemoteFile]:
    files = repository.files
    return [f for f in files if any(fnmatch.fnmatchcase(f.path, one) for one in _OF_A_SET)]


def _parquet(repository: Repository) -> Sequence[RemoteFile]:
    return [file for file in repository.files if file.path.endswith(".parquet")]


def _flat(file: RemoteFile) -> str:
    return file.path.replace("/", "-")


def fetch_sets(data: Path, plans: Sequence[SetPlan]) -> list[Fetched]:
    """Bring what is missing, then check each set and record or compare its digest.

    A set that cannot be brought, or is not what it should be, does not stop the others.
    """
    return [_fetch(data, one) for one in plans]


def _fetch(data: Path, one: SetPlan) -> Fetched:
    key = one.task.key
    if one.found is None:
        return Fetched(key, 0, one.licence, error=one.error)
    try:
        carry_out(one.found)
    except DatacompError as error:
        return Fetched(key, one.found.total, one.licence, error=str(error))
    (checked,) = check_sets(data, [one.task])
    return Fetched(
        key, one.found.total, one.licence, checked.digest, checked.known, checked.flawed,
        checked.error,
    )  # fmt: skip
