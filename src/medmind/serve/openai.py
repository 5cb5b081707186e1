"""OpenAI's chat completions, model list and embeddings."""

import asyncio
import base64
import struct
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from medmind.core.types import Message, Role
from medmind.infer.decoder import Judged, Sampling
from medmind.prompts.chat import Renderer
from medmind.safety.texts import GAP, Additions, missing_note
from medmind.serve.beyond import refuse_beyond
from medmind.serve.bodies import Asked, ChatBody, ChatMessage, EmbeddingBody, read
from medmind.serve.errors import ApiError, error_body, refused, unable
from medmind.serve.heard import as_said, first_words
from medmind.serve.replies import Ask, Reply, Streamed, answering, embedded, ignored_header, merged, until_gone
from medmind.serve.served import Index, Served
from medmind.serve.sse import DONE, event


class OpenAI:
    def __init__(self, index: Index, timeout: float, additions: Additions) -> None:
        self._index, self._timeout, self._additions = index, timeout, additions

    async def models(self, _: Request) -> Response:
        return JSONResponse({"object": "list", "data": [model_card(model) for model in self._index.models]})

    async def model(self, request: Request) -> Response:
        return JSONResponse(model_card(self._index.find(request.path_params["name"])))

    async def chat(self, request: Request) -> Response:
        body = await read(request, ChatBody)
        asked = [text_of(message) for message in body.messages if message.role == "user"]
        added = await first_words(request, self._additions, asked)
        model = self._index.find(body.model)
        messages = as_said(self._additions, to_messages(model.name, body.messages))
        ask = chat_ask(model, body, messages)
        asks = [replace(ask, sampling=nth(ask.sampling, number)) for number in range(body.n or 1)]
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model.name}
        head["system_fingerprint"] = fingerprint(model)
        headers = ignored_header(body.ignored)
        if body.stream:
            usage = bool(body.stream_options and body.stream_options.include_usage)
            lines = self._stream(model, asks, head, added, usage)
            return Streamed(lines, "text/event-stream", failed, headers, self._timeout)
        done = await until_gone(request.receive, self._whole(model, asks, head, added), self._timeout)
        return JSONResponse(done, headers=headers)

    async def embeddings(self, request: Request) -> Response:
        body = await read(request, EmbeddingBody)
        model = self._index.find(body.model)
        if not model.engine.can_embed:
            raise unable(model.name, "embeddings", "model")
        rows = await id_rows(model, several(body.input))
        vectors = await until_gone(request.receive, embedded(model, rows), self._timeout)
        found = [cut(vector, body.dimensions) for vector in vectors]
        pack = packed if body.encoding_format == "base64" else list
        data = [{"object": "embedding", "index": place, "embedding": pack(one)} for place, one in enumerate(found)]
        tokens = sum(map(len, rows))
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        done = {"object": "list", "model": model.name, "data": data, "usage": usage}
        return JSONResponse(done, headers=ignored_header(body.ignored))

    async def _whole(self, model: Served, asks: Sequence[Ask], head: dict[str, Any], added: str) -> dict[str, Any]:
        choices = []
        async with answering(model, asks) as replies:
            texts = ["" for _ in replies]
            async for number, piece in merged(replies):
                texts[number] += piece.text if piece else ""
        for number, (reply, text) in enumerate(zip(replies, texts, strict=True)):
            note = note_for(model, text)
            message = {"role": "assistant", "content": join(added, text) + note, "refusal": None}
            choice = {"index": number, "message": message, "finish_reason": reply.reason}
            choice["logprobs"] = chat_logprobs(model.renderer, reply.ask, spoken(reply))
            choice |= {"medmind_note": note.strip()} if note else {}
            choices.append(choice | ({"medmind_added": added} if added else {}))
        return {**head, "object": "chat.completion", "choices": choices, "usage": usage_of(replies)}

    async def _stream(
        self, model: Served, asks: Sequence[Ask], head: dict[str, Any], added: str, usage: bool
    ) -> AsyncIterator[bytes]:
        head = {**head, "object": "chat.completion.chunk"}
        empty = {"usage": None} if usage else {}

        def chunk(number: int, delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
            choice = {"index": number, "delta": delta, "finish_reason": reason, "logprobs": None, **more}
            return event({**head, "choices": [choice], **empty})

        async with answering(model, asks) as replies:
            opened = set(range(len(asks))) if added else set()
            for number in opened:  # whoever is in need waits for no model
                yield chunk(number, {"role": "assistant", "content": ""})
                yield chunk(number, {"content": join(added, "")}, medmind_added=added)
            texts = ["" for _ in replies]
            async for number, piece in merged(replies):
                if number not in opened:
                    opened.add(number)
                    yield chunk(number, {"role": "assistant", "content": ""})
                texts[number] += piece.text if piece else ""
                if piece is None:
                    if note := note_for(model, texts[number]):
                        yield chunk(number, {"content": note}, medmind_note=note.strip())
                    yield chunk(number, {}, replies[number].reason)
                elif piece.text or asks[number].top_logprobs is not None:
                    logprobs = chat_logprobs(model.renderer, asks[number], piece.judged)
                    yield chunk(number, {"content": piece.text}, logprobs=logprobs)
        if usage:
            yield event({**head, "choices": [], "usage": usage_of(replies)})
        yield DONE


def chat_ask(model: Served, body: ChatBody, messages: Sequence[Message]) -> Ask:
    refuse_beyond(model.name, body)
    if body.response_format and body.response_format.type != "text":
        raise unable(model.name, f"response_format {body.response_format.type[:40]}", "response_format")
    if body.logprobs:
        check_logprobs(model)
    prompt = model.prompt(messages)
    top = (body.top_logprobs or 0) if body.logprobs else None
    limit = model.limit(prompt, body.max_tokens, body.max_completion_tokens)
    stops = [*body.stop, model.renderer.opening]
    return Ask(prompt, limit, sampling_of(model, body), messages, stops, top)


def check_logprobs(model: Served) -> None:
    if not model.engine.can_judge:
        raise unable(model.name, "logprobs", "logprobs")
    if model.screened:
        raise unable(
            model.name, "logprobs: its replies are screened for patient identifiers (serve.redact_phi)", "logprobs"
        )


def to_messages(model: str, given: Sequence[ChatMessage]) -> list[Message]:
    found = []
    for message in given:
        if message.role == "tool" or message.role == "function" or message.tool_calls or message.function_call:
            raise unable(model, "tools", "messages")
        parts = message.content if isinstance(message.content, list) else []
        if any(part.type not in ("text", "input_text") or part.text is None for part in parts):
            raise unable(model, "anything but text in a message", "messages")
        role: Role = "system" if message.role == "developer" else message.role
        found.append(Message(role=role, text=text_of(message)))
    return found


def text_of(message: ChatMessage) -> str:
    if isinstance(message.content, list):
        return "".join(part.text or "" for part in message.content)
    return message.content or ""


def sampling_of(model: Served, body: Asked) -> Sampling:
    said = body.model_dump(include=set(Sampling.__dataclass_fields__))
    return model.sampling_of(said | {"repeat_penalty": body.repetition_penalty})


def nth(sampling: Sampling, number: int) -> Sampling:
    """Of several replies under one seed, each has its own."""
    seed = sampling.seed
    return replace(sampling, seed=None if seed is None else abs(seed) + number)


def spoken(reply: Reply) -> list[Judged]:
    """The tokens of the text: what ended it is none of them."""
    stop_ids = reply.ticket.work.stop_ids
    return [one for one in reply.written if one.token not in stop_ids]


def chat_logprobs(renderer: Renderer, ask: Ask, judged: Sequence[Judged]) -> dict[str, Any] | None:
    if ask.top_logprobs is None:
        return None

    def entry(token: int, logprob: float | None) -> dict[str, Any]:
        text = renderer.tokenizer.token_text(token)
        return {"token": text, "logprob": logprob, "bytes": None if "\ufffd" in text else list(text.encode())}

    content = []
    for one in judged:
        content.append({**entry(one.token, one.logprob), "top_logprobs": [entry(*pair) for pair in one.top]})
    return {"content": content, "refusal": None}


def usage_of(replies: Sequence[Reply]) -> dict[str, int]:
    """A prompt that is continued several times counts once."""
    prompt = sum(map(len, {id(reply.ask.prompt): reply.ask.prompt for reply in replies}.values()))
    written = sum(reply.tokens for reply in replies)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def join(added: str, text: str) -> str:
    return f"{added}{GAP}{text}" if added else text


def note_for(model: Served, text: str) -> str:
    """What follows a reply, with the blank line before it."""
    note = missing_note(text) if model.noted else ""
    return f"{GAP}{note}" if note else ""


def fingerprint(model: Served) -> str:
    """Of the weights and of what computes with them."""
    engine = model.engine
    return "-".join(filter(None, (engine.name, engine.dtype, model.facts.digest[:12], engine.version)))


def failed(error: ApiError) -> bytes:
    return event(error_body("/v1", error))


def model_card(model: Served) -> dict[str, Any]:
    facts, sampling = model.facts, model.sampling
    meta = {
        "context_length": model.context,
        "max_new_tokens": model.max_new_tokens,
        "parameters": facts.parameters,
        "size": facts.size,
        "digest": facts.digest,
        "engine": model.engine.name,
        "dtype": model.engine.dtype,
        "licence": facts.licence,
        "temperature": sampling.temperature,
        "screened": model.screened,
        "medmind": version("medmind"),
    }
    card = {"id": model.name, "object": "model", "created": facts.created, "owned_by": "medmind"}
    return {**card, "max_model_len": model.context, "capabilities": model.capabilities, "meta": meta}


def several(given: Any) -> list[Any]:
    """A prompt or an input may be one text, one list of ids, or a list of either."""
    if isinstance(given, list) and given and not isinstance(given[0], int):
        return given
    return [given]


async def id_rows(model: Served, given: Sequence[Any]) -> list[tuple[int, ...]]:
    """Of texts or lists of ids; others have their turn between two."""
    rows = []
    for one in given:
        ids = model.plain_prompt(one, param="input") if isinstance(one, str) else tuple(one)
        rows.append(model.fitting(ids, "input"))
        await asyncio.sleep(0)
    return rows


def cut(vector: list[float], dimensions: int | None) -> list[float]:
    """Its first so many dimensions, of length 1 again."""
    if dimensions is None or dimensions >= len(vector):
        return vector
    kept = vector[:dimensions]
    length = sum(part * part for part in kept) ** 0.5
    if not length:
        raise refused("nothing is left of the vector in so few dimensions", "dimensions")
    return [part / length for part in kept]


def packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
