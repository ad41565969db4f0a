"""The report of a study: one page that stands alone, from the verdict down to the samples."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

from ...durable import write_text
from ...errors import DataError
from ...progress import duration
from .charts import Mark, Part, bar, dots, scatter
from .markup import (
    NONE,
    Child,
    Html,
    asset,
    breakable,
    decimal,
    document,
    el,
    join,
    percent,
    shorten,
    words,
)
from .sheets import Sheet, gallery
from .table import leaderboard
from .truth import against_truth

FORMAT, VERSION = "datacomp-results", 1
_KINDS = 8
_MANY_TASKS = 9


def write_report(path: Path, results: dict[str, Any], sheets: list[Sheet]) -> None:
    """Write a study's results as one HTML file that needs no other; same input, same bytes.

    ``results`` is the content of a study's ``results.json``. Raises DataError if it is of
    another format or lacks something.
    """
    if results.get("format") != FORMAT or results.get("version") != VERSION:
        found = f"{results.get('format')!r} version {results.get('version')!r}"
        raise DataError(f"{path}: cannot report {found}; expected {FORMAT!r} version {VERSION}")
    try:
        text = _page(results, sheets)
    except KeyError as error:
        raise DataError(
            f"{path}: the results lack {error.args[0]!r}; run the study again to make them whole"
        ) from error
    write_text(path, text)


def _page(results: dict[str, Any], sheets: list[Sheet]) -> str:
    results = {**results, "datasets": sorted(results["datasets"], key=lambda d: d["rank"])}
    if not results["datasets"]:
        raise KeyError("datasets")
    sections = [
        ("leaderboard", "Leaderboard", leaderboard(results)),
        ("size", "Score and size", _size(results)),
        ("tasks", "Task by task", _tasks(results)),
        ("funnel", "What the filters dropped", _funnels(results)),
        ("composition", "What the subsets consist of", _composition(results)),
        ("truth", "Filters against the truth", against_truth(results)),
        ("samples", "Samples", _samples(results, sheets)),
        ("making", "How this was made", _making(results)),
    ]
    shown = [(key, title, body) for key, title, body in sections if body is not None]
    links = [el("li", el("a", title, href=f"#{key}")) for key, title, _ in shown]
    body = join(
        el("a", "Skip to the leaderboard", href="#leaderboard", class_="skip"),
        _head(results),
        el("nav", el("ul", links), aria_label="Sections"),
        el(
            "main",
            [
                el(
                    "section",
                    el("h2", title, id=f"{key}-title"),
                    content,
                    id=key,
                    aria_labelledby=f"{key}-title",
                )
                for key, title, content in shown
            ],
        ),
    )
    return document(results["study"]["name"], body, asset("page.js"))


def _head(results: dict[str, Any]) -> Html:
    study, datasets = results["study"], results["datasets"]
    best = next((d for d in datasets if d["name"] == results["best"]), datasets[0])
    figures = [
        ("pool", f"{study['pool']['samples']:,}", "samples"),
        ("datasets", str(len(datasets)), ""),
        ("tasks", str(len(results["tasks"])), ""),
        ("seeds", str(len(study["seeds"])), ""),
        ("best average", decimal(best["average"]["mean"]), ""),
    ]
    return el(
        "header",
        el("p", "datacomp study", class_="eyebrow"),
        el("h1", study["name"]),
        el("p", results["verdict"], class_="verdict"),
        el(
            "dl",
            [
                el("div", el("dt", term), el("dd", value, unit and el("small", f" {unit}")))
                for term, value, unit in figures
            ],
            class_="figures",
        ),
    )


# -- charts ----------------------------------------------------------------------------------


def _mark(results: dict[str, Any], dataset: dict[str, Any], score: dict[str, Any]) -> Mark | None:
    mean, spread = score["mean"], score["spread"]
    if mean is None or not math.isfinite(mean):
        return None
    known = spread if spread is not None and math.isfinite(spread) else None
    values = tuple(v for v in score["values"] if v is not None and math.isfinite(v))
    kind = ""
    if dataset["name"] == results["best"]:
        kind = "best"
    elif results["best"] in dataset["tied_with"]:
        kind = "tied"
    return Mark(dataset["name"], mean, known, values, float(dataset["size"]), kind)


def _size(results: dict[str, Any]) -> Html | None:
    marks = [
        mark for d in results["datasets"] if (mark := _mark(results, d, d["average"])) is not None
    ]
    if not marks:
        return None
    label = "Average score against subset size: " + "; ".join(
        f"{m.tooltip()} with {m.x:,.0f} samples" for m in marks
    )
    charts: list[Child] = []
    for class_, width, height in (("wide", 920, 420), ("narrow", 346, 380)):
        chart, numbered = scatter(marks, width, height, label)
        names = el("ol", [el("li", name) for name in numbered], class_="numbers")
        charts.append(el("div", chart, names if numbered else None, class_=class_))
    return join(
        _legend(results, "Average over all tasks. Bars show the spread over seeds."),
        el("figure", charts, class_="chart"),
    )


def _legend(results: dict[str, Any], text: str) -> Html:
    keys = [("best", "highest average")]
    if any(results["best"] in d["tied_with"] for d in results["datasets"]):
        keys.append(("tied", "tied with it"))
    if len(results["datasets"]) > len(keys):
        keys.append(("", "others"))
    dots_ = [el("span", el("i", class_=f"key dot {kind}".strip()), label) for kind, label in keys]
    return el("p", text, " ", el("span", dots_, class_="keys"), class_="note")


def _tasks(results: dict[str, Any]) -> Html | None:
    tasks = results["tasks"]
    if not tasks:
        return None
    groups = [
        (name, list(members))
        for name, members in itertools.groupby(tasks, key=lambda task: task.get("group") or "")
    ]
    text = (
        "Datasets in the order of the leaderboard. Large dots are means over seeds, bars their "
        "spread, small dots the single seeds; the dashed line is what guessing scores."
    )
    if len(tasks) <= _MANY_TASKS:
        return join(_legend(results, text), _task_grid(results, tasks))
    folded = [
        el(
            "details",
            el("summary", name or "Tasks", " ", el("small", _count(len(members), "task"))),
            _task_grid(results, members),
            open=number == 0,
        )
        for number, (name, members) in enumerate(groups)
    ]
    return join(_legend(results, text), folded)


def _task_grid(results: dict[str, Any], tasks: list[dict[str, Any]]) -> Html:
    return el("div", [_task(results, task) for task in tasks], class_="grid")


def _task(results: dict[str, Any], task: dict[str, Any]) -> Html:
    names = [d["name"] for d in results["datasets"]]
    empty = {"mean": None, "spread": None, "values": []}
    marks = [_mark(results, d, d["scores"].get(task["key"], empty)) for d in results["datasets"]]
    label = f"{task['name']}: " + "; ".join(m.tooltip() for m in marks if m is not None)
    if task["chance"] is not None:
        label += f"; chance {decimal(task['chance'])}"
    note = el("span", "near chance", class_="badge") if task["near_chance"] else None
    return el(
        "figure",
        el("figcaption", el("strong", task["name"]), " ",
           el("small", words(task["main_metric"])), " ", note),
        dots(marks, names, task["chance"], label),
        class_="chart",
    )  # fmt: skip


# -- the subsets -----------------------------------------------------------------------------


def _funnels(results: dict[str, Any]) -> Html:
    total = results["study"]["pool"]["samples"]
    return join(
        el(
            "p",
            "Bars are shares of the whole pool: what stayed after each filter, and what it "
            "dropped. A sample counts under the first reason that dropped it.",
            class_="note",
        ),
        el("div", [_funnel(d, total) for d in results["datasets"]], class_="grid wide"),
    )


def _funnel(dataset: dict[str, Any], total: int) -> Html:
    joined = {"and": "all must keep", "or": "any may keep", "then": "one after another"}
    several = len(dataset["filters"]) > 1
    how = joined.get(dataset["combine"], dataset["combine"]) if several else None
    return el(
        "article",
        el("h3", breakable(dataset["name"]), " ", el("small", how) if how else None),
        el("ol", [_step(step, total) for step in dataset["funnel"]], class_="funnel"),
        el(
            "p", el("b", f"{dataset['size']:,}"),
            f" of {total:,} kept, {percent(dataset['share'])}",
            class_="outcome",
        ),
        class_="card",
    )  # fmt: skip


def _step(step: dict[str, Any], total: int) -> Html:
    dropped = step["before"] - step["after"]
    reasons = sorted(step["reasons"].items(), key=lambda item: (-item[1], item[0]))
    parts = [Part(step["after"], "kept", "stay")]
    parts += [Part(n, f"dropped, {words(reason)}", "drop") for reason, n in reasons]
    label = f"{step['after']:,} of {step['before']:,} left after {step['filter']}"
    listed = [el("li", words(reason), " ", el("b", f"{n:,}")) for reason, n in reasons]
    return el(
        "li",
        el("div", el("code", breakable(step["filter"])),
           el("span", f"−{dropped:,}" if dropped else "nothing dropped", class_="count"),
           class_="row"),
        bar(parts, total, label),
        el("ul", listed, class_="reasons") if listed else None,
    )  # fmt: skip


def _composition(results: dict[str, Any]) -> Html | None:
    whole = results["study"]["pool"]["defects"]
    rows = [(d["name"], d["kept_defects"]) for d in results["datasets"] if d["kept_defects"]]
    if whole:
        rows.insert(0, ("the whole pool", whole))
    if not rows:
        return None
    order = _defects([counts for _, counts in rows])
    kinds = {name: f"k{number}" for number, name in enumerate(order)}
    keys = [el("span", el("i", class_=f"key {kind}"), words(name)) for name, kind in kinds.items()]
    bars = [_composed(name, _merged(counts, order), kinds) for name, counts in rows]
    return join(
        el("p", "What the planted truth says of the samples kept. No filter could read it.",
           class_="note"),
        el("p", keys, class_="keys"),
        el("ul", bars, class_="stacks"),
        el("details", el("summary", "The counts"), _composition_table(rows, order)),
    )  # fmt: skip


def _defects(all_counts: list[dict[str, int]]) -> list[str]:
    """Return clean, then the defects by frequency; beyond the palette they become 'other'."""
    sums: dict[str, int] = {}
    for counts in all_counts:
        for name, count in counts.items():
            sums[name] = sums.get(name, 0) + count
    order = sorted(sums, key=lambda name: (name != "clean", -sums[name], name))
    return order if len(order) <= _KINDS else [*order[: _KINDS - 1], "other"]


def _merged(counts: dict[str, int], order: list[str]) -> dict[str, int]:
    merged = {name: counts.get(name, 0) for name in order}
    rest = sum(count for name, count in counts.items() if name not in merged)
    return {**merged, "other": merged.get("other", 0) + rest} if rest else merged


def _composed(name: str, counts: dict[str, int], kinds: dict[str, str]) -> Html:
    total = sum(counts.values())
    parts = [Part(n, words(defect), kinds[defect]) for defect, n in counts.items()]
    label = f"{name}: " + ", ".join(f"{p.label} {p.value:,}" for p in parts if p.value)
    clean = counts.get("clean", 0) / total if total else None
    return el(
        "li",
        el("div", el("span", name, class_="name"),
           el("span", percent(clean), " clean", class_="count"), class_="row"),
        bar(parts, total, label),
    )  # fmt: skip


def _composition_table(rows: list[tuple[str, dict[str, int]]], order: list[str]) -> Html:
    head = [el("th", words(name), scope="col") for name in ["dataset", *order]]
    body = [
        el(
            "tr",
            el("th", name, scope="row"),
            [el("td", f"{count:,}") for count in _merged(counts, order).values()],
        )
        for name, counts in rows
    ]
    return _scrolling("Samples by truth", head, body)


def _scrolling(caption: str, head: list[Html], body: list[Html]) -> Html:
    table = el("table", el("caption", caption), el("thead", el("tr", head)), el("tbody", body))
    return el("div", table, class_="scroll", role="region", aria_label=caption, tabindex=0)


def _samples(results: dict[str, Any], sheets: list[Sheet]) -> Html | None:
    order = {d["name"]: number for number, d in enumerate(results["datasets"])}
    known = [sheet for sheet in sheets if sheet.dataset in order]
    known.sort(key=lambda sheet: order[sheet.dataset])
    if not known:
        return None
    groups = [
        el(
            "details",
            el("summary", name, " ", el("small", f"{_count(len(members), 'sheet')}")),
            [_sheet(sheet) for sheet in members],
            class_="sheets",
        )
        for name, members in (
            (name, list(group))
            for name, group in itertools.groupby(known, key=lambda sheet: sheet.dataset)
        )
    ]
    return join(
        el("p", "Picked at random by the seed; where the same samples are eligible, the same "
           "ones are shown.", class_="note"),
        groups,
    )  # fmt: skip


def _sheet(sheet: Sheet) -> Html:
    shown = f"{len(sheet.samples):,} of {sheet.total:,}"
    if sheet.reason is None:
        title: list[Child] = ["Kept ", el("small", shown)]
    else:
        by = el("small", "by ", el("code", sheet.filter))
        title = ["Dropped: ", words(sheet.reason), " ", by, " ", el("small", shown)]
    empty = el("p", "No sample.", class_="note") if not sheet.samples else None
    kind = "sheet kept" if sheet.reason is None else "sheet dropped"
    return el("div", el("h3", title), empty or gallery(sheet.samples), class_=kind)


# -- provenance ------------------------------------------------------------------------------


def _making(results: dict[str, Any]) -> Html:
    study = results["study"]
    scale = study["scale"]
    rows: list[tuple[str, Child]] = [
        ("scale", scale["name"]),
        *((words(key), _plain(value)) for key, value in scale.items() if key != "name"),
        ("seeds", ", ".join(str(seed) for seed in study["seeds"])),
        ("suite", study["suite"]),
        ("pool", f"{study['pool']['samples']:,} samples"),
        *(
            (label, el("code", study["pool"][key]))
            for key, label in (("digest", "pool digest"), ("files", "digest of the pool's files"))
            if key in study["pool"]
        ),
        ("set aside", _set_aside(study["pool"]["set_aside"])),
        ("scored by", _scorers(results)),
        ("datacomp", study["datacomp"]),
    ]
    return join(
        el("p", _EXPLANATION, class_="prose"),
        el("dl", [el("div", el("dt", term), el("dd", value)) for term, value in rows],
           class_="facts"),
        _times(results),
    )  # fmt: skip


_EXPLANATION = (
    "Every dataset trains the same model in the same way, once per seed. The number after ± is "
    "the spread: the standard deviation over the seeds, “–” where there is only one. Two datasets "
    "are tied when their averages differ by less than the spread can explain (Student’s t test at "
    "5 % with the spread pooled over all datasets; one seed alone says nothing of it, so "
    "everything is a tie). The rank shown is "
    "one more than the number of datasets that are better and not tied; “=” marks a tie. "
    "Precision is the share of the samples kept that are clean, recall the share of the clean "
    "samples that were kept."
)


def _scorers(results: dict[str, Any]) -> str:
    """Name the models whose scores the filters used, each with the start of its digest."""
    found = {
        f"{score['name']} by {score.get('model', 'its own rule')} ({score['digest'][:8]})"
        for row in results["datasets"]
        for score in row.get("scored_by", [])
    }
    return "; ".join(sorted(found)) or NONE


def _plain(value: Any) -> Child:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: NONE}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict | list):
        return el("code", shorten(json.dumps(value, sort_keys=True, ensure_ascii=False), 400))
    return str(value)


def _set_aside(counts: dict[str, int]) -> str:
    if not counts:
        return "nothing"
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {words(reason)}" for reason, count in ordered)


def _times(results: dict[str, Any]) -> Html:
    stages = ["scoring", "filter", "shards", "train", "evaluate", "total"]
    head = [el("th", name, scope="col") for name in ["dataset", *stages, "used before"]]
    body = [
        el(
            "tr",
            el("th", d["name"], scope="row"),
            [el("td", duration(d["seconds"][stage])) for stage in stages],
            el("td", duration(d["used"]["seconds"]) if d["used"]["runs"] else NONE),
        )
        for d in results["datasets"]
    ]
    return el(
        "details",
        el("summary", "Where the time went"),
        el("p", _TIMES, class_="note"),
        _scrolling("Time", head, body),
    )


_TIMES = (
    "Seconds of the stages of each dataset, all seeds together. Scoring is what the scores its "
    "filters used took to compute, even if another dataset used them first. Used before: what it "
    "took to select, build and train, for one seed, the datasets whose runs did the scoring."
)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
