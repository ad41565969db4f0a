"""Publish a folder of shards: what goes into a version, what it holds, and how to take it back."""

from .create import create_release
from .diff import DiffReport, diff_releases
from .revoke import RevokeReport, revoke_samples

__all__ = ["DiffReport", "RevokeReport", "create_release", "diff_releases", "revoke_samples"]
