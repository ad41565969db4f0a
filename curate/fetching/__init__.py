"""Fetch the images of a pool: img2dataset downloads, a pool remembers what became of every URL."""

from .fetch import FetchReport, fetch_pool
from .job import FetchOptions
from .reasons import GROUPS, REASONS

__all__ = ["GROUPS", "REASONS", "FetchOptions", "FetchReport", "fetch_pool"]
