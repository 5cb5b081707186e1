"""What was asked and answered, for the log of an operator who asked for it; patient identifiers never reach it."""

import logging

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
            log.info("%s %s: %s", number, word, scrub(body.decode(errors="replace")))
