"""What a chart of a table's samples shows, apart from how it is drawn, so that it can be kept."""

from __future__ import annotations

from dataclasses import dataclass

from .charts import Part, bar, histogram
from .markup import Html, el, percent, shorten


@dataclass(frozen=True)
class Histogram:
    """How a number is distributed: ``edges`` (n + 1) of bins with ``counts`` (n)."""

    title: str
    facts: str
    edges: list[float]
    counts: list[int]
    integer: bool

    def drawn(self) -> Html:
        """Draw it."""
        label = f"Histogram of {self.title}: {self.facts}"
        return el(
            "figure",
            el("figcaption", el("strong", self.title), " ", el("small", self.facts)),
            histogram(self.edges, self.counts, label, self.integer),
            class_="chart",
        )


@dataclass(frozen=True)
class Shares:
    """How often each value occurs, the most frequent first, as parts of ``total``."""

    title: str
    values: list[str]
    counts: list[int]
    total: int

    def drawn(self) -> Html:
        """Draw it."""
        lines = [
            el(
                "li",
                el("div", el("span", shorten(value, 60), class_="name", dir="auto"),
                   el("span", f"{count:,} ", el("small", percent(count / self.total)),
                      class_="count"),
                   class_="row"),
                bar([Part(count, value, "stay")], self.counts[0], f"{value}: {count:,}"),
            )
            for value, count in zip(self.values, self.counts, strict=True)
        ]  # fmt: skip
        return _listed(self.title, lines)


@dataclass(frozen=True)
class Repeated:
    """Captions that many samples share, and how many do."""

    captions: list[str]
    counts: list[int]

    def drawn(self) -> Html:
        """Draw it."""
        lines = [
            el("li", el("span", text, class_="name", dir="auto"),
               el("span", f"{count:,}", class_="count"), class_="row")
            for text, count in zip(self.captions, self.counts, strict=True)
        ]  # fmt: skip
        return _listed("captions that most samples share", lines)


Figure = Histogram | Shares | Repeated


def _listed(title: str, lines: list[Html]) -> Html:
    return el(
        "figure",
        el("figcaption", el("strong", title)),
        el("ul", lines, class_="stacks tight"),
        class_="chart",
    )
