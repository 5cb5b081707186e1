"""What a request in Ollama's own API may say, with the same bounds as in OpenAI's."""

from typing import Annotated, Any, Literal

from pydantic import Field

from medmind.serve.bodies import MOST_MESSAGES, MOST_TEXTS, MOST_TOKENS, Body, Name, Penalty, Repetition, Seed, Stop


class Options(Body):
    num_ctx: Annotated[int, Field(ge=0, le=MOST_TOKENS)] | None = None
    num_predict: Annotated[int, Field(ge=-2, le=MOST_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1 << 20)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repeat_penalty: Repetition | None = None
    repeat_last_n: Annotated[int, Field(ge=1, le=4096)] | None = None
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
    options: Any = None
    keep_alive: Any = None


class EmbeddingBody(Body):
    model: Name
    prompt: str = ""
    options: Any = None
    keep_alive: Any = None


class ShowBody(Body):
    model: Name | None = None
    name: Name | None = None
    verbose: bool | None = None
