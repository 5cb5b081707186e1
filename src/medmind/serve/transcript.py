"""What was asked and answered, for the log of an operator who asked for it; patient identifiers never reach it."""

import json
import logging
from typing import Any

from starlette.types import Message, Receive, Send

from medmind.privacy.redact import scrub

log = logging.getLogger("medmind.serve")


class Transcript:
    """Listens at both ends of one request."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._asked, self._answered = bytearray(), bytearray()

    async def receive(self) -> Message:
        message = await self._receive()
        self._asked += message.get("body", b"")
        return message

    async def send(self, message: Message) -> None:
        self._answered += message.get("body", b"")
        await self._send(message)

    def tell(self, number: str) -> None:
        for word, body in (("asked", self._asked), ("answered", self._answered)):
            log.info("%s %s: %s", number, word, told(bytes(body)))


def told(body: bytes) -> str:
    """JSON, whole or a value a line, as events are sent; of what is neither (packed, broken) the size alone."""
    try:
        return spell(body)
    except (ValueError, RecursionError):
        pass
    try:
        lines = (line.removeprefix(b"data:").strip() for line in body.splitlines())
        return " ".join(spell(line) for line in lines if line not in (b"", b"[DONE]"))
    except (ValueError, RecursionError):
        return f"{len(body)} bytes"


def spell(raw: bytes) -> str:
    return scrub(json.dumps(screened(json.loads(raw)), ensure_ascii=False))


def screened(value: Any) -> Any:
    """Every text as it reads, not as it is escaped; ids, and tokens one by one, would spell it past the screen."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        pieces = [name for name, one in value.items() if name == "logprobs" and isinstance(one, dict)]
        return {scrub(name): screened(one) for name, one in value.items() if name not in pieces}
    if isinstance(value, list):
        numbers = value and all(isinstance(one, int | float) for one in value)
        return f"{len(value)} numbers" if numbers else [screened(one) for one in value]
    return value
