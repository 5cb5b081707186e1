"""A conversation before a model hears it: whether somebody is in need, and what of it the model never said."""

import asyncio
from collections.abc import Sequence

from starlette.requests import Request

from medmind.core.types import Message
from medmind.safety.texts import Additions
from medmind.serve.errors import ApiError

SHORT = 2000
"""Characters that are read at once; longer messages wait for a thread, and not many of them."""
MOST_WAITING = 8


class Waiting:
    """How many long messages there are, in the whole process."""

    count = 0


async def first_words(request: Request, additions: Additions, asked: Sequence[str]) -> str:
    """What stands before the answer to the last of a user's texts; kept for the error that may come instead."""
    last = asked[-1] if asked else ""
    request.state.added = (await read_long(additions, last) if len(last) > SHORT else additions.before(last))[0]
    added: str = request.state.added
    return added


async def read_long(additions: Additions, text: str) -> tuple[str, str]:
    if Waiting.count >= MOST_WAITING:
        raise ApiError(503, "too many long messages at once", "too_many_bodies", headers={"retry-after": "5"})
    Waiting.count += 1
    try:
        return await asyncio.to_thread(additions.before, text)
    finally:
        Waiting.count -= 1


def as_said(additions: Additions, messages: Sequence[Message]) -> list[Message]:
    """The replies as the model said them; of one that was nothing else no turn is left, and its neighbours are one."""
    said = []
    for message in messages:
        text = additions.taken_off(message.text) if message.role == "assistant" else message.text
        if text or not message.text:
            said.append(message if text == message.text else Message(role=message.role, text=text))
    return said
