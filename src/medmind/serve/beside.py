"""Beside the two APIs: the tokenizer, whether the models are alive, and figures for Prometheus."""

import asyncio
import time
from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from medmind.core.types import Message
from medmind.infer.decoder import Work
from medmind.serve import markup
from medmind.serve.bodies import MOST_LOOSE, DetokenizeBody, TokenizeBody, read
from medmind.serve.engine import Engine, EngineBroken, EngineBusy, WorkLost, follow
from medmind.serve.errors import refused
from medmind.serve.served import Index

STALLED = 60.0
"""Seconds one step may take; a model busy longer than that with it is not well."""
PROBE = 10.0
"""Seconds an idle model has for one token."""
FRESH = 5.0
"""Seconds a token, or the answer to the last question for one, is good for: asking often must not be work."""
COUNTERS = {
    "requests": ("requests_total", "requests accepted"),
    "refused": ("requests_refused_total", "requests refused because the queue was full"),
    "finished": ("replies_finished_total", "replies written to their end"),
    "cancelled": ("replies_cancelled_total", "replies given up because nobody listened"),
    "failed": ("replies_failed_total", "replies lost to a failure of the model"),
    "prompt_tokens": ("prompt_tokens_total", "tokens of prompts"),
    "new_tokens": ("tokens_predicted_total", "tokens written"),
    "steps": ("decode_steps_total", "passes of the model"),
    "busy_slots": ("busy_slots_total", "slots that took part in them, summed"),
}


class Beside:
    def __init__(self, index: Index) -> None:
        self._index = index
        self._probed: dict[Engine, tuple[float, bool]] = {}
        self._probing = asyncio.Lock()

    async def tokenize(self, request: Request) -> Response:
        body = await read(request, TokenizeBody)
        model = self._index.find(body.model or self._index.models[0].name)
        text = body.prompt if body.prompt is not None else body.content
        if text is None:
            raise refused("prompt: field required", "prompt")
        if len(text) > MOST_LOOSE:
            raise refused(f"a text may have {MOST_LOOSE} characters at most here", "prompt")
        begins = bool(body.add_special) if body.prompt is None else body.add_special_tokens
        inside = markup.read(model.renderer.tokenizer, text) if body.parse_special else model.encode(text, False)
        ids = [*model.encode("", begins), *inside]
        return JSONResponse({"tokens": ids, "count": len(ids), "max_model_len": model.context})

    async def detokenize(self, request: Request) -> Response:
        body = await read(request, DetokenizeBody)
        model = self._index.find(body.model or self._index.models[0].name)
        if max(body.tokens, default=0) >= model.renderer.tokenizer.vocab_size:
            raise refused(f"token ids must be less than {model.renderer.tokenizer.vocab_size}", "tokens")
        text = markup.write(model.renderer.tokenizer, body.tokens)
        return JSONResponse({"prompt": text, "content": text})

    async def tokenizer_info(self, request: Request) -> Response:
        model = self._index.find(request.query_params.get("model") or self._index.models[0].name)
        renderer = model.renderer
        names = {"bos_token": renderer.bos if renderer.adds_bos else None, "eos_token": renderer.eos, "pad_token": None}
        return JSONResponse({**names, "add_bos_token": renderer.adds_bos, "chat_template": renderer.chat_template})

    async def health(self, _: Request) -> Response:
        """Every model has just written a token, or is shown to be able to."""
        async with self._probing:
            ill = [engine for engine in self._index.engines if not await self._is_well(engine)]
        status = {"status": "error", "ill": len(ill)} if ill else {"status": "ok"}
        return JSONResponse(status, 503 if ill else 200)

    async def metrics(self, _: Request) -> Response:
        return PlainTextResponse("".join(self._metric_lines()), media_type="text/plain; version=0.0.4")

    async def _is_well(self, engine: Engine) -> bool:
        now = time.monotonic()
        if engine.failure:
            return False
        if engine.busy:
            return now - engine.last_step < STALLED
        if now - engine.wrote_at < FRESH:
            return True
        at, found = self._probed.get(engine, (-FRESH, False))
        if now - at >= FRESH:
            found = await writes(engine, self._token_of(engine))
            self._probed[engine] = time.monotonic(), found
        return found

    def _token_of(self, engine: Engine) -> int:
        return next(model.renderer.stop_ids[0] for model in self._index.models if model.engine is engine)

    def _metric_lines(self) -> Iterator[str]:
        models: dict[Engine, str] = {}
        for model in self._index.models:
            models.setdefault(model.engine, model.name.replace("\\", "\\\\").replace('"', '\\"'))
        for key, (name, meaning) in COUNTERS.items():
            yield f"# HELP medmind_{name} {meaning}\n# TYPE medmind_{name} counter\n"
            yield from (f'medmind_{name}{{model="{label}"}} {engine.counts[key]}\n' for engine, label in models.items())
        gauges = {"requests_processing": "busy", "requests_deferred": "queued", "slots": "slots"}
        for name, attribute in gauges.items():
            yield f"# TYPE medmind_{name} gauge\n"
            for engine, label in models.items():
                yield f'medmind_{name}{{model="{label}"}} {getattr(engine, attribute)}\n'


async def writes(engine: Engine, token: int) -> bool:
    """Whether it writes a token in time; in a full queue nothing is wrong."""
    try:
        (ticket,) = engine.submit([Work((token,), 1, messages=(Message(role="user", text="."),))])
    except EngineBusy:
        return True
    except EngineBroken:
        return False
    try:
        async with asyncio.timeout(PROBE):
            async for _ in follow(ticket):
                pass
        return True
    except (TimeoutError, EngineBroken, WorkLost):
        return False
    finally:
        engine.leave([ticket])
