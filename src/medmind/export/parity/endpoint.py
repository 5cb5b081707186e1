"""A model behind an OpenAI-compatible address, as far as parity needs it: no key, text in and text out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medmind.core.errors import EnvironmentFault
from medmind.core.types import Message
from medmind.infer.wire import Refused, Wire

TIMEOUT = 600.0


@dataclass(frozen=True)
class Said:
    text: str
    stopped: bool
    prompt_tokens: int | None


class Endpoint:
    name, dtype = "endpoint", "unknown"

    def __init__(self, url: str, model: str = "default") -> None:
        self.url, self.model = url.rstrip("/").removesuffix("/v1"), model
        self._wire = Wire(self.url, timeout=TIMEOUT, tries=2, pause=0)

    def ask(self, messages: Sequence[Message], max_tokens: int) -> Said:
        body = {"model": self.model, "temperature": 0, "seed": 0, "max_tokens": max_tokens, "stream": False}
        said = [{"role": message.role, "content": message.text} for message in messages]
        found = self._post("/v1/chat/completions", body | {"messages": said})
        try:
            choice = found["choices"][0]
            tokens = found.get("usage", {}).get("prompt_tokens")
            return Said(choice["message"]["content"] or "", choice["finish_reason"] == "stop", tokens)
        except (KeyError, IndexError, TypeError):
            raise self._fault("not the answer of an OpenAI-compatible server") from None

    def tokenize(self, text: str) -> list[int] | None:
        """The ids of a text without BOS, control tokens read as text; None where the server offers no such thing."""
        try:
            found = self._post("/tokenize", {"content": text, "add_special": False, "parse_special": False})
        except EnvironmentFault:
            return None
        ids = found.get("tokens") if isinstance(found, dict) else None
        return ids if isinstance(ids, list) and all(isinstance(one, int) for one in ids) else None

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        try:
            return self._wire.ask(path, body)
        except Refused as refusal:
            raise self._fault(f"does not answer: {refusal}") from None
        except EnvironmentFault as fault:
            raise self._fault(f"does not answer: {fault.what}") from None

    def _fault(self, what: str) -> EnvironmentFault:
        return EnvironmentFault(what, where=self.url, todo="check that the server runs and serves this model")
