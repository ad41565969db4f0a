"""Sites that do not want their images used for training, as the headers of an answer say."""

from __future__ import annotations

from email.message import Message

DIRECTIVES = ("none", "noindex", "noai", "noimageindex", "noimageai")
"""Of ``X-Robots-Tag``; ``none`` stands for noindex and nofollow."""
_WITH_VALUES = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")
"""Directives with a colon, which do not name a robot."""


def opted_out(headers: Message, token: str | None) -> str | None:
    """Return the header by which a site opts out of robots, or of the one named ``token``.

    ``X-Robots-Tag: noai, other: noindex, nofollow``: what stands behind the name of a robot is
    meant for that one.
    """
    if str(headers.get("TDM-Reservation", "")).strip() == "1":
        return "TDM-Reservation: 1"
    meant = {None, "*", token.strip().lower() if token else None}
    for value in headers.get_all("X-Robots-Tag", []):
        robot = None
        for part in str(value).lower().split(","):
            name, colon, rest = (piece.strip() for piece in part.partition(":"))
            directive = name
            if colon and name not in _WITH_VALUES and (" " not in name or name in meant):
                robot, directive = name, rest  # what has blanks and a colon is a time
            if directive in DIRECTIVES and robot in meant:
                return f"X-Robots-Tag: {directive}"
    return None
