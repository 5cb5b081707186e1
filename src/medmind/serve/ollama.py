"""Ollama's native API, as far as talking goes; what would change the server (pull, create, delete, …) is not here."""

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from medmind.core.types import Message
from medmind.infer.decoder import Sampling
from medmind.safety.texts import Additions
from medmind.serve.beyond import refuse_beyond
from medmind.serve.bodies import read
from medmind.serve.errors import ApiError, error_body, refused, unable
from medmind.serve.heard import as_said, first_words
from medmind.serve.ollama_bodies import ChatBody, EmbedBody, EmbeddingBody, GenerateBody, Options, ShowBody, Talk
from medmind.serve.openai import chat_logprobs, check_logprobs, cut, id_rows, join, note_for
from medmind.serve.replies import Ask, Reply, Streamed, answering, embedded, ignored_header, until_gone
from medmind.serve.served import Index, Served

VERSION = "0.12.3"
"""Clients ask for a number of Ollama's; medmind's own stands in /v1/models."""
Line = Callable[[str], dict[str, Any]]
"""How a stretch of the reply is said: a message in chat, a response elsewhere."""
CHANGING = ("pull", "push", "create", "copy", "delete")
ABSENT = "this server only answers: it does not pull, push, create, copy or delete models"


class Ollama:
    def __init__(self, index: Index, timeout: float, additions: Additions) -> None:
        self._index, self._timeout, self._additions = index, timeout, additions

    async def alive(self, _: Request) -> Response:
        return PlainTextResponse("Ollama is running")

    async def version(self, _: Request) -> Response:
        return JSONResponse({"version": VERSION})

    async def absent(self, _: Request) -> Response:
        raise ApiError(501, ABSENT)

    async def tags(self, _: Request) -> Response:
        return JSONResponse({"models": [tag(model) for model in self._index.models]})

    async def running(self, _: Request) -> Response:
        rows = [
            {**tag(model), "expires_at": "2318-01-01T00:00:00Z", "size_vram": 0, "context_length": model.context}
            for model in self._index.models
        ]
        return JSONResponse({"models": rows})

    async def show(self, request: Request) -> Response:
        body = await read(request, ShowBody)
        return JSONResponse(shown(self._index.find(body.model or body.name)))

    async def embed(self, request: Request) -> Response:
        body, started = await read(request, EmbedBody), time.monotonic_ns()
        model = self._embedder(body.model)
        texts = [body.input] if isinstance(body.input, str) and body.input else body.input
        rows = await id_rows(model, texts)
        vectors = await until_gone(request.receive, embedded(model, rows), self._timeout)
        found = [cut(vector, body.dimensions) for vector in vectors]
        done = {"model": model.name, "embeddings": found, "prompt_eval_count": sum(map(len, rows))}
        done |= {"total_duration": time.monotonic_ns() - started, "load_duration": 0}
        return JSONResponse(done, headers=ignored_header(body.ignored))

    async def embedding(self, request: Request) -> Response:
        body = await read(request, EmbeddingBody)
        model = self._embedder(body.model)
        rows = await id_rows(model, [body.prompt] if body.prompt else [])
        vectors = await until_gone(request.receive, embedded(model, rows), self._timeout)
        return JSONResponse({"embedding": vectors[0] if vectors else []}, headers=ignored_header(body.ignored))

    async def chat(self, request: Request) -> Response:
        body = await read(request, ChatBody)
        asked = [message.content or "" for message in body.messages if message.role == "user"]
        added = await first_words(request, self._additions, asked)
        model = self._index.find(body.model)
        if not body.messages:
            return JSONResponse(loaded(model, body, {"message": {"role": "assistant", "content": ""}}))
        refuse_beyond(model.name, body)
        refuse_beyond(model.name, body.options)
        if any(message.images or message.tool_calls for message in body.messages):
            raise unable(model.name, "images or tool calls in a message")
        messages = [Message(role=one.role, text=one.content or "") for one in body.messages if one.role != "tool"]
        if len(messages) < len(body.messages):
            raise unable(model.name, "tools")
        ask = talk_ask(model, body, as_said(self._additions, messages))
        return await self._answer(request, model, body, ask, added, spoken_line)

    async def generate(self, request: Request) -> Response:
        body = await read(request, GenerateBody)
        asked = [body.prompt] if body.prompt and not body.raw else []
        added = await first_words(request, self._additions, asked)
        model = self._index.find(body.model)
        if body.raw and (body.system or body.template or body.context):
            raise refused("raw mode does not support template, system, or context")
        refuse_beyond(model.name, body)
        refuse_beyond(model.name, body.options)
        for name in ("images", "template", "context"):
            if getattr(body, name):
                raise unable(model.name, name)
        if not body.prompt:
            return JSONResponse(loaded(model, body, {"response": ""}))
        if body.raw:
            ask = to_ask(model, body, model.continued(model.plain_prompt(body.prompt)))
            return await self._answer(request, model, body, ask, added, written_line)
        system = [] if body.system is None else [Message(role="system", text=body.system)]
        messages = [*system, Message(role="user", text=body.prompt)]
        ask = talk_ask(model, body, messages)
        return await self._answer(request, model, body, ask, added, written_line)

    async def _answer(self, request: Request, model: Served, body: Talk, ask: Ask, added: str, line: Line) -> Response:
        headers = ignored_header(body.ignored)
        lines = self._lines(model, ask, added, line)
        if body.stream is not False:
            return Streamed(packed(lines), "application/x-ndjson", failed, headers, self._timeout)
        done = await until_gone(request.receive, together(lines, line), self._timeout)
        return JSONResponse(done, headers=headers)

    async def _lines(self, model: Served, ask: Ask, added: str, line: Line) -> AsyncGenerator[dict[str, Any]]:
        text = ""
        async with answering(model, [ask]) as (reply,):
            if added:
                yield {**head(model), **line(join(added, "")), "done": False, "medmind_added": added}
            async for piece in reply.pieces():
                logprobs = chat_logprobs(model.renderer, ask, piece.judged)
                text += piece.text
                if piece.text or logprobs:
                    more = {"logprobs": logprobs["content"]} if logprobs else {}
                    yield {**head(model), **line(piece.text), "done": False, **more}
        if ask.trim and (note := note_for(model, text)):
            yield {**head(model), **line(note), "done": False, "medmind_note": note.strip()}
        yield {**head(model), **line(""), "done": True, "done_reason": reply.reason, **timings(reply)}

    def _embedder(self, name: str) -> Served:
        model = self._index.find(name)
        if not model.engine.can_embed:
            raise unable(model.name, "embeddings")
        return model


def spoken_line(text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}}


def written_line(text: str) -> dict[str, Any]:
    return {"response": text}


async def packed(lines: AsyncGenerator[dict[str, Any]]) -> AsyncIterator[bytes]:
    async with aclosing(lines):
        async for one in lines:
            yield json.dumps(one, ensure_ascii=False).encode() + b"\n"


async def together(lines: AsyncIterator[dict[str, Any]], line: Line) -> dict[str, Any]:
    """All lines as one, for those who do not stream."""
    text = ""
    more: dict[str, Any] = {}
    last: dict[str, Any] = {}
    async for one in lines:
        last = one
        text += one["message"]["content"] if "message" in one else one["response"]
        more |= {name: one[name] for name in ("medmind_added", "medmind_note") if name in one}
        if "logprobs" in one:
            more["logprobs"] = [*more.get("logprobs", []), *one["logprobs"]]
    return {**last, **line(text), **more}


def talk_ask(model: Served, body: Talk, messages: Sequence[Message]) -> Ask:
    ask = to_ask(model, body, model.prompt(messages))
    return replace(ask, messages=messages, stops=[*ask.stops, model.renderer.opening], trim=True)


def to_ask(model: Served, body: Talk, ids: tuple[int, ...]) -> Ask:
    options = body.options
    if options.num_ctx is not None and options.num_ctx > model.context:
        raise refused(f"num_ctx is {options.num_ctx}, and this server's context is {model.context}")
    if options.num_predict == 0:
        raise refused('option "num_predict": 0 asks for no reply; -1 is as long as it gets')
    if body.format not in (None, ""):
        raise unable(model.name, "format")
    if body.think not in (None, False):
        raise unable(model.name, "thinking")
    if body.logprobs:
        check_logprobs(model)
    asked = options.num_predict if (options.num_predict or 0) > 0 else None
    top = (body.top_logprobs or 0) if body.logprobs else None
    return Ask(ids, model.limit(ids, asked), sampling_of(model, options), (), options.stop, top, trim=False)


def sampling_of(model: Served, options: Options) -> Sampling:
    """A negative seed is another one each time."""
    said = options.model_dump(include=set(Sampling.__dataclass_fields__))
    return model.sampling_of(said | {"seed": options.seed if (options.seed or 0) >= 0 else None})


def head(model: Served) -> dict[str, Any]:
    return {"model": model.name, "created_at": moment(time.time())}


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def loaded(model: Served, body: Talk, line: dict[str, Any]) -> dict[str, Any]:
    """An empty question asks to load or unload a model; ours is always there."""
    reason = "unload" if body.keep_alive in (0, "0", "0s") else "load"
    return {**head(model), **line, "done": True, "done_reason": reason}


def timings(reply: Reply) -> dict[str, int]:
    """Nanoseconds."""
    first, ended = reply.first or reply.ended, reply.ended
    return {
        "total_duration": ended - reply.submitted,
        "load_duration": 0,
        "prompt_eval_count": len(reply.ask.prompt),
        "prompt_eval_duration": first - reply.submitted,
        "eval_count": reply.tokens,
        "eval_duration": ended - first,
    }


def failed(error: ApiError) -> bytes:
    return json.dumps(error_body("/api/", error)).encode() + b"\n"


def details(model: Served) -> dict[str, Any]:
    facts = model.facts
    return {
        "parent_model": facts.parent,
        "format": "gguf" if model.engine.name == "llama.cpp" else "safetensors",
        "family": facts.family,
        "families": [facts.family],
        "parameter_size": size_label(facts.parameters),
        "quantization_level": facts.quantisation.upper(),
    }


def size_label(parameters: int) -> str:
    return f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.1f}M"


def capabilities(model: Served) -> list[str]:
    return ["completion", *(["embedding"] if model.engine.can_embed else [])]


def tag(model: Served) -> dict[str, Any]:
    name = model.name if ":" in model.name else f"{model.name}:latest"
    facts = {"size": model.facts.size, "digest": model.facts.digest, "modified_at": moment(model.facts.created)}
    return {"name": name, "model": name, **facts, "details": details(model), "capabilities": capabilities(model)}


def shown(model: Served) -> dict[str, Any]:
    sampling, family = model.sampling, model.facts.family
    parameters = [f'stop "{text}"' for text in (*model.renderer.stops, model.renderer.opening)]
    parameters += [f"num_ctx {model.context}", f"temperature {sampling.temperature:g}"]
    info = {
        "general.architecture": family,
        "general.parameter_count": model.facts.parameters,
        f"{family}.context_length": model.context,
    }
    template = model.renderer.ollama_template
    lines = [f"# served by medmind as {model.name}", f'TEMPLATE """{template}"""']
    lines += [f'SYSTEM """{model.system_prompt}"""'] if model.system_prompt else []
    return {
        "license": model.facts.licence,
        "modelfile": "\n".join([*lines, *(f"PARAMETER {one}" for one in parameters)]) + "\n",
        "parameters": "\n".join(parameters),
        "template": template,
        "system": model.system_prompt,
        "details": details(model),
        "model_info": info,
        "capabilities": capabilities(model),
        "modified_at": moment(model.facts.created),
    }
