"""Serving releases over HTTP: files with ranges, pages for people, blocks for IPFS."""

from .app import make_app
from .braces import brace_urls
from .run import serve

__all__ = ["brace_urls", "make_app", "serve"]
