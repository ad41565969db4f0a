"""What a download costs in energy, as codecarbon estimates it where it is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Iterator
from typing import Any


class Meter:
    """Estimates the energy of the whole machine. ``by`` is None where it cannot be done."""

    def __init__(self) -> None:
        self.by: str | None = None
        self._tracker: Any = None
        if importlib.util.find_spec("codecarbon") is None:
            return
        import logging
        from importlib.metadata import version

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from codecarbon import OfflineEmissionsTracker  # pyright: ignore[reportMissingImports]

            logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
            # The country matters to emissions only, which are not told.
            self._tracker = OfflineEmissionsTracker(
                country_iso_code="USA", save_to_file=False, log_level="critical",
                measure_power_secs=1, allow_multiple_runs=True, tracking_mode="machine",
            )  # fmt: skip
        self.by = f"codecarbon {version('codecarbon')}"

    @contextlib.contextmanager
    def measured(self, name: str) -> Iterator[list[float]]:
        """Measure what happens inside; the joules are in the list yielded, if anything is."""
        found: list[float] = []
        if self._tracker is None:
            yield found
            return
        self._tracker.start_task(name)
        try:
            yield found
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                used = self._tracker.stop_task(name)
        found.append(used.energy_consumed * 3.6e6)

    def close(self) -> None:
        """End the measuring."""
        if self._tracker is not None:
            self._tracker.stop()
