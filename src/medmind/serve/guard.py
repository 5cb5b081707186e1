"""Stands before every route: the Host must be ours, no foreign page may ask, the key is right, a body is bounded."""

import asyncio
import logging
import time
import uuid
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medmind.serve.errors import ApiError, error_response
from medmind.serve.keys import is_right
from medmind.serve.transcript import Transcript

log = logging.getLogger("medmind.serve")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN_TO_ALL = frozenset({"/health"})
"""Routes that need no key."""
LARGEST_BODY = 4 << 20
"""Bytes, also when they are unpacked."""
MOST_COMING = 8 * LARGEST_BODY
"""Bytes of all bodies that are still coming in; the first `SMALL` of each are not counted, so that questions get in."""
SMALL = 1 << 16
SLOWEST_BODY = 30.0
"""Seconds for a body to arrive."""


class Guard:
    """`names` are the configured ones; a digest of None lets everyone in, which is for loopback alone."""

    def __init__(self, app: ASGIApp, names: Iterable[str], digest: bytes | None, log_bodies: bool = False) -> None:
        self._app, self._digest, self._log_bodies = app, digest, log_bodies
        self._names = LOOPBACK | {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        number, started, status = uuid.uuid4().hex, time.monotonic(), 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = number
                headers["x-content-type-options"] = "nosniff"
                headers.setdefault("cache-control", "no-store")
            await send(message)

        transcript = Transcript(receive, note) if self._log_bodies else None
        ends = (transcript.receive, transcript.send) if transcript else (receive, note)
        try:
            self._check(scope)
        except ApiError as error:
            await error_response(scope["path"], error)(scope, *ends)
        else:
            with suppress(Exception):  # answered and noted already
                await self._app(scope, *ends)
        finally:
            took = (time.monotonic() - started) * 1000
            route = getattr(scope.get("endpoint"), "__qualname__", "-")
            log.info("%s %s %s %d %.0f ms", number, scope["method"], route, status or 499, took)
            if transcript:
                transcript.tell(number)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(host_name(hosts[0]), scope):
            raise ApiError(403, "this Host is not served here; serve.names lists what is", "forbidden_host")
        origins = headers.getlist("origin")
        if any(origin.lower() != f"{scope['scheme']}://{hosts[0].lower()}" for origin in origins):
            raise ApiError(403, "pages of another origin may not ask", "forbidden_origin")
        if self._digest and scope["path"] not in OPEN_TO_ALL and not is_right(self._digest, offered_keys(headers)):
            raise ApiError(
                401,
                "a key is needed: Authorization: Bearer KEY",
                "invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )

    def _is_ours(self, name: str, scope: Scope) -> bool:
        """A name that is configured, or the very address the connection came in on."""
        return name in self._names or (bool(scope.get("server")) and name == scope["server"][0])


def host_name(header: str) -> str:
    """Without its port; the brackets of an IPv6 address go too."""
    name, colon, port = header.strip().lower().rpartition(":")
    if not colon or "]" in port:
        name, port = header.strip().lower(), ""
    if port and not port.isdecimal():
        return ""
    return name[1:-1] if name.startswith("[") and name.endswith("]") else name


def offered_keys(headers: Headers) -> list[str]:
    bearer = [text[7:].strip() for text in headers.getlist("authorization") if text[:7].lower() == "bearer "]
    return [key for key in (*bearer, *headers.getlist("x-api-key")) if key]


async def read_body(request: Request) -> bytes:
    """The whole body, unpacked, within the bounds of size and time."""
    try:
        async with asyncio.timeout(SLOWEST_BODY):
            return unpack(await gather(request), request.headers.get("content-encoding", "identity").lower())
    except TimeoutError:
        raise ApiError(408, "the body did not arrive in time", "timeout") from None


class Coming:
    """What is held of unfinished bodies, all together."""

    held = 0


async def gather(request: Request) -> bytes:
    parts: list[bytes] = []
    size = counted = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > LARGEST_BODY:
                raise too_large()
            more = max(0, size - SMALL) - counted
            if more and Coming.held + more > MOST_COMING:
                raise ApiError(503, "too many large bodies at once", "too_many_bodies", headers={"retry-after": "5"})
            Coming.held += more
            counted += more
            parts.append(part)
        return b"".join(parts)
    finally:
        Coming.held -= counted


def unpack(body: bytes, encoding: str) -> bytes:
    if encoding == "identity":
        return body
    if encoding not in ("gzip", "deflate"):
        raise ApiError(415, "a body may be packed with gzip or deflate only", "unsupported_encoding")
    packed = zlib.decompressobj(zlib.MAX_WBITS | 32 if encoding == "gzip" else zlib.MAX_WBITS)
    try:
        plain = packed.decompress(body, LARGEST_BODY + 1)
    except zlib.error:
        raise ApiError(400, f"the body is not {encoding}", "invalid_value") from None
    if len(plain) > LARGEST_BODY:
        raise too_large()
    if not packed.eof:
        raise ApiError(400, f"the body ends before its {encoding} does", "invalid_value")
    return plain


def too_large() -> ApiError:
    return ApiError(413, f"a body may have {LARGEST_BODY} bytes at most", "body_too_large")


def allowed_names(host: str, names: Sequence[str]) -> list[str]:
    """The bound address itself, unless it stands for all."""
    return [*names, *([] if host in ("0.0.0.0", "::", "") else [host])]
