"""A live look at a pool, read-only, in a browser: captions, SQL, nearest neighbours.

``lending`` shares one open pool among requests and bounds their time, ``searching`` finds
samples page by page, ``overview`` draws distributions, ``alike`` knows features and models,
``pages`` writes the HTML and ``app`` is what a web server runs.
"""

from .run import serve

__all__ = ["serve"]
