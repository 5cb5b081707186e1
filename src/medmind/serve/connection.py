"""A client's connection: what asks nothing, or asks too slowly, does not keep the door shut for others."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

SLOWEST_HEAD = 10.0
"""Seconds for the head of a request to arrive, counted from the connection or from the head's first byte."""
IDLE = 256
"""Connections that may stand open without a request; the one that has been so for longest gives way to the next."""


class Connection(H11Protocol):
    """uvicorn's closes what is idle after an answer; one that never asks, or a byte at a time, it keeps for ever."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._head: asyncio.TimerHandle | None = None
        self.idle_since = self.loop.time()

    @property
    def idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        idle = [one for one in self.connections if isinstance(one, Connection) and one.idle]
        if len(idle) > IDLE:
            min(idle, key=lambda one: one.idle_since).transport.close()
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_head()

    def on_response_complete(self) -> None:
        self.idle_since = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if not self.idle:
            self._forget_head()
        elif self._head is None:
            self._head = self.loop.call_later(SLOWEST_HEAD, self._close_if_idle)

    def _forget_head(self) -> None:
        if self._head:
            self._head.cancel()
            self._head = None

    def _close_if_idle(self) -> None:
        if self.idle:
            self.transport.close()
