"""What is said about a dataset beside its files: by its keeper, its pool and its shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .manifest import Manifest

QUESTIONS = {
    "motivation": "Why was it made, by whom, and who paid for it?",
    "collection": "How, when and from whom were the samples collected? Did people agree?",
    "labeling": "What was done to the samples, and is the raw data kept?",
    "uses": "What is it meant for, and what should it not be used for?",
    "citation": "How is it to be cited?",
    "maintenance": "Who keeps it, and how can an error be reported?",
}
"""What only the keeper can answer (Gebru et al., "Datasheets for Datasets", 2021)."""


@dataclass(frozen=True)
class Facts:
    """What shards and pool know of the samples; None or empty where they do not.

    ``members`` counts the files of each extension inside the shards, ``missing`` the samples
    that were selected and could not be had, by reason. ``pool`` is what ``Pool.info`` returns.
    """

    samples: int | None = None
    members: Mapping[str, int] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)
    blurred: int | None = None
    pipeline: Any = None
    funnel: Any = None
    pool: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class About:
    """What a version says about itself."""

    licence: str | None = None
    authors: tuple[str, ...] = ()
    description: str | None = None
    url: str | None = None
    scores: Mapping[str, Any] | None = None
    answers: Mapping[str, str] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)

    def after(self, parent: Manifest) -> About:
        """Return this with what is not said taken from the version before."""
        return replace(
            self,
            licence=self.licence or parent.licence,
            authors=self.authors or parent.authors,
            description=self.description or parent.description,
            url=self.url or parent.url,
        )
