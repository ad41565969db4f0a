"""The whole study of a datacomp.toml: its stages, their order, and what is done already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import Study, load_study
    from .study import StudyReport, run_study

__all__ = ["Study", "StudyReport", "load_study", "run_study"]


def __getattr__(name: str) -> Any:
    """Import a study when it is asked for: a fork server must not wait for it to be tied."""
    if name in __all__:
        from . import config, study

        return getattr(study if name in ("StudyReport", "run_study") else config, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
