"""What a request in Ollama's own API may say, with the same bounds as in OpenAI's."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from medmind.serve.bodies import (
    MOST_MESSAGES,
    MOST_TEXTS,
    MOST_TOKENS,
    Body,
    Name,
    Penalty,
    Repetition,
    Seed,
    Share,
    Stop,
    Window,
)


def one_for_zero(value: Any) -> Any:
    """LiteLLM hands a frequency_penalty on as this: its 0 is no penalty."""
    return 1 if value == 0 else value


class Options(Body):
    num_ctx: Annotated[int, Field(ge=0, le=MOST_TOKENS)] | None = None
    num_predict: Annotated[int, Field(ge=-2, le=MOST_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=1 << 20)] | None = None
    top_p: Share | None = None
    min_p: Share | None = None
    repeat_penalty: Annotated[Repetition, BeforeValidator(one_for_zero)] | None = None
    repeat_last_n: Window | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    seed: Seed | None = None
    stop: Stop = []


class Talk(Body):
    """What chat and generate share; a context that does not fit is refused whatever truncate and shift say."""

    model: Name
    stream: bool | None = None
    options: Options = Options()
    format: Any = None
    keep_alive: int | float | str | None = None
    think: Any = None
    truncate: bool | None = None
    shift: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def idle(self) -> list[str]:
        idle = {"truncate": self.truncate, "shift": self.shift, "top_logprobs": self.top_logprobs and not self.logprobs}
        return [name for name, said in idle.items() if said]


class ChatMessage(Body):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    images: list[Any] | None = None
    tool_calls: list[Any] | None = None


class ChatBody(Talk):
    messages: Annotated[list[ChatMessage], Field(max_length=MOST_MESSAGES, fail_fast=True)] = []
    tools: list[Any] | None = None


class GenerateBody(Talk):
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    raw: bool | None = None
    context: Any = None
    images: Any = None


class EmbedBody(Body):
    model: Name
    input: str | Annotated[list[str], Field(max_length=MOST_TEXTS, fail_fast=True)]
    truncate: bool | None = None
    dimensions: Annotated[int, Field(ge=1, le=1 << 16)] | None = None
    keep_alive: Any = None

    @property
    def idle(self) -> list[str]:
        return ["truncate"] if self.truncate else []


class EmbeddingBody(Body):
    model: Name
    prompt: str = ""
    keep_alive: Any = None


class ShowBody(Body):
    model: Name | None = None
    name: Name | None = None
    verbose: bool | None = None
