"""What features depend on: model, weights, precision, and whether tokens were merged."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ...errors import UsageError
from ..clip_model import ClipModel, ModelSpec

_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,47}")


@dataclass(frozen=True)
class Recipe:
    """How to embed: with which model, in which precision, and how many tokens to merge a layer."""

    model: ModelSpec
    precision: str = "fp32"
    tome: int = 0

    def identity(self) -> dict[str, Any]:
        """Return what names the features for good; reads the weights once."""
        found = self.model.identity(self.precision)
        return found | {"tome": self.tome} if self.tome else found

    def load(self, device: str) -> ClipModel:
        """Load the model, tokens not merged; see ``ClipModel.load`` for the errors."""
        return self.model.load(device, self.precision)

    def usual_name(self) -> str:
        """Return what the features are called unless something else is said."""
        name = re.sub(r"[^a-z0-9]+", "_", self.model.model.lower()).strip("_")[:40] or "clip"
        extra = "" if self.precision == "fp32" else f"_{self.precision}"
        return name + extra + (f"_tome{self.tome}" if self.tome else "")


def check_name(name: str) -> str:
    """Return a name for features, or raise UsageError for what cannot be one."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for features: up to 48 of a to z, 0 to 9 and _, such as b32"
        )
    return name
