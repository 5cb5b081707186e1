"""The models a server has, by name: how each is spoken to, what it can do, and what a request to it becomes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from medmind.core.errors import DataError
from medmind.core.types import Message
from medmind.infer.decoder import Sampling
from medmind.prompts.chat import Renderer
from medmind.serve.beyond import BEYOND
from medmind.serve.engine import Engine
from medmind.serve.errors import ApiError, refused, too_long, unable


@dataclass(frozen=True)
class Facts:
    """What lists of models say; nothing here changes an answer."""

    created: int
    size: int
    digest: str
    family: str
    parameters: int
    quantisation: str
    licence: str = ""
    parent: str = ""


@dataclass(frozen=True)
class Served:
    """One name. Several may share an engine, each with its own voice."""

    name: str
    engine: Engine
    renderer: Renderer
    system_prompt: str
    sampling: Sampling
    facts: Facts
    max_new_tokens: int
    screened: bool = False
    """Whether patient identifiers are taken out of its replies."""
    voice: str = ""
    noted: bool = False
    """Whether a chat reply without the educational note gets it."""

    @property
    def context(self) -> int:
        return self.engine.context

    @property
    def capabilities(self) -> dict[str, bool]:
        judges, embeds = self.engine.can_judge, self.engine.can_embed
        can = {"chat": True, "completion": self.engine.takes_ids, "echo": judges, "embeddings": embeds}
        return can | {"logprobs": judges and not self.screened} | dict.fromkeys(BEYOND, False)

    def sampling_of(self, said: Mapping[str, Any]) -> Sampling:
        """The model's own settings, except what was said.

        As in llama.cpp a top_k of -1 is all, a top_p of 0 the best alone, and a repeat_last_n of 0 no penalties.
        """
        found = {name: value for name, value in said.items() if value is not None}
        if "top_k" in found:
            found["top_k"] = max(found["top_k"], 0)
        if found.get("top_p") == 0:
            found |= {"top_p": 1.0, "temperature": 0.0}
        last = found.pop("repeat_last_n", None)
        if last == 0:
            found |= {"repeat_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0}
        elif last is not None:
            found["repeat_last_n"] = self.context if last < 0 else min(last, self.context)
        return replace(self.sampling, **found)

    def look_over(self, texts: Iterable[str], param: str) -> None:
        """A text that cannot fit, whatever its tokens are, is refused before they are made: that takes a minute."""
        least = sum(map(len, texts)) // longest_token(self.renderer)
        if least > self.context:
            raise too_long(least, self.context, param, "at least ")

    def prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The ids training would have made of this; the recipe's system prompt unless the client says one."""
        self.look_over((message.text for message in messages), "messages")
        try:
            return self.fitting(self.renderer.prompt(self.conversation(messages)), "messages")
        except DataError as error:
            raise refused(error.what, "messages") from None

    def conversation(self, messages: Sequence[Message]) -> list[Message]:
        said = any(message.role == "system" for message in messages)
        system = [] if said or not self.system_prompt else [Message(role="system", text=self.system_prompt)]
        return [*system, *messages]

    def plain_prompt(self, text: str, special: bool = True, param: str = "prompt") -> tuple[int, ...]:
        self.look_over([text], param)
        return self.encode(text, special)

    def encode(self, text: str, special: bool) -> tuple[int, ...]:
        """As Hugging Face's tokenizers do it: BOS first, where the model has one, and SentencePiece's blank."""
        tokenizer = self.renderer.tokenizer
        begin = [tokenizer.token_id(self.renderer.bos)] if special and self.renderer.adds_bos else []
        return (*begin, *tokenizer.encode(tokenizer.blank + text if text else ""))

    def continued(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """A plain text that fits, of an engine that takes one."""
        if not self.engine.takes_ids:
            raise unable(self.name, "plain completions: its server makes the prompt of a conversation itself")
        return self.fitting(ids, "prompt")

    async def embed(self, ids: tuple[int, ...]) -> list[float]:
        return await self.engine.embed(ids, self.voice)

    def fitting(self, ids: tuple[int, ...], param: str) -> tuple[int, ...]:
        """With room for a token of the reply, unless it is an `input`: nothing follows that."""
        if not ids:
            raise refused("there is nothing in it", param)
        if max(ids) >= self.renderer.tokenizer.vocab_size:
            raise refused(f"token ids must be less than {self.renderer.tokenizer.vocab_size}", param)
        if len(ids) + (param != "input") > self.context:
            raise too_long(len(ids), self.context, param)
        return ids

    def limit(self, prompt: Sequence[int], *asked: int | None) -> int:
        """The smallest of what was asked, what the server allows and what the context leaves."""
        wanted = [count for count in asked if count is not None]
        return max(1, min([*wanted, self.max_new_tokens, self.context - len(prompt)]))


@cache
def longest_token(renderer: Renderer) -> int:
    """In characters."""
    tokenizer = renderer.tokenizer
    return max(map(len, tokenizer.decode_batch([[token] for token in range(tokenizer.vocab_size)])))


class Index:
    """Names lead here and nowhere else, never to a file."""

    def __init__(self, models: Sequence[Served]) -> None:
        self.models = list(models)
        self._by_name = {model.name: model for model in models}
        for model in models:
            longest_token(model.renderer)  # once, and not while the first client waits

    def find(self, name: str | None) -> Served:
        """`x:latest` is x, as in Ollama; no name at all is the only model there is."""
        if name is None and len(self.models) == 1:
            return self.models[0]
        found = self._by_name.get(name or "") or self._by_name.get((name or "").removesuffix(":latest"))
        if not found:
            raise ApiError(404, f"model '{name or ''}' not found", "model_not_found", "model")
        return found

    @property
    def engines(self) -> list[Engine]:
        return list(dict.fromkeys(model.engine for model in self.models))
