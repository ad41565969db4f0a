"""Profiles: the choices that decide which CID the same bytes get.

``unixfs-v1-2025`` and ``unixfs-v0-2015`` are those of IPIP-0499; ``legacy-256k`` is what
``ipfs add --cid-version=1 --raw-leaves`` does by default.

https://specs.ipfs.tech/ipips/ipip-0499
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UsageError, suggest

SHARDING_BYTES = 262_144
"""A folder larger than this becomes a HAMT; what is counted, ``Profile.counts_block`` says."""


@dataclass(frozen=True, slots=True)
class Profile:
    """How files become trees.

    ``chunk`` is the size of a leaf in bytes and ``width`` the most links of an inner block;
    leaves are raw bytes or wrapped as dag-pb. A folder is sharded when its block
    (``counts_block``), or else the sum of its names and CIDs, exceeds SHARDING_BYTES.
    """

    name: str
    chunk: int
    width: int
    version: int
    raw_leaves: bool
    counts_block: bool


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("unixfs-v1-2025", 1 << 20, 1024, 1, True, True),
        Profile("legacy-256k", 1 << 18, 174, 1, True, False),
        Profile("unixfs-v0-2015", 1 << 18, 174, 0, False, False),
    )
}

DEFAULT_PROFILE = "unixfs-v1-2025"


def get_profile(name: str | Profile) -> Profile:
    """Return a profile by name; raises UsageError for an unknown one."""
    if isinstance(name, Profile):
        return name
    if name not in PROFILES:
        known = ", ".join(PROFILES)
        raise UsageError(
            f"unknown CID profile {name[:40]!r}{suggest(name, list(PROFILES))}; known are {known}"
        )
    return PROFILES[name]
