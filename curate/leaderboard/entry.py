"""The page of one submission: what it scored, how it was made, how anyone can check it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from ...evaluate.leaderboard.record import FunnelStep, Record
from ...evaluate.leaderboard.standings import Row, Score, task_citation
from ...evaluate.results import TELLING
from ...evaluate.tasks import load_suites, load_tasks
from ...progress import duration
from ..report.charts import Part, bar
from ..report.markup import NONE, Child, Html, breakable, decimal, el, join, percent, words
from .board import Board, effective_pool
from .page import (
    Site,
    count_noun,
    document,
    facts,
    figures,
    half_width,
    rank_text,
    scrolling,
    section,
    size_text,
    with_error,
)

UP = "../"
Comparison = Mapping[str, tuple[float, float]]
"""By task: the median of all submissions, and the highest score."""


def entry_page(site: Site, board: Board, row: Row, others: Comparison) -> str:
    """Return the page of the submission ``row`` of a board."""
    record = row.record
    assert record is not None
    place = board.place(row)
    head = join(
        el("p", el("a", f"Scale {board.scale}", href=f"{UP}{board.scale}.html"),
           f" · track {row.track}", class_="eyebrow"),
        el("h1", breakable(row.method)),
        el("p", f"by {row.author}", class_="byline"),
        el("p", _verdict(board, row), class_="verdict"),
        figures([
            ("rank", rank_text(place.rank, bool(place.ties)), f"of {len(board.rows):,}"),
            ("average", with_error(row.average, half_width(row)), ""),
            ("samples", f"{row.size:,}", ""),
            ("seeds", str(len(record.runs)), ""),
        ]),
    )  # fmt: skip
    main = join(
        section("scores", "Scores", _groups(board, row), _ties(board, row)),
        section("tasks", "Task by task", *_tasks(board, row, others)),
        section("funnel", "How the subset was chosen", *_funnel(record)),
        section("making", "How it was made", _making(row, record)),
        section("again", "Do it again", *_again(record)),
        section("files", "Files", *_files(row, record)),
    )
    return document(site, row.method, head, main, up=UP)


def _verdict(board: Board, row: Row) -> str:
    place, best = board.place(row), board.best_reference
    text = f"An average of {row.average:.3f}: rank {place.rank}"
    text += f", tied with {count_noun(len(place.ties), 'other')}" if place.ties else ""
    if best is not None:
        gap = row.average - best.average
        tied = board.rows.index(best) in place.ties
        how = (
            "too close to call with"
            if tied
            else f"{abs(gap):.3f} {'above' if gap > 0 else 'below'}"
        )
        text += f"; {how} the best published baseline, {best.method} ({best.average:.3f})"
    return text + "."


def _groups(board: Board, row: Row) -> Html:
    baselines = [other for other in board.rows if other.is_reference]
    shown = [(row, "this submission"), *((b, "published") for b in baselines)]
    if not baselines and board.rows[0].id != row.id:
        shown.append((board.rows[0], "first"))
    groups = [name for name in row.averages if name != "Average"]
    head = el("tr", el("th", "Method", scope="col"), el("th", "Average", scope="col"),
              [el("th", name, scope="col", class_="number") for name in groups])  # fmt: skip
    body = [
        el(
            "tr",
            el("th", el("span", breakable(one.method), el("br"), el("small", kind), class_="fit"),
               scope="row", class_="name"),
            el("td", with_error(one.average, half_width(one))),
            [el("td", decimal(one.averages.get(name))) for name in groups],
            class_="winner" if one is row else None,
        )
        for one, kind in shown
    ]  # fmt: skip
    note = None
    if TELLING in row.averages:
        note = el("p", "The average without near-chance tasks leaves out those on which hardly any "
                  "model rises above guessing. Above chance: every task is stretched so that 0 is "
                  "guessing and 1 is perfect.", class_="note")  # fmt: skip
    table = el("table", el("caption", "Averages beside those published at this scale."),
               el("thead", head), el("tbody", body))  # fmt: skip
    return join(scrolling("Averages", table), note)


def _ties(board: Board, row: Row) -> Html | None:
    ties = board.place(row).ties
    if not ties:
        return None
    listed = [
        el("li", el("a", other.method, href=f"{other.id}.html") if not other.is_reference
           else other.method, f" {other.average:.3f}")
        for other in (board.rows[i] for i in ties[:100])
    ]  # fmt: skip
    more = el("li", f"and {len(ties) - 100:,} more") if len(ties) > 100 else None
    return el("details", el("summary", f"Tied with {count_noun(len(ties), 'other')}"),
              el("ul", listed, more))  # fmt: skip


def _tasks(board: Board, row: Row, others: Comparison) -> list[Child]:
    tasks = load_tasks()
    baselines = _baselines(board)
    heads = ("Task", "Score", "95 % interval", "", *(one.method for one in baselines), "Median",
             "Highest", "Chance")  # fmt: skip
    body = [_task(key, score, baselines, others) for key, score in row.tasks.items()]
    head = [
        el("th", el("button", name or el("span", "Chart", class_="unseen"),
                    el("i", aria_hidden="true"), type="button"), scope="col",
           class_="name" if name == "Task" else "spark" if not name else "number",
           data_first="ascending" if name == "Task" else "descending")
        for name in heads
    ]  # fmt: skip
    table = el(
        "table",
        el("caption", "Headings sort the table. Dot and line: this submission with its interval; "
           "short line: the median of all submissions; dashes: guessing."),
        el("thead", el("tr", head)), el("tbody", body), class_="sortable", id="task-table",
    )  # fmt: skip
    near = [tasks[key].name for key in row.tasks if tasks[key].near_chance]
    note = (
        el("p", f"Near chance: differences on {', '.join(near)} say little.", class_="note")
        if near else None
    )  # fmt: skip
    cited, url = task_citation()
    source = (
        el("p", "The tasks of published baselines are from ", el("a", cited, href=url), ". ",
           el("a", "Compare with any row", href=f"{UP}{board.scale}-compare.html#b={row.id}"), ".",
           class_="note")
        if baselines else None
    )  # fmt: skip
    return [scrolling("Task by task", table), note, source]


def _baselines(board: Board) -> list[Row]:
    """Return the published rows that tasks are set against: the lowest and the highest known."""
    known = [row for row in board.rows if row.is_reference and row.tasks]
    return [known[-1], known[0]] if len(known) > 1 else known


def _task(key: str, score: Score, baselines: Sequence[Row], others: Comparison) -> Html:
    task = load_tasks()[key]
    median, highest = others[key]
    badge = el("span", "near chance", class_="badge") if task.near_chance else None
    span = "{:.3f} to {:.3f}".format(*score.interval) if score.interval else NONE
    return el(
        "tr",
        el("th", el("span", task.name, " ", badge, el("br"),
                    el("small", words(task.main_metric or "")), class_="fit"),
           scope="row", class_="name", data_value=task.name.casefold()),
        el("td", el("b", decimal(score.value)), data_value=repr(score.value)),
        el("td", span, data_value=repr(score.interval[0]) if score.interval else ""),
        el("td", _spark(score, median, task.chance), class_="spark", data_value=repr(score.value)),
        [
            el("td", decimal(one.tasks[key].value), data_value=repr(one.tasks[key].value))
            for one in baselines
        ],
        el("td", decimal(median), data_value=repr(median)),
        el("td", decimal(highest), data_value=repr(highest)),
        el("td", decimal(task.chance), data_value=repr(task.chance) if task.chance else ""),
    )  # fmt: skip


def _spark(score: Score, median: float, chance: float | None) -> Html:
    """Draw a score on the line from 0 to 1, 160 px wide."""
    low, high = score.interval or (score.value, score.value)
    parts = ['<line x1="0" y1="8" x2="160" y2="8" class="gridline"/>']
    if chance is not None:
        parts.append(f'<line x1="{160 * chance:.1f}" y1="1" x2="{160 * chance:.1f}" y2="15" '
                     'class="chance"/>')  # fmt: skip
    parts.append(f'<line x1="{160 * median:.1f}" y1="3" x2="{160 * median:.1f}" y2="13" '
                 'class="axis"/>')  # fmt: skip
    parts.append(f'<line x1="{160 * low:.1f}" y1="8" x2="{160 * high:.1f}" y2="8" class="error"/>')
    parts.append(f'<circle cx="{160 * score.value:.1f}" cy="8" r="4" class="dot"/>')
    return Html(f'<svg viewBox="-4 0 168 16" width="168" height="16" class="mark best" '
                f'aria-hidden="true">{"".join(parts)}</svg>')  # fmt: skip


def _funnel(record: Record) -> list[Child]:
    parts: list[Child] = []
    if record.funnel:
        total = record.funnel[0].before
        parts.append(el("p", "Bars are shares of the pool: what stayed after each filter, and what "
                        "it dropped under which reason.", class_="note"))  # fmt: skip
        parts.append(el("ol", [_step(step, total) for step in record.funnel], class_="funnel"))
    elif record.pipeline:
        listed = [el("li", el("code", step)) for step in record.pipeline]
        parts.append(el("ol", listed, class_="funnel"))
    else:
        parts.append(el("p", "The submission does not say.", class_="note"))
    share = record.dataset_size / record.pool.samples if record.pool.samples else None
    text = f" samples, {percent(share)} of the pool" if share else " samples"
    parts.append(el("p", el("b", f"{record.dataset_size:,}"), text, class_="outcome"))
    return parts


def _step(step: FunnelStep, total: int) -> Html:
    reasons = sorted(step.reasons.items(), key=lambda item: (-item[1], item[0]))
    parts = [Part(step.after, "kept", "stay")]
    parts += [Part(n, f"dropped, {words(reason)}", "drop") for reason, n in reasons]
    listed = [el("li", words(reason), " ", el("b", f"{n:,}")) for reason, n in reasons]
    dropped = step.before - step.after
    return el(
        "li",
        el("div", el("code", breakable(step.filter)),
           el("span", f"−{dropped:,}" if dropped else "nothing dropped", class_="count"),
           class_="row"),
        bar(parts, total, f"{step.after:,} of {step.before:,} left after {step.filter}"),
        el("ul", listed, class_="reasons") if listed else None,
    )  # fmt: skip


def _making(row: Row, record: Record) -> Html:
    scale = record.scale
    suite = load_suites()[record.suite]
    share = effective_pool(row)
    pool = f"{record.pool.samples:,} samples" if record.pool.samples else NONE
    if share is not None:
        pool += f", of which {record.pool.available:,} could be fetched ({percent(share)})"
    seconds = [run.seconds for run in record.runs if run.seconds is not None]
    run = record.runs[0]
    devices = f"{run.processes} × {run.device}" if run.processes and run.device else run.device
    rows: list[tuple[str, Child]] = [
        ("scale", f"{record.scale_name}: {scale['model']}, {scale['samples_seen']:,} samples seen, "
                  f"batches of {scale['batch_size']:,}"),
        ("seeds", ", ".join(str(run.seed) for run in record.runs)),
        ("precision", run.precision or NONE),
        ("hardware", record.hardware or devices or NONE),
        ("training time", duration(sum(seconds)) if seconds else NONE),
        ("energy", "not measured" if record.energy_kwh is None else f"{record.energy_kwh:g} kWh"),
        ("suite", f"{suite.title}, version {record.suite_version}; averages of version "
                  f"{record.aggregate_version}"),
        ("pool", pool),
        ("pool digest", el("code", record.pool.digest) if record.pool.digest else NONE),
        ("effective pool", el("code", record.pool.available_digest or NONE)),
        ("checkpoint", el("code", run.checkpoint_sha256)),
        ("submitted", record.created.replace("T", " ").replace("Z", " UTC")),
        ("datacomp", record.datacomp),
    ]  # fmt: skip
    if record.writeup:
        rows.append(("write-up", el("a", record.writeup, href=record.writeup, rel="nofollow")))
    return facts(rows)


def _again(record: Record) -> list[Child]:
    scale, suite = record.scale_name, record.suite
    subset = next((one.file for one in record.samples if one.kind == "subset"), None)
    lines: list[str] = []
    if record.pipeline and subset:
        filters = " ".join(shlex.quote(step) for step in record.pipeline)
        lines += ["# choose the samples, or take the subset below",
                  f"datacomp filter run pool.duckdb {filters} -o subset.npy"]  # fmt: skip
    lines += [
        "# build the shards, train, evaluate",
        "datacomp shards build shards subset.npy -o chosen",
        *(f"datacomp train chosen -o runs/seed{run.seed} --scale {scale} --seed {run.seed}"
          for run in record.runs),
        *(f"datacomp evaluate runs/seed{run.seed} --data evalsets --suite {suite}"
          for run in record.runs),
        "# check what stands here",
        f"datacomp leaderboard check {record.id}",
    ]  # fmt: skip
    return [el("pre", el("code", "\n".join(lines)), tabindex=0)]


def _files(row: Row, record: Record) -> list[Child]:
    base = f"{UP}files/{record.id}/"
    kinds = {one.file: f"{one.count:,} samples" for one in record.samples}
    kinds |= {run.results: f"results of seed {run.seed}" for run in record.runs}
    head = el("tr", [el("th", name, scope="col") for name in ("File", "Holds", "Size", "SHA-256")])
    body = [
        el("tr", el("th", el("a", "submission.json", href=f"{base}submission.json"), scope="row"),
           el("td", "the record"), el("td", NONE), el("td", NONE)),
        *(
            el("tr", el("th", el("a", file.path, href=f"{base}{file.path}"), scope="row"),
               el("td", kinds.get(file.path, "checkpoint")), el("td", size_text(file.size)),
               el("td", el("code", file.sha256)))
            for file in record.files
        ),
    ]  # fmt: skip
    table = el("table", el("caption", "Everything that was submitted."), el("thead", head),
               el("tbody", body), class_="plain")  # fmt: skip
    missing = [f"{name} ({why})" for name, why in row.not_replayed.items()]
    note = f"Rules that hold: {', '.join(row.passed)}."
    if missing:
        note += f" Not replayed: {'; '.join(missing)}."
    return [scrolling("Files", table), el("p", note, class_="note")]


def task_comparison(rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """Return median and highest score of every task over submissions."""
    import numpy as np

    keys = dict.fromkeys(key for row in rows for key in row.tasks)
    found: dict[str, tuple[float, float]] = {}
    for key in keys:
        values = [row.tasks[key].value for row in rows if key in row.tasks]
        found[key] = float(np.median(values)), max(values)
    return found
