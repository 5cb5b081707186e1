"""From a request to its replies, piece by piece; whoever stops listening, for whatever reason, frees the slots."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from medmind.core.types import Message as Turn
from medmind.infer.decoder import Judged, Sampling, Work
from medmind.privacy.stream import ScreenedStream
from medmind.serve.engine import Ticket, follow
from medmind.serve.errors import ApiError, ClientGone, as_api
from medmind.serve.served import Served
from medmind.serve.text import Pipe

T = TypeVar("T")
log = logging.getLogger("medmind.serve")
PATIENCE = 2.0
"""Seconds that the last words of a stream have to go out."""


@dataclass(frozen=True)
class Ask:
    """One text that is wanted, in no dialect; in chat with the messages it is made of."""

    prompt: tuple[int, ...]
    limit: int
    sampling: Sampling
    messages: Sequence[Turn] = ()
    stops: Sequence[str] = ()
    top_logprobs: int | None = None
    echo: bool = False
    trim: bool = True
    """Whether blanks around the reply go, as in chat."""


@dataclass(frozen=True)
class Piece:
    text: str
    judged: Sequence[Judged] = ()


@dataclass
class Reply:
    """`pieces` is read once; the rest is known when it has ended."""

    ask: Ask
    ticket: Ticket
    pipe: Pipe
    leave: Callable[[], None]
    """Tells the engine that no more is wanted."""
    read: list[Judged] = field(default_factory=list)
    written: list[Judged] = field(default_factory=list)
    reason: str = ""
    tokens: int = 0
    """Written; of a text that came without tokens each piece counts as one, which is how servers send it."""
    submitted: int = field(default_factory=time.monotonic_ns)
    first: int = 0
    ended: int = 0

    async def pieces(self) -> AsyncIterator[Piece]:
        async with aclosing(follow(self.ticket)) as updates:  # type: ignore[type-var]
            async for update in updates:
                self.read += update.read
                if not (update.new or update.text or update.end):
                    continue
                self.first = self.first or time.monotonic_ns()
                self.tokens += bool(update.new or update.text)
                self.reason = update.end or ""
                if update.new:
                    self.written.append(update.new)
                    if self.reason != "stop":
                        yield Piece(self.pipe.feed(update.new.token), [update.new])
                elif update.text:
                    yield Piece(self.pipe.feed_text(update.text))
                if self.pipe.stopped:
                    self.reason = "stop"
                    self.leave()
                    break
        self.ended = time.monotonic_ns()
        if rest := self.pipe.close():
            yield Piece(rest)

    async def text(self) -> str:
        return "".join([piece.text async for piece in self.pieces()])


@asynccontextmanager
async def answering(model: Served, asks: Sequence[Ask]) -> AsyncIterator[list[Reply]]:
    """All texts of one request; when this ends, nothing of it is left in the engine."""
    works = [
        Work(
            ask.prompt,
            ask.limit,
            frozenset(model.renderer.stop_ids),
            ask.sampling,
            ask.top_logprobs,
            ask.echo,
            model.voice,
            tuple(model.conversation(ask.messages)) if ask.messages else (),
        )
        for ask in asks
    ]
    tickets = model.engine.submit(works)
    try:
        yield [reply_of(model, ask, ticket) for ask, ticket in zip(asks, tickets, strict=True)]
    finally:
        model.engine.leave(tickets)


def reply_of(model: Served, ask: Ask, ticket: Ticket) -> Reply:
    screen = ScreenedStream() if model.screened else None
    pipe = Pipe(model.renderer.tokenizer, ask.stops, ask.trim, screen)
    return Reply(ask, ticket, pipe, lambda: model.engine.leave([ticket], ended=True))


async def embedded(model: Served, rows: Sequence[tuple[int, ...]]) -> list[list[float]]:
    return [await model.embed(ids) for ids in rows]


async def merged(replies: Sequence[Reply]) -> AsyncIterator[tuple[int, Piece | None]]:
    """The pieces of all as they come, each with its reply's number; None when that one has ended."""
    queue: asyncio.Queue[tuple[int, Piece | Exception | None]] = asyncio.Queue()

    async def drain(number: int, reply: Reply) -> None:
        try:
            async for piece in reply.pieces():
                queue.put_nowait((number, piece))
            queue.put_nowait((number, None))
        except Exception as error:  # raised again where it is read
            queue.put_nowait((number, error))

    tasks = [asyncio.create_task(drain(number, reply)) for number, reply in enumerate(replies)]
    try:
        open_ones = len(tasks)
        while open_ones:
            number, piece = await queue.get()
            if isinstance(piece, Exception):
                raise piece
            open_ones -= piece is None
            yield number, piece
    finally:
        for task in tasks:
            task.cancel()


async def until_gone(receive: Receive, work: Awaitable[T], seconds: float) -> T:
    """The work's result; when the client goes first, or the time is over, the work is called off."""
    doing = asyncio.ensure_future(work)
    gone = asyncio.create_task(leaving(receive))
    try:
        await asyncio.wait({doing, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise ClientGone if gone.done() else TimeoutError
    finally:
        gone.cancel()
        if not doing.done():
            doing.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await doing


async def leaving(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Streamed(Response):
    """Lines as they come. What fails before the first has a status of its own; after it, `last_words` are said."""

    def __init__(
        self,
        lines: AsyncIterator[bytes],
        media_type: str,
        last_words: Callable[[ApiError], bytes],
        headers: dict[str, str],
        seconds: float,
    ) -> None:
        super().__init__(None, 200, {"x-accel-buffering": "no", "cache-control": "no-cache", **headers}, media_type)
        del self.headers["content-length"]
        self._lines, self._last_words, self._seconds, self._started = lines, last_words, seconds, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await until_gone(receive, self._send(send), self._seconds)
        except ClientGone:
            pass
        except Exception as error:
            if not self._started:
                raise
            await self._part(scope, send, self._last_words(as_api(error)))

    async def _send(self, send: Send) -> None:
        async with aclosing(self._lines) as lines:  # type: ignore[type-var]
            async for line in lines:
                if not self._started:
                    self._started = True
                    await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _part(self, scope: Scope, send: Send, words: bytes) -> None:
        """Whoever reads hears why; who has long stopped reading is let go."""
        try:
            async with asyncio.timeout(PATIENCE):
                await send({"type": "http.response.body", "body": words, "more_body": False})
        except TimeoutError:
            log.warning("a client that did not read its answer was let go")
            if let_go := scope.get("state", {}).get("let_go"):
                let_go()
                await send({"type": "http.response.body", "body": b"", "more_body": False})


def ignored_header(names: Sequence[str]) -> dict[str, str]:
    """Fields that were sent and mean nothing here, said aloud."""
    known = [name for name in names if name.isascii() and name.isidentifier()]
    return {"x-medmind-ignored": ", ".join(known[:20])[:400]} if known else {}
