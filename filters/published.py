"""What papers report for a filter: zero-shot accuracy of a model trained on what it keeps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One row of a paper's table, as fractions.

    ``imagenet`` is ImageNet zero-shot accuracy, ``average`` the mean over DataComp's 38 tasks,
    ``samples`` how many pairs the filter kept, as printed. ``note`` says where sources differ.
    """

    variant: str
    scale: str
    imagenet: float | None
    average: float | None
    samples: str = ""
    source: str = "arXiv 2304.14108"
    note: str = ""
