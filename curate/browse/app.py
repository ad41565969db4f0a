"""The ASGI application: read-only pages about one pool."""

from __future__ import annotations

import functools
import ipaddress
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import DatacompError, DataError, MissingError, StorageError, UsageError
from ...pools.images import MAX_BYTES
from ...pools.neighbours import Neighbours, iterate_hex, names_of
from ...pools.pool import Pool
from ...pools.uids import is_uid
from ..report.distributions import score_columns
from ..report.matching import scores_of
from . import pages
from .alike import Alike
from .asking import ask
from .images import SIDES, Images
from .lending import Lender, TooSlowError
from .overview import Overview, overview_of, rows, rows_of
from .searching import Asked, count, search

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

AT_ONCE = 4
"""Questions and images that are worked on at the same time; others wait for their turn."""
OVERVIEW_SECONDS = 60.0

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass
class Browse:
    """What the application answers from: a pool, what is like what, seconds for a question.

    ``loopback`` refuses requests for other hosts' names: pages of the Web must not reach a
    server on the user's machine by naming it after themselves.
    """

    lender: Lender
    alike: Alike
    seconds: float = 10.0
    loopback: bool = True

    def __post_init__(self) -> None:
        self.name = self.lender.path.name or str(self.lender.path)
        self.images = Images()
        self._lock = threading.Lock()
        self._seen: tuple[tuple[int, ...], Overview] | None = None

    def samples(self, asked: Asked) -> tuple[int, str]:
        """Answer a search."""
        began = time.monotonic()
        orders: list[str] = []
        try:
            with self.lender.pool(self.seconds) as pool:
                orders = _orders(pool)
                found = search(pool, asked, indexed=self.lender.indexed)
                self.images.remember(found.rows, self.lender.mark)
        except (UsageError, TooSlowError) as error:
            return 400, self._samples(asked, None, orders, str(error))
        return 200, self._samples(asked, found, orders, None, time.monotonic() - began)

    def _samples(self, asked: Asked, found: Any, orders: list[str], *more: Any) -> str:
        searches = self.alike.embedder is not None
        return pages.samples(self.name, asked, found, orders, searches, *more)

    def count(self, asked: Asked) -> dict[str, Any]:
        """Count what a search matches."""
        with self.lender.pool(self.seconds) as pool:
            return {"count": count(pool, asked, indexed=self.lender.indexed)}

    def sql(self, statement: str) -> tuple[int, str]:
        """Answer a SELECT."""
        if not statement.strip():
            return 200, pages.sql(self.name, statement, None)
        began = time.monotonic()
        try:
            with self.lender.pool(self.seconds) as pool:
                answer = ask(pool, statement)
        except (UsageError, TooSlowError, StorageError) as error:
            said = str(error).removeprefix(f"{self.lender.path}: ")
            return 400, pages.sql(self.name, statement, None, said)
        return 200, pages.sql(self.name, statement, answer, None, time.monotonic() - began)

    def sample(self, uid: str) -> tuple[int, str]:
        """Show one sample."""
        with self.lender.pool(self.seconds) as pool:
            found = rows(pool, f"SELECT * FROM samples WHERE uid = {int(uid, 16)}::UHUGEINT")
            if not found:
                raise MissingError(f"no sample {uid} in this pool")
            scores = [
                (name, pool.scalar(f"SELECT value FROM {table} WHERE uid = {int(uid, 16)}"))
                for name, table, _ in scores_of(pool)
            ]
            self.images.remember(found, self.lender.mark)
            return 200, pages.sample(self.name, found[0], scores, names_of(pool))

    def like_sample(self, uid: str, features: str) -> tuple[int, str]:
        """Show what is like a sample."""
        title = f"Most like sample {uid[:8]}"
        return self._alike(title, features, lambda pool: self.alike.to_sample(
            pool, int(uid, 16), features), uid)  # fmt: skip

    def like_text(self, text: str) -> tuple[int, str]:
        """Show samples whose images show what a text says."""
        return self._like_vector(f"“{text}”", self.alike.of_text(text))

    def like_image(self, data: bytes) -> tuple[int, str]:
        """Show samples whose images are like one."""
        return self._like_vector("Like your image", self.alike.of_image(data))

    def _like_vector(self, title: str, vector: NDArray[np.float32]) -> tuple[int, str]:
        assert self.alike.embedder is not None
        return self._alike(title, self.alike.embedder.features,
                           lambda pool: self.alike.to_vector(pool, vector))  # fmt: skip

    def _alike(
        self, title: str, features: str, find: Callable[[Pool], Neighbours], uid: str = ""
    ) -> tuple[int, str]:
        began = time.monotonic()
        with self.lender.pool(self.seconds) as pool:
            found = find(pool)
            shown = self._rows_of(pool, (uid for uid, _ in iterate_hex(found)))
            others = [(name, f"/alike?uid={uid}&features={name}") for name in names_of(pool)
                      if uid and name != features]  # fmt: skip
        elapsed = time.monotonic() - began
        return 200, pages.alike(self.name, title, features, found, shown, elapsed, others)

    def overview(self) -> tuple[int, str]:
        """Show the pool as a whole; it is drawn once as long as the pool stays the same."""
        with self._lock, self.lender.pool(max(self.seconds, OVERVIEW_SECONDS)) as pool:
            if self._seen is None or self._seen[0] != self.lender.mark:
                self._seen = self.lender.mark, overview_of(pool, self.lender.drawing)
            seen = self._seen[1]
            self.images.remember(seen.rows.values(), self.lender.mark)
        return 200, pages.overview(self.name, seen)

    def image(self, uid: int, side: int) -> bytes | None:
        """Return a JPEG of a sample's image."""
        kept = self.images.kept(uid, side, self.lender.mark)
        if kept is not None:
            return kept
        with self.lender.pool(self.seconds) as pool:
            return self.images.encoded(pool, uid, side, self.lender.mark)

    def _rows_of(self, pool: Pool, uids: Iterable[str]) -> dict[str, dict[str, Any]]:
        found = rows_of(pool, uids)
        self.images.remember(found.values(), self.lender.mark)
        return found


def _orders(pool: Pool) -> list[str]:
    names = ["width", "height", "aspect", "caption", *score_columns(pool.columns()),
             *(name for name, _, _ in scores_of(pool))]  # fmt: skip
    return [f"{way}{name}" for name in names for way in ("-", "")]


def make_app(browse: Browse) -> Starlette:
    """Return the application."""
    import anyio
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.responses import Response as PlainResponse
    from starlette.routing import Route

    working, drawing = anyio.CapacityLimiter(AT_ONCE), anyio.CapacityLimiter(AT_ONCE)

    async def answered(
        request: Request, work: Callable[[], tuple[int, str]], here: str = ""
    ) -> Response:
        status, text = await _worked(work, here)
        return PlainResponse(text, status, {**_HEADERS, "cache-control": "no-store"}, "text/html")

    async def _worked(work: Callable[[], tuple[int, str]], here: str) -> tuple[int, str]:
        try:
            return await anyio.to_thread.run_sync(work, limiter=working)
        except DatacompError as error:
            status = _status_of(error)
            said = str(error).removeprefix(f"{browse.lender.path}: ")
            return status, pages.trouble(browse.name, said, here)

    async def samples(request: Request) -> Response:
        asked = _asked(request)
        return await answered(request, lambda: browse.samples(asked), "/")

    async def counted(request: Request) -> Response:
        asked = _asked(request)
        try:
            found = await anyio.to_thread.run_sync(
                functools.partial(browse.count, asked), limiter=working
            )
            status = 200
        except DatacompError as error:
            found, status = {"error": str(error)}, _status_of(error)
        return JSONResponse(found, status, {**_HEADERS, "cache-control": "no-store"})

    async def sql(request: Request) -> Response:
        statement = request.query_params.get("q", "")
        return await answered(request, lambda: browse.sql(statement), "/sql")

    async def sample(request: Request) -> Response:
        uid = request.path_params["uid"]
        return await answered(request, lambda: browse.sample(_uid(uid)))

    async def alike(request: Request) -> Response:
        given = request.query_params
        if "text" in given:
            return await answered(request, lambda: browse.like_text(given["text"]))
        uid, features = given.get("uid", ""), given.get("features", "")
        return await answered(request, lambda: browse.like_sample(_uid(uid), features))

    async def like_image(request: Request) -> Response:
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return PlainResponse("not from another site\n", 403, _HEADERS, "text/plain")
        data = bytearray()
        async for part in request.stream():
            data += part
            if len(data) > MAX_BYTES:
                text = pages.trouble(browse.name, f"an image of more than {MAX_BYTES >> 20} MiB")
                headers = {**_HEADERS, "connection": "close"}
                return PlainResponse(text, 413, headers, "text/html")
        return await answered(request, lambda: browse.like_image(bytes(data)))

    async def overview(request: Request) -> Response:
        return await answered(request, browse.overview, "/overview")

    async def image(request: Request) -> Response:
        uid, side = request.path_params["uid"], request.query_params.get("side", str(SIDES[0]))
        if not is_uid(uid) or side not in map(str, SIDES):
            return PlainResponse("no such image\n", 404, _HEADERS, "text/plain")
        try:
            data = await anyio.to_thread.run_sync(
                functools.partial(browse.image, int(uid, 16), int(side)), limiter=drawing
            )
        except DatacompError:
            data = None
        if data is None:
            return PlainResponse("no readable image\n", 404, _HEADERS, "text/plain")
        return PlainResponse(data, 200, {**_HEADERS, "cache-control": "private, max-age=300"},
                             "image/jpeg")  # fmt: skip

    def asset(text: str, media: str) -> Callable[[Request], Response]:
        return lambda request: PlainResponse(
            text, 200, {**_HEADERS, "cache-control": "no-cache"}, media
        )

    async def not_there(request: Request, error: Exception) -> Response:
        text = pages.trouble(browse.name, "there is no such page")
        return PlainResponse(text, 404, _HEADERS, "text/html")

    app = Starlette(
        routes=[
            Route("/", samples, methods=["GET"]),
            Route("/count", counted, methods=["GET"]),
            Route("/sql", sql, methods=["GET"]),
            Route("/overview", overview, methods=["GET"]),
            Route("/sample/{uid}", sample, methods=["GET"]),
            Route("/alike", alike, methods=["GET"]),
            Route("/alike", like_image, methods=["POST"]),
            Route("/image/{uid}", image, methods=["GET"]),
            Route("/style.css", asset(pages.style(), "text/css"), methods=["GET"]),
            Route("/script.js", asset(pages.script(), "text/javascript"), methods=["GET"]),
        ],
        exception_handlers={404: not_there},
    )
    if browse.loopback:
        app.add_middleware(_OwnNamesOnly)
    return app


def _uid(text: str) -> str:
    if not is_uid(text):
        raise MissingError(f"{text[:40]!r} is no uid: 32 hex digits")
    return text


def _asked(request: Request) -> Asked:
    given = request.query_params
    numbers = {name: int(given[name]) if given.get(name, "").isdecimal() and len(given[name]) < 16
               else 0 for name in ("after", "seed")}  # fmt: skip
    return Asked(given.get("words", ""), given.get("where", ""), given.get("order", ""), **numbers)


def _status_of(error: DatacompError) -> int:
    if isinstance(error, MissingError):
        return 404
    if isinstance(error, StorageError | TooSlowError):
        return 503
    return 400 if isinstance(error, UsageError | DataError) else 500


class _OwnNamesOnly:
    """Answers only requests that name this machine."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.responses import PlainTextResponse

        if scope["type"] == "http" and not _is_own(dict(scope["headers"]).get(b"host", b"")):
            refused = PlainTextResponse("this name is not of this server\n", 421)
            await refused(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _is_own(host: bytes) -> bool:
    name = host.decode("latin-1").lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
