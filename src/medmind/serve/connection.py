"""A client's connection: what asks nothing, or asks too slowly, does not keep the door shut for others."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

SLOWEST = {"head": 10.0, "rest of a body": 30.0, "another request": 30.0}
"""Seconds for what a client sends while nobody works for it; a body may still come when its answer is there."""
IDLE = 256
"""Connections that may stand open without a request; those that have been so for longest give way to the next."""


class Connection(H11Protocol):
    """uvicorn's closes what is idle after an answer; one that never asks, or a byte at a time, it keeps for ever."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.app_state = {**self.app_state, "let_go": self.let_go}
        self._expected = ""
        self._timer: asyncio.TimerHandle | None = None
        self.idle_since = self.loop.time()

    @property
    def idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        open_ones = (one for one in self.connections if isinstance(one, Connection) and not one.transport.is_closing())
        idle = sorted((one for one in open_ones if one.idle), key=lambda one: one.idle_since)
        for one in idle[: max(0, len(idle) - IDLE)]:
            one.let_go()
        self._expect("head")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect(self._what_comes())

    def on_response_complete(self) -> None:
        self.idle_since = self.loop.time()
        super().on_response_complete()
        self._expect(self._what_comes())

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect("")
        super().connection_lost(exc)

    def let_go(self) -> None:
        """At once, also where an answer lies there that nobody fetches."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _what_comes(self) -> str:
        if not self.idle:
            return ""
        if self.conn.their_state is h11.SEND_BODY:
            return "rest of a body"
        return "head" if self.cycle is None or self.conn.trailing_data[0] else "another request"

    def _expect(self, what: str) -> None:
        """From now on, unless it is expected already."""
        if what == self._expected:
            return
        if self._timer:
            self._timer.cancel()
        self._expected = what
        self._timer = self.loop.call_later(SLOWEST[what], self.let_go) if what else None
