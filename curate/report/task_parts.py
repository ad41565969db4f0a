"""What the pages of all tasks are made of: sections, tables, small pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from .markup import Html, el

PICTURE = 96
"""Longest side of a picture as it is shown, in px."""


def section(key: str, title: str, *content: Html) -> Html:
    """Return a section with its heading."""
    return el(
        "section", el("h2", title, id=f"{key}-title"), content,
        id=key, aria_labelledby=f"{key}-title",
    )  # fmt: skip


def note(text: str) -> Html:
    """Return a paragraph that explains."""
    return el("p", text, class_="note")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[str] = ()) -> Html:
    """Return a table; the first column, and those named in ``words``, are of text."""
    texts = ["left" if name in words else None for name in header]
    head = [el("th", name, scope="col", class_=text)
            for name, text in zip(header, texts, strict=True)]  # fmt: skip
    body = [
        el("tr", el("th", row[0], scope="row", class_="name"),
           [el("td", cell, class_=text) for cell, text in zip(row[1:], texts[1:], strict=True)])
        for row in rows
    ]  # fmt: skip
    return el("div", el("table", el("thead", el("tr", head)), el("tbody", body)), class_="scroll")


def picture(preview: bytes | None, alt: str) -> Html:
    """Return a JPEG as a frame of the page's galleries."""
    if preview is None:
        return el("div", el("span", "no readable image"), class_="frame broken")
    uri = f"data:image/jpeg;base64,{base64.b64encode(preview).decode()}"
    return el("div", el("img", src=uri, alt=alt, decoding="async"), class_="frame")
