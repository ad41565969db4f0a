"""The first page, and the page that explains."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ...evaluate.leaderboard.standings import PUBLISHED_NOISE, Row, citation
from ...evaluate.scales import SCALES
from ...evaluate.tasks import load_tasks
from ..report.markup import NONE, Child, breakable, decimal, el, join
from .board import Board
from .page import (
    Site,
    count_noun,
    document,
    entry_link,
    figures,
    half_width,
    rank_text,
    scrolling,
    section,
    with_error,
)

_NEWEST = 12


def index_page(site: Site, boards: Sequence[Board]) -> str:
    """Return the first page: one line for each scale, and what came last."""
    submissions = list(itertools.chain.from_iterable(board.submissions for board in boards))
    cited, url = citation()
    head = join(
        el("p", "datacomp leaderboard", class_="eyebrow"),
        el("h1", site.title),
        el("p", "Which subset of a pool of image-text pairs teaches most? Every row trained the "
           "same model in the same way; only the data differ.", class_="verdict"),
        figures([
            ("submissions", f"{len(submissions):,}", ""),
            ("scales", str(len(boards)), ""),
            ("published baselines",
             str(sum(row.is_reference for board in boards for row in board.rows)), ""),
        ]),
    )  # fmt: skip
    main = join(
        section("scales", "Scales", _scales(boards)),
        section("newest", "Last submitted", _newest(boards, submissions)),
        section("checked", "Every number here can be checked",
                el("p", "Each submission was replayed by the rules of this version: its samples, "
                   "every line of its results, every average, the model’s configuration, and all "
                   "digests. Its files stand beside it, so you can do the same: ",
                   el("code", "datacomp leaderboard check"), ". Published baselines are from ",
                   el("a", cited, href=url), ". ", el("a", "How to read it", href="about.html"),
                   class_="prose")),
    )  # fmt: skip
    return document(site, site.title, head, main, here="index.html")


def _scales(boards: Sequence[Board]):
    heads = ("Scale", "Model", "Samples seen", "Submissions", "First", "Average", "Best published")
    head = el("tr", [el("th", name, scope="col", class_="name" if name in ("Scale",) else
                        "filters" if name in ("Model", "First") else "number")
                     for name in heads])  # fmt: skip
    body = []
    for board in boards:
        scale, first, best = SCALES[board.scale], board.rows[0], board.best_reference
        tied = sum(place.rank == 1 for place in board.places) - 1
        also = el("small", f" and {count_noun(tied, 'other')} tied") if tied else None
        body.append(
            el("tr",
               el("th", el("a", board.scale, href=f"{board.scale}.html", class_="fit"),
                  scope="row", class_="name"),
               el("td", scale.model, class_="filters"), el("td", f"{scale.samples_seen:,}"),
               el("td", f"{len(board.submissions):,}"),
               el("td", entry_link(first, text=breakable(first.method)), also, class_="filters"),
               el("td", with_error(first.average, half_width(first))),
               el("td", decimal(best.average) if best else NONE))
        )  # fmt: skip
    caption = "One model and one budget for each scale."
    table = el("table", el("caption", caption), el("thead", head), el("tbody", body))
    return scrolling("Scales", table)


def _newest(boards: Sequence[Board], submissions: Sequence[Row]):
    if not submissions:
        return el("p", "Nothing yet. ", el("code", "datacomp submit"), " makes a submission.",
                  class_="note")  # fmt: skip
    places = {row.id: (board, place) for board in boards
              for row, place in zip(board.rows, board.places, strict=True)}  # fmt: skip
    newest = sorted(submissions, key=_date, reverse=True)[:_NEWEST]
    items: list[Child] = []
    for row in newest:
        board, place = places[row.id]
        rank = rank_text(place.rank, bool(place.ties))
        items.append(
            el("li", el("span", entry_link(row), " ", el("small", row.author)),
               el("span", f"{board.scale} · rank {rank} · {row.average:.3f}", class_="count"),
               class_="row")
        )  # fmt: skip
    return el("ul", items, class_="newest")


def _date(row: Row) -> tuple[str, str]:
    return (row.record.created if row.record else "", row.id)


def about_page(site: Site) -> str:
    """Return the page that says what the numbers mean and what was checked."""
    near = ", ".join(
        task.name for task in load_tasks().values() if task.near_chance and task.suite == "datacomp"
    )
    head = join(el("p", site.title, class_="eyebrow"), el("h1", "How to read it"))
    rules = [
        ("Layout", "only the files the format knows, none too large, no links"),
        ("Record", "every field in its bounds, nothing private, the id follows from the content"),
        ("Files", "sizes and SHA-256 of everything"),
        ("Scale", "the recipe is exactly that of the scale"),
        ("Samples", "lists sorted, each uid once, in the pool where the pool is at hand"),
        ("Results", "each task once, none missing, each metric its task’s own and in its range"),
        ("Provenance", "suite, task versions, digests of test sets, all images, one checkpoint"),
        ("Model", "architecture, configuration and image size are those of the scale; another "
                  "activation (QuickGELU) under the same name is refused"),
        ("Uncertainty", "intervals and standard errors follow from counts and replicates"),
        ("Averages", "recomputed from the lines"),
        ("Checkpoint", "its digest, where it was sent"),
    ]  # fmt: skip
    main = join(
        section("rows", "What a row is", el("p", (
            "A method chooses a subset of the pool (track “filtering”) or brings data of its own "
            "(“byod”). The model, the optimiser and the number of training samples are fixed by "
            "the scale. The average is over the main metrics of all tasks of the suite, each "
            "counting the same."), class_="prose")),
        section("ties", "Ties", el("p", (
            "Two rows tie when their averages differ by no more than other test images and other "
            "seeds would change. The part of the images is 1.96 standard deviations of the paired "
            "bootstrap of the difference. The part of the seeds is Student’s t times the spread "
            "that the submissions of several seeds share; where no submission of a scale has "
            f"several, it is {PUBLISHED_NOISE}, the most that DataComp’s authors saw an average of "
            "38 tasks vary. A rank is one more than the number of rows that are better and not "
            "tied, and never better than that of a row above."), class_="prose")),
        section("chance", "Near chance", el("p", (
            f"On {near} hardly any model rises above guessing, so differences there say little. "
            "The clean average leaves them out."), class_="prose")),
        section("pool", "The effective pool", el("p", (
            "Images vanish from the web, so two submissions to one scale may have chosen from "
            "different pools. The column “Pool” says which share of the pool could be fetched, "
            "where the submission tells it. Its page gives the digest of the uids that could be: "
            "two submissions with the same one chose from the very same samples."),
            class_="prose")),
        section("rules", "What is checked", el("dl", [
            el("div", el("dt", name), el("dd", text)) for name, text in rules], class_="facts"),
            el("p", "What this cannot show: that the results come from the checkpoint, and the "
               "checkpoint from the subset. Where a checkpoint was sent, ",
               el("code", "datacomp leaderboard check --reevaluate"), " measures it again.",
               class_="prose")),
    )  # fmt: skip
    return document(site, "How to read it", head, main, here="about.html")
