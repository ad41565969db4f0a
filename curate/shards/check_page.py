"""The page of a check: what is wrong, and some samples to look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...durable import write_text
from ...errors import DataError
from ...pools import tar
from ...pools.sources.base import caption_of_sample, image_member, values_of_sample
from ...pools.uids import UidArray, to_hex
from ..report.markup import Html, document, el, join, words
from ..report.sheets import Thumbnail, gallery, thumbnail_of
from .found import Rows
from .order import mix

if TYPE_CHECKING:
    from .check import CheckReport, Problem

SAMPLES = 60
PER_KIND = 24
LISTED = 500

Places = Iterable[tuple[str, tuple[UidArray, Rows]]]
"""For each tar its name, and uids and rows of its samples, shape (n,)."""


def write_check_page(path: Path, report: CheckReport, places: Places) -> None:
    """Write the page; the samples shown are picked by a hash, the same on every run."""
    directory = Path(report.path)
    verdict = "Sound." if report.sound else f"{len(report.problems):,} problems."
    head = el(
        "header",
        el("p", "datacomp shards", class_="eyebrow"),
        el("h1", f"{directory.name}: check"),
        el("p", f"{report.samples:,} samples in {report.shards:,} shards. {verdict}",
           class_="verdict"),
        class_="contact",
    )  # fmt: skip
    sections = [*_problem_sections(directory, report)]
    picked = [_show(directory, *place) for place in _pick(places)]
    if picked:
        sections.append(_section("samples", "Samples", gallery(picked, detailed=True)))
    title = f"{directory.name}: check"
    write_text(path, document(title, join(head, el("main", *sections))))


def _problem_sections(directory: Path, report: CheckReport) -> Iterator[Html]:
    for kind, count in report.kinds().items():
        found = [problem for problem in report.problems if problem.kind == kind]
        items = [el("li", el("code", str(problem), dir="auto")) for problem in found[:LISTED]]
        more = el("p", f"and {count - LISTED:,} more", class_="note") if count > LISTED else None
        shown = _show_keys(directory, found)
        yield _section(
            kind, f"{words(kind)}: {count:,}", el("ul", *items), more,
            gallery(shown, detailed=True) if shown else None,
        )  # fmt: skip


def _section(key: str, title: str, *content: Html | None) -> Html:
    return el(
        "section", el("h2", title, id=f"{key}-title"), *content,
        id=key, aria_labelledby=f"{key}-title",
    )  # fmt: skip


def _pick(places: Places) -> list[tuple[str, int, str]]:
    """Return shard, offset and uid of some samples, those with the least hash of the uid."""
    found: list[tuple[int, str, int, str]] = []
    for name, (uids, rows) in places:
        rank = mix(uids["f0"] ^ mix(uids["f1"]))
        least = np.argsort(rank, kind="stable")[:SAMPLES]
        found += [
            (int(value), name, int(offset), uid)
            for value, offset, uid in zip(
                rank[least], rows["offset"][least], to_hex(uids[least]), strict=True
            )
        ]
        found = sorted(found)[:SAMPLES]
    return [place[1:] for place in found]


def _show(directory: Path, name: str, offset: int, uid: str) -> Thumbnail:
    try:
        with (directory / name).open("rb", buffering=0) as file:
            window = tar.Window(file.fileno())
            sample = next(iter(tar.samples_in(window, name, offset)))
            return _thumbnail(window, sample, uid, name)
    except (DataError, OSError, StopIteration):
        return thumbnail_of(uid, "", None, name)


def _show_keys(directory: Path, problems: list[Problem]) -> list[Thumbnail]:
    """Show the samples that some problems name by their keys."""
    shown: list[Thumbnail] = []
    wanted = [problem for problem in problems if problem.key and problem.shard.endswith(".tar")]
    for name in dict.fromkeys(problem.shard for problem in wanted[:PER_KIND]):
        keys = {problem.key for problem in wanted[:PER_KIND] if problem.shard == name}
        try:
            with (directory / name).open("rb", buffering=0) as file:
                window = tar.Window(file.fileno())
                for sample in tar.samples_in(window, name):
                    if sample.key in keys:
                        shown.append(_thumbnail(window, sample, sample.key, name))
        except (DataError, OSError):
            continue
    return shown


def _thumbnail(window: tar.Window, sample: tar.TarSample, uid: str, name: str) -> Thumbnail:
    image = image_member(sample)
    try:
        values = {} if "txt" in sample.members else values_of_sample(window, sample)
        caption = caption_of_sample(window, sample, values) or ""
    except ValueError:
        caption = ""
    data = None if image is None else window(image.data, image.size)
    return thumbnail_of(uid, caption, data, f"{name}/{sample.key}")
