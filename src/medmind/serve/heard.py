"""A conversation before a model hears it: whether somebody is in need, and what of it the model never said."""

import asyncio
from collections.abc import Sequence

from starlette.requests import Request

from medmind.core.types import Message
from medmind.safety.texts import Additions


async def first_words(request: Request, additions: Additions, asked: Sequence[str]) -> str:
    """What stands before the answer to the last of a user's texts; kept for the error that may come instead."""
    added, _ = await asyncio.to_thread(additions.before, asked[-1]) if asked else ("", "")
    request.state.added = added
    return added


def as_said(additions: Additions, messages: Sequence[Message]) -> list[Message]:
    """The replies as the model said them; of one that was nothing else no turn is left, and its neighbours are one."""
    said = []
    for message in messages:
        text = additions.taken_off(message.text) if message.role == "assistant" else message.text
        if text or not message.text:
            said.append(message if text == message.text else Message(role=message.role, text=text))
    return said
