"""The ASGI application: pages, files, and the submission API."""

from __future__ import annotations

import contextlib
import re
import time
from collections import defaultdict, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....evaluate.leaderboard.record import TRACKS
from ....evaluate.leaderboard.store import incoming
from ....evaluate.scales import SCALES
from . import tokens
from .intake import Intake, RejectedError

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
AT_ONCE = 64
"""Submissions that are received at the same time; who comes then is asked to come again."""
CHECKED_AT_ONCE = 4
MAX_LIST = 1000


class Attempts:
    """Counts wrong tokens by address within ten minutes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._times: defaultdict[str, deque[float]] = defaultdict(deque)

    def too_many(self, remote: str) -> bool:
        """Tell whether an address has failed too often."""
        times = self._times.get(remote)
        while times and times[0] < time.monotonic() - 600:
            times.popleft()
        return times is not None and len(times) >= self._limit

    def failed(self, remote: str) -> None:
        """Count a wrong token."""
        if len(self._times) > 10_000:
            self._times.clear()  # a flood of addresses must not fill the memory
        self._times[remote].append(time.monotonic())


def make_app(intake: Intake) -> Starlette:
    """Return the application of a store's leaderboard."""
    import anyio
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import FileResponse, JSONResponse
    from starlette.responses import Response as PlainResponse
    from starlette.routing import Route

    attempts = Attempts(intake.limits.failures)
    checking = anyio.CapacityLimiter(CHECKED_AT_ONCE)
    receiving = 0

    def answer(status: int, value: Any, **headers: str) -> Response:
        named = {key.replace("_", "-"): text for key, text in headers.items()}
        return JSONResponse(value, status, {**_HEADERS, **named, "cache-control": "no-store"})

    async def page(request: Request) -> Response:
        name = request.path_params["name"] or "index.html"
        text = await run_in_threadpool(intake.live.page, name)
        if text is None:
            return PlainResponse("no such page\n", 404, _HEADERS, "text/plain")
        media = _TYPES[Path(name).suffix]
        return PlainResponse(
            text, 200, {**_HEADERS, "content-security-policy": _POLICY,
                        "cache-control": "no-cache"}, media,
        )  # fmt: skip

    async def file(request: Request) -> Response:
        id, name = request.path_params["id"], request.path_params["name"]
        path = await run_in_threadpool(intake.live.file, id, name)
        if path is None:
            return PlainResponse("no such file\n", 404, _HEADERS, "text/plain")
        # Strangers' bytes are never opened in a page of this site.
        headers = {**_HEADERS, "content-security-policy": "sandbox; default-src 'none'"}
        return FileResponse(path, 200, headers, "application/octet-stream", filename=path.name)

    async def listing(request: Request) -> Response:
        asked = request.query_params
        scale, track = asked.get("scale"), asked.get("track")
        numbers = {"limit": 100, "offset": 0}
        for key in numbers:
            if key in asked:
                if not re.fullmatch(r"\d{1,9}", asked[key]):
                    return answer(400, {"error": f"{key} is not a number"})
                numbers[key] = int(asked[key])
        if scale not in (None, *SCALES) or track not in (None, *TRACKS):
            return answer(400, {"error": "unknown scale or track"})
        await run_in_threadpool(intake.live.page, "index.html")  # the index is brought up to date
        numbers["limit"] = min(numbers["limit"], MAX_LIST)
        rows = await run_in_threadpool(intake.ledger.list, scale, track, **numbers)
        return answer(200, {"submissions": rows})

    async def one(request: Request) -> Response:
        row = await run_in_threadpool(intake.live.row, request.path_params["id"])
        if row is None or row.record is None:
            return answer(404, {"error": "no such submission"})
        return answer(200, {"average": row.average, "record": row.record.model_dump()})

    async def submit(request: Request) -> Response:
        nonlocal receiving
        remote = request.client.host if request.client else ""
        told: dict[str, Any] = {"remote": remote}
        receiving += 1
        try:
            if receiving > AT_ONCE:
                raise RejectedError(503, "too many submissions at once; try again in a moment")
            grant = await _authorise(request, remote, told)
            with contextlib.ExitStack() as stack:
                scratch = await run_in_threadpool(stack.enter_context, incoming(intake.store))
                archive = scratch / "submission.tar"
                told["size"] = await intake.receive(request.headers, request.stream(), archive)
                id, fresh = await anyio.to_thread.run_sync(
                    intake.judge, archive, scratch / "submission", limiter=checking
                )
        except RejectedError as error:
            await _note("rejected" if error.status != 429 else "rate limited", error.status,
                        detail=str(error), **told)  # fmt: skip
            headers = {"connection": "close"} if error.status in (408, 413, 503) else {}
            if error.status == 401:
                headers["www_authenticate"] = "Bearer"
            if error.status in (429, 503):
                headers["retry_after"] = "60"
            return answer(error.status, {"error": str(error), **error.more}, **headers)
        finally:
            receiving -= 1
        status = 201 if fresh else 200
        await _note("accepted" if fresh else "known", status, id=id, **told)
        del grant
        return answer(status, {"id": id, "new": fresh, "page": f"/entries/{id}.html"})

    async def _authorise(request: Request, remote: str, told: dict[str, Any]) -> tokens.Grant:
        if attempts.too_many(remote):
            raise RejectedError(429, "too many wrong tokens from this address")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        grant = None
        if scheme.lower() == "bearer" and token:
            grant = await run_in_threadpool(tokens.holder, intake.store, token.strip())
        if grant is None:
            attempts.failed(remote)
            raise RejectedError(401, "no token, or one that is not in force")
        told["token"] = grant.name
        taken = await run_in_threadpool(intake.ledger.attempts, grant.name, 3600)
        if taken >= intake.limits.per_hour:
            raise RejectedError(429, f"at most {intake.limits.per_hour} submissions an hour")
        return grant

    async def _note(outcome: str, status: int, **told: Any) -> None:
        def note() -> None:
            intake.ledger.note(outcome, status, **told)

        await run_in_threadpool(note)

    return Starlette(
        routes=[
            Route("/api/submissions", listing, methods=["GET"]),
            Route("/api/submissions", submit, methods=["POST"]),
            Route("/api/submissions/{id}", one, methods=["GET"]),
            Route("/files/{id}/{name:path}", file, methods=["GET"]),
            Route("/{name:path}", page, methods=["GET"]),
        ]
    )
