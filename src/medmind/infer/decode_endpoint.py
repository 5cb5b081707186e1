"""Decoding by another server: each reply is a stream of its own, and what the streams bring is one step."""

import json
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from http.client import HTTPException
from typing import Any

from medmind.core.errors import UsageError
from medmind.infer.decoder import Sampling, Step, Work
from medmind.infer.endpoint import ChatEndpoint, IdEndpoint, spoken
from medmind.infer.wire import Refused, Stream

PAUSE = 0.005
"""Seconds a step waits for news: a newcomer waits no longer than that."""
GONE = "the server behind this model gave no answer"
MEANT = {"repeat_penalty": "repetition_penalty"}
"""What OpenAI's servers call it."""


class EndpointDecoder:
    """Its replies come as text: tokens and their log-probabilities it does not know."""

    dtype, version = "as served", ""
    can_embed = can_judge = False

    def __init__(self, endpoint: IdEndpoint | ChatEndpoint, slots: int, context: int) -> None:
        self.name, self.slots = endpoint.name, slots
        self.takes_ids = isinstance(endpoint, IdEndpoint)
        self.context = min(context, endpoint.context)
        self._server = endpoint.server
        self._ollama = isinstance(endpoint, ChatEndpoint) and endpoint.api == "ollama"
        self._streams: dict[int, Stream] = {}
        self._news: queue.SimpleQueue[tuple[Stream, Step]] = queue.SimpleQueue()

    def begin(self, slot: int, work: Work) -> None:
        stream = self._streams[slot] = self._server.wire.stream(*self._request(work))
        threading.Thread(
            target=self._listen, args=(slot, stream, work.max_new_tokens), name="endpoint", daemon=True
        ).start()

    def drop(self, slot: int) -> None:
        if stream := self._streams.pop(slot, None):
            stream.close()

    def step(self) -> list[Step]:
        """What came since the last; of streams that were dropped, nothing."""
        found = []
        with suppress(queue.Empty):
            found.append(self._news.get(timeout=PAUSE))
            while True:
                found.append(self._news.get_nowait())
        return [step for stream, step in found if self._streams.get(step.slot) is stream]

    def embed(self, ids: Sequence[int], voice: str = "") -> list[float]:
        raise UsageError("no embeddings through an endpoint", todo="ask its server itself")

    def _listen(self, slot: int, stream: Stream, limit: int) -> None:
        """Until the reply has ended, by itself, because it was dropped, or with as many pieces as tokens were asked."""
        hear: Callable[[bytes], Step | None] = hear_ollama if self._ollama else hear_openai
        last, written = Step(slot, fault=GONE), 0
        try:
            with closing(stream.lines()) as lines:
                for step in filter(None, map(hear, lines)):
                    step.slot = slot
                    written += bool(step.text)
                    if written >= limit and not step.end:
                        step.end = "length"
                    if step.end or step.fault:
                        last = step
                        break
                    self._news.put((stream, step))
        except Refused as refusal:
            last.fault = f"the server behind this model refused (status {refusal.status})"
        except (OSError, HTTPException, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            pass  # GONE says it
        finally:
            self._news.put((stream, last))

    def _request(self, work: Work) -> tuple[str, dict[str, Any]]:
        body = {"model": self._server.model, "stream": True}
        messages, said = spoken(work.messages), spoken_sampling(work.sampling)
        if self._ollama:
            options = {**said, "num_predict": work.max_new_tokens, "num_ctx": self._server.context}
            return "/api/chat", {**body, "messages": messages, "truncate": False, "shift": False, "options": options}
        body |= {MEANT.get(name, name): value for name, value in said.items()}
        body["max_tokens"] = work.max_new_tokens
        if self.takes_ids:
            return "/v1/completions", {**body, "prompt": list(work.prompt)}
        return "/v1/chat/completions", {**body, "messages": messages}


def spoken_sampling(sampling: Sampling) -> dict[str, Any]:
    """The temperature, and of the rest what is not as usual: many servers know only some of it."""
    usual = Sampling()
    said = {name: value for name, value in vars(sampling).items() if name != "temperature"}
    return {"temperature": sampling.temperature} | {
        name: value for name, value in said.items() if value != getattr(usual, name)
    }


def hear_openai(line: bytes) -> Step | None:
    """A line of server-sent events; the reason to end may come before usage and `[DONE]`."""
    if not line.startswith(b"data:"):
        return None
    data = line[5:].strip()
    if data == b"[DONE]":
        return Step(0, end="stop")
    said = json.loads(data)
    if said.get("error"):
        return Step(0, fault=GONE)
    if not said.get("choices"):
        return None
    choice = said["choices"][0]
    text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
    return heard(text, choice, choice.get("finish_reason"))


def hear_ollama(line: bytes) -> Step | None:
    said = json.loads(line)
    if said.get("error"):
        return Step(0, fault=GONE)
    text = (said.get("message") or {}).get("content") or ""
    return heard(text, said, said.get("done_reason", "stop") if said.get("done") else None)


def heard(text: str, said: dict[str, Any], reason: str | None) -> Step:
    """Without what a medmind server adds around a reply: this one adds its own. What is no text is an error."""
    text.encode()
    if "medmind_added" in said or "medmind_note" in said:
        text = ""
    if reason is None:
        return Step(0, text=text)
    return Step(0, text=text, end="length" if reason == "length" else "stop")
