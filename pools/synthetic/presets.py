"""The sets the papers published results for, by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ...errors import UsageError, suggest
from . import generator_class
from .contract import Generator, Scalar


@dataclass(frozen=True)
class Preset:
    """A published set: its kind and what differs from the kind's defaults."""

    kind: str
    text: str
    options: dict[str, Scalar] = field(default_factory=dict)


PRESETS = {
    "visualatom-1k": Preset("visualatom", "1,000 classes x 1,000 (CVPR 2023)"),
    "visualatom-21k": Preset("visualatom", "21,000 classes x 1,000", {"classes": 21_000}),
    "visualatom-1k-authors": Preset(
        "visualatom", "the published 1,000 classes, pixel by pixel",
        {"mode": "exact", "processes": 20},
    ),
    "rcdb-1k": Preset("rcdb", "1,000 classes x 1,000 (CVPR 2022)"),
    "rcdb-21k": Preset("rcdb", "21,000 classes x 1,000", {"classes": 21_000}),
    "rcdb-50k": Preset("rcdb", "50,000 classes x 1,000", {"classes": 50_000}),
    "rcdb-1k-authors": Preset(
        "rcdb", "1,000 classes as the authors' training script makes them, pixel by pixel",
        {"mode": "exact", "processes": 40},
    ),
    "fractaldb-1k": Preset(
        "fractaldb", "1,000 classes x 1,000, 362 px (ACCV 2020)", {"size": 362}
    ),
    "fractaldb-10k": Preset(
        "fractaldb", "10,000 classes x 1,000, 362 px", {"classes": 10_000, "size": 362}
    ),
    "ofdb-1k": Preset(
        "fractaldb", "one image per class (ICCV 2023)", {"instances": 1, "size": 362}
    ),
    "exfractaldb-1k": Preset(
        "exfractaldb", "1,000 classes x 1,000, 224 px (CVPR 2022)", {"size": 224}
    ),
    "exfractaldb-21k": Preset(
        "exfractaldb", "21,000 classes x 1,000, 224 px", {"classes": 21_000, "size": 224}
    ),
}  # fmt: skip


def preset(name: str, kind: str) -> Preset:
    """Return the preset of a kind by name."""
    names = [found for found, one in PRESETS.items() if one.kind == kind]
    if name not in names:
        raise UsageError(
            f"{kind}: no preset {name!r}{suggest(name, names)}; there are: {', '.join(names)}"
        )
    return PRESETS[name]


def make_generator(kind: str, name: str | None, options: dict[str, Any]) -> Generator:
    """Return a generator of a preset (None: of the kind's defaults), changed by ``options``."""
    base = preset(name, kind).options if name is not None else {}
    return generator_class(kind).with_options({**base, **options})
