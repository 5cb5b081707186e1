"""OpenAI's plain completions, and with echo and logprobs the scoring endpoint that lm-eval asks.

A judged prompt has one entry a token, then one for the token after it, be it the end; a BOS that was added has none.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from medmind.core.protocols import Tokenizer
from medmind.infer.decoder import Judged
from medmind.serve.beyond import refuse_beyond
from medmind.serve.bodies import CompletionBody, read
from medmind.serve.errors import refused, unable
from medmind.serve.openai import failed, fingerprint, nth, sampling_of, several, spoken, usage_of
from medmind.serve.replies import Ask, Piece, Reply, Streamed, answering, ignored_header, merged, until_gone
from medmind.serve.served import Index, Served
from medmind.serve.sse import DONE, event
from medmind.serve.text import Reader

MOST_CHOICES = 64


@dataclass(frozen=True)
class Prompt:
    """`text` is how it is echoed; `hidden` tokens at its start were added by the server."""

    ids: tuple[int, ...]
    text: str
    hidden: int


class Completions:
    def __init__(self, index: Index, timeout: float) -> None:
        self._index, self._timeout = index, timeout

    async def complete(self, request: Request) -> Response:
        body = await read(request, CompletionBody)
        model = self._index.find(body.model)
        prompts = []
        for one in several(body.prompt):
            prompts.append(to_prompt(model, one, body.add_special_tokens))
            await asyncio.sleep(0)  # others have their turn between two texts
        if len(prompts) * (body.n or 1) > MOST_CHOICES:
            raise refused(f"prompts times n must be {MOST_CHOICES} at most", "n")
        check(model, body)
        wanted = [(prompt, to_ask(model, body, prompt, number)) for prompt in prompts for number in range(body.n or 1)]
        head = {"id": f"cmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model.name}
        head |= {"object": "text_completion", "system_fingerprint": fingerprint(model)}
        headers = ignored_header(body.ignored)
        if body.stream:
            usage = bool(body.stream_options and body.stream_options.include_usage)
            lines = self._stream(model, wanted, head, body, usage)
            return Streamed(lines, "text/event-stream", failed, headers, self._timeout)
        done = await until_gone(request.receive, self._whole(model, wanted, head, body), self._timeout)
        return JSONResponse(done, headers=headers)

    async def _whole(
        self, model: Served, wanted: Sequence[tuple[Prompt, Ask]], head: dict[str, Any], body: CompletionBody
    ) -> dict[str, Any]:
        async with answering(model, [ask for _, ask in wanted]) as replies:
            texts = ["" for _ in replies]
            async for number, piece in merged(replies):
                texts[number] += piece.text if piece else ""
        choices = []
        for number, ((prompt, _), reply) in enumerate(zip(wanted, replies, strict=True)):
            text, judged = texts[number] if body.max_tokens != 0 else "", scored(body, reply)
            if body.echo:
                text = prompt.text + text
                judged = [*reply.read[prompt.hidden :], *judged]
            choice = {"index": number, "text": text, "finish_reason": reply.reason, "logprobs": None}
            if body.logprobs is not None:
                choice["logprobs"] = Scribe(model.renderer.tokenizer).write(judged)
            choices.append(choice)
        return {**head, "choices": choices, "usage": usage_of(replies)}

    async def _stream(
        self,
        model: Served,
        wanted: Sequence[tuple[Prompt, Ask]],
        head: dict[str, Any],
        body: CompletionBody,
        usage: bool,
    ) -> AsyncIterator[bytes]:
        empty = {"usage": None} if usage else {}
        scribes = [Scribe(model.renderer.tokenizer) for _ in wanted]

        def chunk(number: int, text: str, judged: Sequence[Judged], reason: str | None = None) -> bytes:
            logprobs = scribes[number].write(judged) if body.logprobs is not None else None
            choice = {"index": number, "text": text, "finish_reason": reason, "logprobs": logprobs}
            return event({**head, "choices": [choice], **empty})

        async with answering(model, [ask for _, ask in wanted]) as replies:
            echoed: set[int] = set()
            async for number, piece in merged(replies):
                prompt, reply = wanted[number][0], replies[number]
                if body.echo and number not in echoed:
                    echoed.add(number)
                    yield chunk(number, prompt.text, reply.read[prompt.hidden :])
                if piece is None:
                    yield chunk(number, "", [], reply.reason)
                elif speaks(piece, body):
                    yield chunk(number, piece.text, piece.judged)
        if usage:
            yield event({**head, "choices": [], "usage": usage_of(replies)})
        yield DONE


def speaks(piece: Piece, body: CompletionBody) -> bool:
    return body.max_tokens != 0 and bool(piece.text or (body.logprobs is not None and piece.judged))


def scored(body: CompletionBody, reply: Reply) -> list[Judged]:
    """Of the reply: with echo the token that ended it too, so that the entries are always one more than the prompt."""
    if body.max_tokens == 0:
        return []
    return list(reply.written) if body.echo else spoken(reply)


def to_prompt(model: Served, given: Any, special: bool) -> Prompt:
    if not isinstance(given, str):
        ids = model.continued(tuple(given))
        return Prompt(ids, model.renderer.tokenizer.decode(ids), 0)
    ids = model.continued(model.plain_prompt(given, special))
    return Prompt(ids, given, len(model.plain_prompt("", special)))


def check(model: Served, body: CompletionBody) -> None:
    refuse_beyond(model.name, body)
    if body.best_of not in (None, body.n or 1):
        raise unable(model.name, "best_of other than n", "best_of")
    if body.logprobs is not None and not model.engine.can_judge:
        raise unable(model.name, "logprobs", "logprobs")
    if model.screened and body.logprobs is not None and (body.max_tokens is None or body.max_tokens > 1):
        raise unable(
            model.name, "logprobs of more than one new token: its replies are screened (serve.redact_phi)", "logprobs"
        )


def to_ask(model: Served, body: CompletionBody, prompt: Prompt, number: int) -> Ask:
    """max_tokens 0 runs one token and hides it; unsaid it is 16, as at OpenAI."""
    limit = model.limit(prompt.ids, 16 if body.max_tokens is None else body.max_tokens or 1)
    sampling = nth(sampling_of(model, body), number)
    echo = bool(body.echo) and body.logprobs is not None
    return Ask(prompt.ids, limit, sampling, (), body.stop, body.logprobs, echo, trim=False)


class Scribe:
    """OpenAI's four lists, a token a place; offsets count characters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self._reader, self._offset = tokenizer, Reader(tokenizer), 0

    def write(self, judged: Sequence[Judged]) -> dict[str, Any]:
        lists: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for one in judged:
            piece = self._reader.feed(one.token)
            name = piece or self._tokenizer.token_text(one.token)
            lists["tokens"].append(name)
            lists["token_logprobs"].append(one.logprob)
            lists["top_logprobs"].append(self._top(one, name))
            lists["text_offset"].append(self._offset)
            self._offset += len(piece)
        return lists

    def _top(self, one: Judged, name: str) -> dict[str, float] | None:
        """The token's own value is always there, from the same number; of two with one name the better keeps it."""
        if one.logprob is None:
            return None
        found = {name: one.logprob}
        for token, logprob in one.top:
            if token == one.token:
                continue
            text = self._tokenizer.token_text(token)
            found[f"token_id:{token}" if text in found else text] = logprob
        return found
