"""The whole study of a datacomp.toml: its stages, their order, and what is done already."""

from .config import Study, load_study
from .study import StudyReport, run_study

__all__ = ["Study", "StudyReport", "load_study", "run_study"]
