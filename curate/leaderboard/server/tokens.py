"""Who may submit: tokens, of which only the digest is kept.

A token is 32 random bytes, so its SHA-256 cannot be guessed back. One line of the file grants, a
later one revokes. Contacts are kept here, and nowhere in what is public.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from ....durable import append_line
from ....errors import DataError, MissingError, UsageError
from .private import PRIVATE, private_folder

FILE = "tokens.jsonl"
PREFIX = "dct_"
MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class Grant:
    """Whom a token was given to; ``contact`` is private."""

    name: str
    sha256: str
    created: str
    contact: str | None = None


def create(store: Path, name: str, contact: str | None = None) -> str:
    """Grant a token to ``name`` and return it; it is never shown again."""
    if not re.fullmatch(r"[\w .-]{1,60}", name):
        raise UsageError(f"token name {name!r}: 1 to 60 letters, digits, spaces, dots or dashes")
    if name in {grant.name for grant in granted(store).values()}:
        raise UsageError(f"{name!r} has a token already; revoke it first")
    token = PREFIX + secrets.token_urlsafe(32)
    now = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"
    _append(store, {"grant": name, "sha256": digest(token), "created": now, "contact": contact})
    return token


def revoke(store: Path, name: str) -> None:
    """Take the token of ``name`` away; MissingError if there is none."""
    found = [grant for grant in granted(store).values() if grant.name == name]
    if not found:
        raise MissingError(f"{name!r} has no token; see 'datacomp leaderboard token list'")
    _append(store, {"revoke": found[0].sha256})


def granted(store: Path) -> dict[str, Grant]:
    """Return the grants in force by the digest of their token."""
    file = store / PRIVATE / FILE
    if not file.is_file():
        return {}
    if file.stat().st_size > MAX_BYTES:
        raise DataError(f"{file}: over {MAX_BYTES:,} bytes")
    found: dict[str, Grant] = {}
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            if "revoke" in entry:
                found.pop(entry["revoke"], None)
            else:
                found[entry["sha256"]] = Grant(
                    str(entry["grant"]), str(entry["sha256"]), str(entry["created"]),
                    entry.get("contact"),
                )  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(f"{file}: line {number}: not a token; the file is damaged") from None
    return found


def holder(store: Path, token: str) -> Grant | None:
    """Return whose token this is, None for one that is not in force."""
    # A look-up by digest tells nobody by its time how near a guess was.
    return granted(store).get(digest(token))


def digest(token: str) -> str:
    """Return the SHA-256 of a token in hex."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _append(store: Path, entry: dict[str, str | None]) -> None:
    append_line(private_folder(store) / FILE, json.dumps(entry, ensure_ascii=False))
