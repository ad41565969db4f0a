"""The page of a task of faces: what a model reads into them, by group. It shows no face."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ...evaluate.evalsets import EvalSet
from .markup import NONE, Html, percent
from .task_parts import note, section, table

BINARY = ("white", "other than white")
"""Values of ``race_binary``."""
_GROUP = re.compile(r"(?P<field>race_binary|race|gender):(?P<value>\d+)")
_READ = (("acc_race", "white or not"), ("acc_gender", "gender"), ("acc_age", "age"))
_OFFENCES = (("toxicity_crime", "as criminals"), ("toxicity_nonhuman", "as no humans"))


def sections(evalset: EvalSet, metrics: Mapping[str, float | None]) -> tuple[str, list[Html]]:
    """Return what can be said in one line, and the sections of the page."""
    names = {
        question: [line.partition(":")[2] for line in evalset.classnames
                   if line.startswith(f"{question}:")]
        for question in ("race", "gender")
    }  # fmt: skip
    names["race_binary"] = list(BINARY)
    said = "Right about " + ", ".join(
        f"{what} {percent(metrics.get(f'{metric}_avg'))}" for metric, what in _READ
    )
    worst = [
        f"{what} up to {percent(metrics.get(f'{metric}_highest'))} of a group"
        for metric, what in _OFFENCES
    ]
    return f"{said}. Taken {', '.join(worst)}.", [
        section("read", "What is read into faces",
                note("Shares of faces of which it is right, by DataComp's two groups."),
                _grouped(metrics, _READ, ("race_binary",), names)),
        section("gender", "Gender by race and gender",
                note("Shares of faces whose gender is right. " + _ORDER),
                _crossed(metrics, names)),
        section("toxicity", "Taken for what they are not",
                note("Shares of faces that lie nearest to a name of a crime, or of something that "
                     "is no human: the lower, the better. " + _ORDER),
                _grouped(metrics, _OFFENCES, ("race",), names)),
    ]  # fmt: skip


_ORDER = "Groups are named by the set's class list, in whose order its labels are taken to count."


def _grouped(
    metrics: Mapping[str, float | None],
    columns: Sequence[tuple[str, str]],
    fields: tuple[str, ...],
    names: Mapping[str, Sequence[str]],
) -> Html:
    """Return a table with a row for each group, and one for all."""
    groups = _groups(metrics, columns[0][0], fields)
    rows = [
        (_named(group, names), _count(metrics, group),
         *(percent(metrics.get(f"{metric}_{group}")) for metric, _ in columns))
        for group in groups
    ]  # fmt: skip
    total = sum(int(metrics.get(f"count_{group}") or 0) for group in groups)
    rows.append(("all", f"{total:,}", *(percent(metrics.get(f"{metric}_avg"))
                                        for metric, _ in columns)))  # fmt: skip
    return table(("group", "faces", *(what for _, what in columns)), rows)


def _crossed(metrics: Mapping[str, float | None], names: Mapping[str, Sequence[str]]) -> Html:
    """Return a table with races as rows and genders as columns."""
    groups = _groups(metrics, "acc_gender_x", ("race", "gender"))
    races, genders = (
        sorted({int(match["value"]) for group in groups for match in _GROUP.finditer(group)
                if match["field"] == field})
        for field in ("race", "gender")
    )  # fmt: skip
    head = ["race"]
    for gender in genders:
        head += [_named(f"gender:{gender}", names), "faces"]
    rows = [
        (_named(f"race:{race}", names),
         *(text for gender in genders
           for text in (percent(metrics.get(f"acc_gender_x_race:{race}_gender:{gender}")),
                        _count(metrics, f"race:{race}_gender:{gender}"))))
        for race in races
    ]  # fmt: skip
    return table(head, rows)


def _groups(metrics: Mapping[str, float | None], metric: str, fields: tuple[str, ...]) -> list[str]:
    """Return the groups of a metric that are made of these fields."""
    found: list[str] = []
    for name in metrics:
        group = name.removeprefix(f"{metric}_")
        if group != name and [m["field"] for m in _GROUP.finditer(group)] == list(fields):
            found.append(group)
    return found


def _named(group: str, names: Mapping[str, Sequence[str]]) -> str:
    parts: list[str] = []
    for match in _GROUP.finditer(group):
        known, value = names[match["field"]], int(match["value"])
        parts.append(known[value] if value < len(known) else match[0])
    return ", ".join(parts)


def _count(metrics: Mapping[str, float | None], group: str) -> str:
    count = metrics.get(f"count_{group}")
    return NONE if count is None else f"{count:,.0f}"
