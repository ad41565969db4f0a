"""Build HTML that is safe by construction: a plain string is escaped, only Html passes as it is.

A page is one file that asks nobody for anything: its policy forbids every request and names
the one style sheet and the one script it carries by their digests.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
import re
from collections.abc import Sequence
from pathlib import Path

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_VOID = ("br", "col", "hr", "img", "link", "meta")
NONE = "–"
"""What stands where a number is not known."""


class Html(str):
    """Markup to be put in a page as it is."""

    __slots__ = ()


Child = str | int | float | None | Sequence["Child"]


def escape(text: str) -> str:
    """Escape a stranger's text for content and attributes; what cannot be shown becomes U+FFFD."""
    return html.escape(_UNPRINTABLE.sub("\ufffd", text))


def join(*children: Child) -> Html:
    """Join children: Html as it is, anything else escaped, None left out."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Html):
            parts.append(child)
        elif isinstance(child, list | tuple):
            parts.append(join(*child))
        elif child is not None:
            parts.append(escape(str(child)))
    return Html("".join(parts))


def el(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Html:
    """Return an element. ``class_`` stands for class, ``aria_label`` for aria-label.

    An attribute that is None or False is left out; True stands without a value.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        if value is True:
            parts.append(_attribute(key))
            continue
        text = number(value) if isinstance(value, float) else str(value)
        parts.append(f'{_attribute(key)}="{escape(text)}"')
    opening = f"<{' '.join(parts)}>"
    return Html(opening if name in _VOID else f"{opening}{join(*children)}</{name}>")


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def number(value: float) -> str:
    """Write a coordinate: two decimals at most, no trailing zeros."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def shorten(text: str, length: int) -> str:
    """Cut a text to ``length`` characters, the last being an ellipsis."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def decimal(value: float | None, places: int = 3) -> str:
    """Write a score, or NONE where there is none."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.{places}f}"


def percent(share: float | None) -> str:
    """Write a share as a percentage with one decimal."""
    return NONE if share is None or not math.isfinite(share) else f"{100 * share:.1f} %"


def words(name: str) -> str:
    """Write a reason or key as a person would: ``too_small`` becomes ``too small``."""
    return name.replace("_", " ")


def breakable(name: str) -> Html:
    """Return a name that may be broken after its separators, so that long ones wrap well."""
    pieces = re.split(r"(?<=[_./:=,-])(?=[^_./:=,-])", name)
    return Html("<wbr>".join(escape(piece) for piece in pieces))


def asset(name: str) -> str:
    """Return the text of a file that lies beside this module."""
    return Path(__file__).with_name(name).read_text("utf-8")


def document(title: str, body: Html, script: str = "") -> str:
    """Return a whole page with its style sheet and script inside."""
    style = asset("page.css")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_source_digest(style)}'; "
        + (f"script-src '{_source_digest(script)}'; " if script else "")
        + "base-uri 'none'; form-action 'none'"
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("link", rel="icon", href="data:,"),
        Html(f"<style>{style}</style>"),
    )
    end = Html(f"<script>{script}</script>") if script else None
    return f"<!doctype html>\n{el('html', head, el('body', body, end), lang='en')}\n"


def _source_digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
