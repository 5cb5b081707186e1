"""What went wrong, in the words of whichever API was asked: OpenAI's object, or Ollama's one line."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from medmind.serve.engine import EngineBroken, EngineBusy, EngineGone, WorkLost

KINDS = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error"}


class ApiError(Exception):
    """`code` is OpenAI's, `more` are further facts for its error object."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: int,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers or {}) | ({"x-should-retry": "false"} if status in (500, 504) else {})
        self.more = more


class ClientGone(Exception):
    """Nobody is there to be answered."""


def refused(message: str, param: str | None = None, code: str | None = "invalid_value") -> ApiError:
    return ApiError(400, message, code, param)


def unable(model: str, what: str, param: str | None = None) -> ApiError:
    """For what an engine cannot do; /v1/models says what it can."""
    return ApiError(400, f'"{model}" does not support {what}', "unsupported", param)


def too_long(prompt: int, context: int, param: str, about: str = "") -> ApiError:
    """Nothing follows an `input`."""
    most = f"the context of {context} must hold it" + ("" if param == "input" else " and at least one of the reply")
    message = f"the {'input' if param == 'input' else 'prompt'} has {about}{prompt} tokens, and {most}"
    return ApiError(400, message, "context_length_exceeded", param, n_prompt_tokens=prompt, n_ctx=context)


def as_api(error: Exception) -> ApiError:
    """What a client hears of any error: nothing of another's text, nothing of the machine."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, EngineBusy):
        text = "server busy, please try again.  maximum pending requests exceeded"
        return ApiError(503, text, "queue_full", headers={"retry-after": str(error.seconds)})
    if isinstance(error, EngineGone):
        text = "the model runs no more: the server must be started again"
        return ApiError(503, text, "engine_gone", headers={"x-should-retry": "false"})
    if isinstance(error, EngineBroken):
        return ApiError(
            503, "the model failed at work and is being started again", "engine_failed", headers={"retry-after": "5"}
        )
    if isinstance(error, WorkLost):
        return ApiError(502, str(error), "no_answer")
    if isinstance(error, TimeoutError):
        return ApiError(504, "the answer took longer than this server allows", "timeout")
    return ApiError(500, "internal error", "internal_error")


def speaks_ollama(path: str) -> bool:
    return path.startswith("/api/")


def error_body(path: str, error: ApiError, added: str = "") -> dict[str, Any]:
    """`added` is what would have stood before the answer: no message in need meets a bare error."""
    more = {"medmind_added": added} if added else {}
    if speaks_ollama(path):
        return {"error": error.message, **more}
    kind = KINDS.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    told = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    return {"error": {**told, **error.more, **more}}


def error_response(path: str, error: ApiError, added: str = "") -> Response:
    body = json.dumps(error_body(path, error, added))
    return Response(body, error.status, error.headers, "application/json")
