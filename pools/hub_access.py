"""Who asks the Hugging Face Hub: the token that its own tools use, sent to no other server.

``HF_TOKEN``, or the file that ``hf auth login`` writes (``HF_TOKEN_PATH``, ``HF_HOME/token``). The
Hub is ``https://huggingface.co`` or what ``HF_ENDPOINT`` names.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ..errors import UsageError

MAX_TOKEN = 4096
_DATASET = re.compile(r"/(?:api/)?datasets/([^/]+/[^/]+)(?:/|$)")


def endpoint() -> str:
    """Return the address of the Hub, without a slash at its end."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def is_of_the_hub(url: str) -> bool:
    """Tell whether a URL is the Hub's own, not of a server that it sends on to."""
    return url.startswith(f"{endpoint()}/")


def hub_headers(url: str) -> dict[str, str]:
    """Return the header that says who asks; empty for any other server, or without a token."""
    token = _token() if is_of_the_hub(url) else ""
    return {"Authorization": f"Bearer {token}"} if token else {}


def gate_of(url: str) -> str:
    """Return what to do where the Hub answers that one may not: accept terms, say who asks."""
    found = _DATASET.search(url.removeprefix(endpoint()))
    page = f"{endpoint()}/datasets/{found[1]}" if found else "its page on the Hub"
    who = "the account of the token" if hub_headers(url) else "an account"
    return f"not open to you: if it is gated, accept its terms at {page} with {who}" + (
        "" if hub_headers(url) else ", and set HF_TOKEN or run 'hf auth login'"
    )


def _token() -> str:
    """Return the token, empty where there is none. Raises UsageError for what cannot be one."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(name, "").strip():
            return _checked(os.environ[name], name)
    if os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in ("1", "ON", "YES", "TRUE"):
        return ""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME", f"{cache}/huggingface")
    file = Path(os.environ.get("HF_TOKEN_PATH", f"{home}/token")).expanduser()
    try:
        with file.open(encoding="ascii", errors="replace") as stream:
            text = stream.read(MAX_TOKEN + 1)
    except OSError:
        return ""
    return _checked(text, str(file)) if text.strip() else ""


def _checked(text: str, where: str) -> str:
    token = text.strip()
    if len(token) > MAX_TOKEN or not re.fullmatch(r"[\x21-\x7e]+", token):
        raise UsageError(f"{where}: not a token of the Hub; expected one word")  # never shown
    return token
