"""Versions of a dataset: described by one signed manifest, found by one signed pointer."""

from .about import About, Facts
from .beside import Fault
from .create import CreateReport, Plan, create_version, renew
from .digests import Record, read_digests
from .folder import Release, Releases
from .keys import SigningKey, create_key, default_key_path, load_key
from .manifest import File, Manifest, Parent, Removal, parse_manifest, verify_manifest
from .pointer import Pointer, read_pointer, sign_pointer
from .reading import Source
from .verify import VerifyReport, verify_releases

__all__ = [
    "About",
    "CreateReport",
    "Facts",
    "Fault",
    "File",
    "Manifest",
    "Parent",
    "Plan",
    "Pointer",
    "Record",
    "Release",
    "Releases",
    "Removal",
    "SigningKey",
    "Source",
    "VerifyReport",
    "create_key",
    "create_version",
    "default_key_path",
    "load_key",
    "parse_manifest",
    "read_digests",
    "read_pointer",
    "renew",
    "sign_pointer",
    "verify_manifest",
    "verify_releases",
]
