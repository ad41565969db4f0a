"""Ask an object store again when it throttles, stumbles, or drops the connection."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ..errors import DataError
from .http import one_line

TRIES = 6
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 8.0
"""Seconds; each pause is twice the one before: eight seconds in all."""

_BUSY = (429, 500, 502, 503, 504)
_CODES = (
    "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling",
    "ThrottlingException", "RequestLimitExceeded",
)  # fmt: skip
_KINDS = (
    "ClientConnectionError", "ClientOSError", "ClientPayloadError", "ConnectTimeoutError",
    "ConnectionClosedError", "EndpointConnectionError", "FSTimeoutError", "HTTPClientError",
    "IncompleteReadError", "ReadTimeoutError", "ResponseStreamingError", "ServerDisconnectedError",
)  # fmt: skip
"""Names of errors of the libraries below fsspec, none of which need be installed."""

T = TypeVar("T")


def patiently(place: str, work: Callable[[], T], doing: str = "read") -> T:
    """Return what ``work`` returns, tried again while its trouble is one that passes.

    FileNotFoundError is passed on; any other error becomes one DataError.
    """
    trouble = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE))
        try:
            return work()
        except FileNotFoundError:
            raise
        except Exception as error:  # noqa: BLE001  every store has errors of its own
            trouble = one_line(error)
            if not passes(error):
                raise DataError(f"{place}: cannot be {doing}: {trouble}") from None
    raise DataError(
        f"{place}: cannot be {doing}, tried {TRIES} times: {trouble}; run the same command again "
        "later"
    )


def passes(error: BaseException) -> bool:
    """Tell whether an error is a store's way to say: not now."""
    return any(_passes(one) for one in _causes(error))


def _passes(error: BaseException) -> bool:
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        code = response.get("Error", {}).get("Code")
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return code in _CODES or status in _BUSY
    if getattr(error, "status", None) in _BUSY or getattr(error, "code", None) in _BUSY:
        return True
    return any(kind.__name__ in _KINDS for kind in type(error).__mro__)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it."""
    found: BaseException | None = error
    seen: set[int] = set()
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__
