"""Weights that open_clip lists as published, recognised where no configuration lies beside them.

What open_clip knows of each tag (QuickGELU or GELU, how images are prepared) cannot be read off
the weights. They are recognised by their digest, where the list has it; by their file name, unless
that is an architecture's, which anyone may call a file; or by the folder of their repository.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .clip_config import import_open_clip

_WHOLE = re.compile(r"/([0-9a-f]{64})/")
_BEGINNING = re.compile(r"-([0-9a-f]{8})\.\w+$")
_OF_THE_HUB = re.compile(r"(open_clip_)?(pytorch_)?model\.(safetensors|bin)")
"""What weights are called in repositories of the Hub."""
_PREPARATION = ("mean", "std", "interpolation", "resize_mode")


@dataclass(frozen=True)
class Published:
    """A tag of open_clip's list: architecture, configuration, and how images are prepared."""

    name: str
    tag: str
    quick_gelu: bool
    preparation: Mapping[str, Any]
    known_by: str = ""

    @property
    def said(self) -> str:
        """Return who says so, and how the weights were recognised."""
        return f"open_clip's list ({self.name} {self.tag}, known by its {self.known_by})"

    def config(self) -> dict[str, Any]:
        """Return the architecture of the weights."""
        return {
            **import_open_clip().get_model_config(self.name),
            "quick_gelu": self.quick_gelu,
        }


@dataclass(frozen=True)
class _Listing:
    digests: Mapping[str, Published]
    names: Mapping[str, Published]
    repositories: Mapping[str, Published]


def recognise(checkpoint: Path, sha256: Callable[[], str]) -> Published | None:
    """Return what open_clip's list says of a file of weights, None where it is not in it.

    ``sha256`` is asked for the digest of the file.
    """
    listing = _listing()
    weights = sha256()
    for known_by, found in (
        ("digest", listing.digests.get(weights) or listing.digests.get(weights[:8])),
        ("file name", listing.names.get(checkpoint.name)),
        ("folder", _by_folder(checkpoint, listing)),
    ):
        if found is not None:
            return Published(found.name, found.tag, found.quick_gelu, found.preparation, known_by)
    return None


def _by_folder(checkpoint: Path, listing: _Listing) -> Published | None:
    """Find ``OWNER/NAME/FILE``, or a repository in the cache of huggingface_hub."""
    if not _OF_THE_HUB.fullmatch(checkpoint.name):
        return None
    folders = checkpoint.absolute().parts[:-1]
    cached = next((part for part in folders if part.startswith("models--")), "")
    owner_and_name = cached.removeprefix("models--").replace("--", "/") or "/".join(folders[-2:])
    return listing.repositories.get(owner_and_name)


@functools.cache
def _listing() -> _Listing:
    open_clip = import_open_clip()
    architectures = set(open_clip.list_models())
    digests: dict[str, Published] = {}
    names: dict[str, Published] = {}
    repositories: dict[str, Published] = {}
    for name, tag in open_clip.list_pretrained():
        listed = open_clip.get_pretrained_cfg(name, tag)
        if name not in architectures:
            continue
        found = Published(
            name, tag, bool(listed.get("quick_gelu")),
            {key: _plain(listed[key]) for key in _PREPARATION if listed.get(key) is not None},
        )  # fmt: skip
        url, repository = listed.get("url") or "", listed.get("hf_hub") or ""
        digest = _WHOLE.search(url) or _BEGINNING.search(url)
        if digest:
            digests.setdefault(digest[1], found)
        file = url.rpartition("/")[2]
        if file and file.rpartition(".")[0] not in architectures:
            names.setdefault(file, found)
        if repository:
            repositories.setdefault("/".join(repository.split("/")[:2]), found)
    return _Listing(digests, names, repositories)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
