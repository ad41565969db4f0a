"""Brace URLs: many numbered shards in one line, as WebDataset and shells expand them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from ..release import Release, Releases

_NUMBERED = re.compile(r"(.*?)(\d+)(\D*)", re.DOTALL)
_SPECIAL = re.compile(r"[{}:,]")


def brace_lines(names: Iterable[str]) -> list[str]:
    """Return lines such as ``00000..00041.tar`` in braces that expand to ``names``, in order.

    Neighbours whose numbers follow each other and have the same width share a line. A name with a
    character that means something to an expander keeps a line of its own, which URLs quote.
    """
    runs: list[tuple[str, str, str, str]] = []
    for name in names:
        found = _NUMBERED.fullmatch(name)
        if found is None or _SPECIAL.search(name):
            runs.append((name, "", "", ""))
            continue
        head, digits, tail = found.groups()
        if runs:
            before = runs[-1]
            follows = before[2] and (before[0], before[3]) == (head, tail)
            if follows and len(before[2]) == len(digits) and int(before[2]) + 1 == int(digits):
                runs[-1] = (head, before[1], digits, tail)
                continue
        runs.append((head, digits, digits, tail))
    return [
        f"{head}{first}{tail}" if first == last else f"{head}{{{first}..{last}}}{tail}"
        for head, first, last, tail in runs
    ]


def shard_urls(release: Release, base: str) -> list[str]:
    """Return the brace URLs of a version's shards on a server, in order."""
    manifest = release.manifest
    top = f"{base.rstrip('/')}/versions/{manifest.version}/{manifest.name}/"
    lines = brace_lines(path for path in manifest.by_path if path.endswith(".tar"))
    return [top + quote(line, safe="/{}.") for line in lines]


def brace_urls(folder: Path | str, base: str) -> list[str]:
    """Return the brace URLs of the newest version's shards."""
    return shard_urls(Releases(folder).latest, base)
