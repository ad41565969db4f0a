"""The page of WinoGAViL: scores by number of candidates, and the worst instances."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ...evaluate.witness import Association, Associations, Candidate
from .markup import Html, decimal, el, percent, shorten
from .task_parts import note, picture, section, table

CUE = 60


def sections(witness: Associations) -> tuple[str, list[Html]]:
    """Return what can be said in one line, and the sections of the page."""
    whole = sum(score == 1 for _, score in witness.scores)
    total = len(witness.scores)
    said = f"{whole:,} of {total:,} instances wholly right ({percent(whole / max(total, 1))})."
    return said, [
        section("sizes", "By number of candidates", _sizes(witness.scores)),
        section("worst", "Worst associations", *_worst(witness.worst)),
    ]


def _sizes(scores: Sequence[tuple[int, float]]) -> Html:
    by_size: defaultdict[int, list[float]] = defaultdict(list)
    for size, score in scores:
        by_size[size].append(score)
    rows = [
        (f"{size} candidates", f"{len(found):,}", decimal(float(np.mean(found)), 4),
         percent(float(np.mean([score == 1 for score in found]))),
         percent(float(np.mean([score == 0 for score in found]))))
        for size, found in sorted(by_size.items())
    ]  # fmt: skip
    return table(("", "instances", "mean Jaccard", "wholly right", "wholly wrong"), rows)


def _worst(worst: Sequence[Association]) -> list[Html]:
    if not worst:
        return [note("There are none: every instance is wholly right.")]
    told = note(
        "As many candidates are picked as belong to the cue. They stand in the order of the model, "
        "nearest first, with their cosines; the worst instances are those picked most wrongly."
    )
    return [told, *map(_instance, worst)]


def _instance(found: Association) -> Html:
    right = sum(candidate.right for candidate in found.candidates)
    hit = sum(candidate.right and candidate.picked for candidate in found.candidates)
    title = el(
        "h3", el("span", shorten(found.cue, CUE), dir="auto"), " ",
        el("small", f"{hit} of {right} found, Jaccard {decimal(found.jaccard, 2)}, ",
           el("code", found.key)),
    )  # fmt: skip
    return el(
        "div",
        title,
        el("ul", [_card(one) for one in found.candidates], class_="gallery tight"),
        class_="sheet",
    )


def _card(candidate: Candidate) -> Html:
    word, mark = _verdict(candidate)
    return el(
        "li",
        el("figure", picture(candidate.preview, word),
           el("figcaption", el("span", el("span", mark[0], aria_hidden="true"), " ", word,
                               class_=f"truth {mark[1]}"),
              el("span", f"{candidate.cosine:.3f}", class_="fact"))),
    )  # fmt: skip


def _verdict(candidate: Candidate) -> tuple[str, tuple[str, str]]:
    if candidate.right:
        return ("belongs, picked", ("●", "clean")) if candidate.picked else (
            "belongs, missed", ("▲", "spoiled")
        )  # fmt: skip
    return ("picked wrongly", ("▲", "spoiled")) if candidate.picked else ("left", ("○", "aside"))
