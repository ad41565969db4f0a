"""The web server of a folder of releases, as an ASGI application."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ...errors import DatacompError, MissingError
from ...progress import warn
from .answer import BRIEF, FileAnswer, headers_of, until_gone
from .catalog import Catalog, Withdrawn
from .landing import index_page, version_page

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

METHODS = ["GET", "HEAD"]
IPFS_PATHS = ("ipfs", "ipns", "routing/v1")
_PAGE_HEADERS = {
    "cache-control": BRIEF,
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    "referrer-policy": "no-referrer",
}


def make_app(folder: Path | str, base: str | None = None) -> Starlette:
    """Return the application that serves a folder of releases.

    ``base`` is the address written into pages; without it, the one that was asked. Raises what
    ``Releases`` raises for a folder that cannot be served.
    """
    try:
        from starlette.applications import Starlette
        from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse
        from starlette.routing import Route
    except ImportError:
        raise MissingError("serving needs starlette: pip install -e '.[serve]'") from None

    from ..ipfs.gateway import Gateway

    catalog = Catalog(folder)
    gateway = Gateway(catalog.releases)

    async def look_for_news() -> None:
        if catalog.is_stale() and await asyncio.to_thread(catalog.refresh):
            gateway.releases = catalog.releases
            await asyncio.to_thread(gateway.refresh)

    def address(request: Request) -> str:
        return (base or str(request.base_url)).rstrip("/") + "/"

    async def index(request: Request) -> Response:
        await look_for_news()
        page = await asyncio.to_thread(index_page, catalog.releases, address(request))
        return HTMLResponse(page, headers=_PAGE_HEADERS)

    async def version(request: Request) -> Response:
        await look_for_news()
        name = request.path_params["version"]
        for release in catalog.releases.versions:
            if release.manifest.version == name:
                page = await asyncio.to_thread(version_page, release, address(request))
                return HTMLResponse(page, headers=_PAGE_HEADERS)
        return PlainTextResponse(f"no version {name[:64]}\n", 404)

    async def version_without_slash(request: Request) -> Response:
        return RedirectResponse(f"{quote(request.path_params['version'])}/", 308)

    async def file(request: Request) -> Any:
        await look_for_news()
        try:
            return FileAnswer(await asyncio.to_thread(catalog.find, request.path_params["path"]))
        except Withdrawn as error:
            return PlainTextResponse(f"{error}\n", 410)
        except MissingError:
            return PlainTextResponse("nothing is served there\n", 404)
        except DatacompError:
            # What is wrong with it is the keeper's to know: 'datacomp release verify' tells.
            return PlainTextResponse("this copy is damaged; use another mirror\n", 404)

    async def ipfs(request: Request) -> Any:
        await look_for_news()
        headers = {name.lower(): value for name, value in request.headers.items()}
        answer = await asyncio.to_thread(
            gateway.answer, request.url.path, dict(request.query_params), headers
        )
        return _Streamed(answer)

    routes = [Route("/", index, methods=METHODS)]
    routes += [Route(f"/{path}/{{rest:path}}", ipfs, methods=METHODS) for path in IPFS_PATHS]
    routes += [
        Route("/versions/{version}/", version, methods=METHODS),
        Route("/versions/{version}", version_without_slash, methods=METHODS),
        Route("/{path:path}", file, methods=METHODS),
    ]
    return Starlette(routes=routes)


class _Streamed:
    """Sends an answer whose body is made in a thread, piece by piece."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer, pieces = self._answer, list[bytes]()
        body = iter(answer.body)
        if scope["method"] == "GET":
            # A CAR's head promises nothing: the first block decides on the status.
            try:
                pieces = await asyncio.to_thread(lambda: list(itertools.islice(body, 2)))
            except (DatacompError, OSError) as error:
                answer = _failed(error)
                pieces, body = list(answer.body), iter(())
        start = {
            "type": "http.response.start",
            "status": answer.status,
            "headers": headers_of({"access-control-allow-origin": "*", **answer.headers}),
        }
        await send(start)
        if scope["method"] == "GET":
            gone = asyncio.ensure_future(until_gone(receive))
            try:
                while pieces:
                    for piece in pieces:
                        if gone.done():
                            return
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                    pieces = await asyncio.to_thread(lambda: list(itertools.islice(body, 1)))
            except (DatacompError, OSError) as error:
                # Left without an end, the connection is closed: that is what tells the client.
                warn(f"{scope['path']}: an answer was broken off: {error}")
                return
            finally:
                gone.cancel()
        await send({"type": "http.response.body"})


def _failed(error: Exception) -> Any:
    from ..ipfs.trustless import damaged, refusal

    return refusal(404, str(error)) if isinstance(error, MissingError) else damaged(error)
