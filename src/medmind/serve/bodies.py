"""What a request may say, with a bound on every number and every list; fields nobody knows are kept by name only."""

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import Request

from medmind.serve.errors import ApiError, refused
from medmind.serve.guard import read_body

MOST_TEXTS, MOST_TOKENS, MOST_MESSAGES = 64, 1 << 20, 4096
MOST_LOOSE = 1 << 17
"""Characters or tokens that are only turned into one another: meanwhile nobody else is served."""
MOST_PARTS = 4096
MOST_SIGNS = 1 << 17
"""Lists, objects and names in a body, counted as brackets and colons before it is read: of millions all would wait."""
Count = Annotated[int, Field(ge=1, le=8)]
Tokens = Annotated[int, Field(ge=0, le=MOST_TOKENS)]
NewTokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
Seed = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
StopText = Annotated[str, Field(max_length=256)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]
Ids = Annotated[list[TokenId], Field(min_length=1, max_length=MOST_TOKENS, fail_fast=True)]
Repetition = Annotated[float, Field(ge=0.01, le=10)]
"""Nearer to 0 the logits are no numbers any more."""
Penalty = Annotated[float, Field(ge=-2, le=2)]
Window = Annotated[int, Field(ge=-1, le=MOST_TOKENS)]
"""Tokens back: -1 is the whole context."""
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Some = Field(min_length=1, max_length=MOST_TEXTS, fail_fast=True)
Texts = str | Annotated[list[str], Some] | Ids | Annotated[list[Ids], Some]


def listed(value: Any) -> Any:
    """A stop may be one text."""
    return [value] if isinstance(value, str) else [] if value is None else value


def unless_false(value: Any) -> Any:
    """Some say false of what is a number."""
    return None if value is False else value


Stops = Annotated[list[StopText], Field(max_length=16)]
Stop = Annotated[Stops, BeforeValidator(listed, json_schema_input_type=Stops | StopText | None)]


def said(name: str) -> dict[str, Any]:
    """For the document: a text under this name."""
    return {"required": [name], "properties": {name: {"type": "string"}}}


class Body(BaseModel):
    """What is null is absent."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def without_nulls(cls, value: Any) -> Any:
        return {name: one for name, one in value.items() if one is not None} if isinstance(value, dict) else value

    @property
    def idle(self) -> list[str]:
        """Fields that are known, and mean nothing as they were said."""
        return []

    @property
    def ignored(self) -> list[str]:
        """What was said and means nothing here, also in messages and options."""
        found = {*self.idle, *(self.model_extra or {})}
        for _, value in self:
            inner = value if isinstance(value, list) and value and isinstance(value[0], Body) else [value]
            found.update(*(one.ignored for one in inner if isinstance(one, Body)))
        return sorted(found)


class Part(Body):
    type: str
    text: str | None = None


class ChatMessage(Body):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[Part], Field(max_length=MOST_PARTS, fail_fast=True)] | None = None
    tool_calls: list[Any] | None = None
    function_call: Any = None


class StreamOptions(Body):
    include_usage: bool = False


class ResponseFormat(Body):
    type: str = "text"


class Asked(Body):
    """What both of OpenAI's endpoints share. What is accepted and has no meaning here stands without a type."""

    model: Name
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Field(ge=-1, le=1 << 20)] | None = None
    min_p: Share | None = None
    repetition_penalty: Repetition | None = None
    repeat_last_n: Window | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    seed: Seed | None = None
    n: Count | None = None
    stop: Stop = []
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logit_bias: Any = None
    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None


class ChatBody(Asked):
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)]
    max_tokens: NewTokens | None = None
    max_completion_tokens: NewTokens | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None

    @property
    def idle(self) -> list[str]:
        return ["top_logprobs"] if self.top_logprobs and not self.logprobs else []


class CompletionBody(Asked):
    prompt: Texts
    max_tokens: Tokens | None = None
    logprobs: Annotated[Annotated[int, Field(ge=0, le=20)] | None, BeforeValidator(unless_false)] = None
    echo: bool | None = None
    best_of: Count | None = None
    suffix: str | None = None
    add_special_tokens: bool = True


class EmbeddingBody(Body):
    model: Name
    input: Texts
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, le=1 << 16)] | None = None
    user: Any = None


class TokenizeBody(Body):
    model_config = ConfigDict(json_schema_extra={"anyOf": [said("prompt"), said("content")]})
    model: Name | None = None
    prompt: str | None = None
    content: str | None = None
    add_special_tokens: bool = True
    add_special: bool | None = None
    """llama.cpp's word for it, beside `content`; there it begins with nothing unless asked."""
    parse_special: bool = True


class DetokenizeBody(Body):
    model: Name | None = None
    tokens: Annotated[list[TokenId], Field(max_length=MOST_LOOSE, fail_fast=True)]


B = TypeVar("B", bound=BaseModel)


async def read(request: Request, kind: type[B], missing: str = "missing request body") -> B:
    """The body as this kind; what is wrong with it is told by field, never by what stood there."""
    raw = await read_body(request)
    if not raw.strip():
        raise refused(missing, code="missing_body")
    if sum(map(raw.count, (b"[", b"{", b":"))) > MOST_SIGNS:
        raise refused(f"the body has more than {MOST_SIGNS} brackets and colons")
    try:
        value = json.loads(raw.decode("utf-8-sig"))
        if b"\\u" in raw:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # not JSON, not UTF-8, half a character, a number too long, too deep
        raise refused("the body is not JSON in UTF-8", code="invalid_json") from None
    if not isinstance(value, dict):
        raise refused("the body must be a JSON object")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise fault(error) from None


def fault(error: ValidationError) -> ApiError:
    found = error.errors(include_url=False, include_input=False, include_context=False)[0]
    param = str(found["loc"][0]) if found["loc"] else ""
    match found["loc"]:
        case ("options", str(name), *_):
            place = f'option "{name}"'
        case (_, int(number), str(name), *_):
            place = f"{param}[{number}].{name}"
        case _:
            place = param
    return refused(f"{place}: {found['msg'][:1].lower()}{found['msg'][1:]}", param=param)
