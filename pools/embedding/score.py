"""The score that an embedding of images and captions gives besides: their similarity."""

from __future__ import annotations

from typing import Any

from ...durable import digest

SCORE, SCORE_TYPE = "clip_score", "FLOAT"
"""The name and type of the score column: those of the scorer of the filter clip_score."""


def score_column(name: str) -> str:
    """Return what DataComp's metadata call the similarity of ``NAME_img`` and ``NAME_txt``."""
    return f"clip_{name}_similarity_score"


def score_digest(identity: dict[str, Any]) -> str:
    """Return the digest under which the similarities of these features stand in a pool.

    It is that of the score that the filter clip_score computes with the same model, so neither
    computes what the other has.
    """
    return digest({"name": SCORE, "type": SCORE_TYPE, **identity})
