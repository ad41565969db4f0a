"""Select a dataset: run filters over a pool and write the subset with all that says how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..filters import FilterSpec, Selection, run_filters
from ..pools.pool import Pool
from .subset import sidecar_path, write_subset


@dataclass(frozen=True)
class Selected:
    """A subset that was written: what the filters kept, and what its sidecar says."""

    path: Path
    selection: Selection
    sidecar: dict[str, Any]

    @property
    def share(self) -> float:
        """Part of the pool that was kept."""
        return len(self.selection.uids) / self.selection.total


def select(
    pool: Pool,
    filters: Sequence[FilterSpec],
    path: Path | str,
    combine: str = "and",
    reasons: Path | None = None,
) -> Selected:
    """Run filters over a pool; write ``path`` (.npy), its sidecar and, if asked, the ``reasons``.

    Raises what ``run_filters`` raises, and DataError when nothing is kept: nothing is written
    then but the reasons.
    """
    path = Path(path)
    sidecar_path(path)  # a wrong name is told before the work
    chosen = run_filters(pool, list(filters), combine, reasons)
    if not len(chosen.uids):
        drops = ", ".join(
            f"{n:,} {why}" for step in chosen.steps for why, n in step.reasons.items()
        )
        raise DataError(f"the filters keep no sample ({drops}); loosen them")
    labels = [spec.label() for spec in filters]
    provenance = {
        "pool": {"digest": pool.digest(), "samples": chosen.total},
        "pipeline": {"filters": labels, "combine": combine, "scores": chosen.scores},
        "funnel": chosen.funnel(),
    }
    return Selected(path, chosen, write_subset(path, chosen.uids, provenance))
