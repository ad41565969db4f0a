"""The page of a retrieval: the ranks, and the worst queries each way with their images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...evaluate.witness import Miss, Misses, Shown
from .markup import Html, el, join, percent, shorten
from .task_parts import note, picture, section, table

CAPTION = 200
UPTO = (1, 5, 10, 50, 100)


def sections(witness: Misses) -> tuple[str, list[Html]]:
    """Return what can be said in one line, and the sections of the page."""
    images, texts = witness.image_ranks, witness.text_ranks
    said = (
        f"{_share(images, 'captions')} find their image first, {_share(texts, 'images')} one of "
        "their captions."
    )
    return said, [
        section("ranks", "Ranks", _ranks(images, texts)),
        section(
            "images", "Captions whose image is hardest to find",
            _queries(witness.images, _of_caption, "every caption finds its image first"),
        ),
        section(
            "texts", "Images whose captions are hardest to find",
            _queries(witness.texts, _of_image, "every image finds one of its captions first"),
        ),
    ]  # fmt: skip


def _share(ranks: np.ndarray, what: str) -> str:
    first = int(np.sum(ranks == 0))
    return f"{first:,} of {len(ranks):,} {what} ({percent(first / max(len(ranks), 1))})"


def _ranks(images: np.ndarray, texts: np.ndarray) -> Html:
    rows = [
        (f"among the first {upto:,}" if upto > 1 else "first",
         *(percent(float(np.mean(ranks < upto))) for ranks in (images, texts)))
        for upto in UPTO if upto < len(images)
    ]  # fmt: skip
    rows.append(("median rank", *(f"{np.median(ranks) + 1:,.0f}" for ranks in (images, texts))))
    rows.append(("worst rank", *(f"{ranks.max() + 1:,}" for ranks in (images, texts))))
    return table(("", "image of a caption", "caption of an image"), rows)


def _queries(misses: Sequence[Miss], card, none: str) -> Html:
    if not misses:
        return note(f"There are none: {none}.")
    return el("ul", [card(miss) for miss in misses], class_="gallery pairs")


def _of_caption(miss: Miss) -> Html:
    return _card(
        miss, _said(miss.wanted),
        (picture(miss.wanted.preview, f"image {miss.wanted.key}"),
         f"its image, rank {_rank(miss)}"),
        (picture(miss.first.preview, f"image {miss.first.key}"), "found first"),
    )  # fmt: skip


def _of_image(miss: Miss) -> Html:
    return _card(
        miss, None,
        (picture(miss.wanted.preview, f"image {miss.wanted.key}"),
         join(f"its best caption, rank {_rank(miss)}", _said(miss.wanted))),
        (picture(miss.first.preview, f"image {miss.first.key}"),
         join("found first, of this image", _said(miss.first))),
    )  # fmt: skip


def _rank(miss: Miss) -> str:
    return f"{miss.rank + 1:,}"


def _said(shown: Shown) -> Html:
    return el("span", shorten(shown.caption, CAPTION), class_="said", dir="auto")


def _card(miss: Miss, above: Html | None, *halves: tuple[Html, str]) -> Html:
    shown = [
        el("figure", frame, el("figcaption", el("span", word, class_="fact")))
        for frame, word in halves
    ]
    return el(
        "li", above, el("div", shown, class_="halves"), el("code", miss.wanted.key, class_="fact")
    )
