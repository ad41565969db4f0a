"""Lists made of a manifest alone, for tools that do not read manifests."""

from __future__ import annotations

from collections.abc import Iterable

from .manifest import Manifest


def sums(manifest: Manifest) -> Iterable[str]:
    """Yield the lines of ``SHA256SUMS``, as ``sha256sum --check`` reads them."""
    for file in manifest.files:
        yield f"{file.sha256}  {manifest.name}/{file.path}\n"


def tombstones(manifest: Manifest) -> Iterable[str]:
    """Yield a line for every sample that was taken back: uid, version, reason."""
    for removal in manifest.removed:
        reason = " ".join(removal.reason.split())
        for uid in removal.uids:
            yield f"{uid}\t{removal.version}\t{reason}\n"
