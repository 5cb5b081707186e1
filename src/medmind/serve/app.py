"""The application: routes, the guard before them, and the one place where errors become answers."""

import logging
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from medmind.serve.beside import Beside
from medmind.serve.completions import Completions
from medmind.serve.config import ServeConfig
from medmind.serve.engine import EngineBroken, EngineBusy, WorkLost
from medmind.serve.errors import ApiError, ClientGone, as_api, error_response
from medmind.serve.guard import Guard, allowed_names
from medmind.serve.ollama import CHANGING, Ollama
from medmind.serve.openai import OpenAI
from medmind.serve.openapi import describe
from medmind.serve.served import Index

log = logging.getLogger("medmind.serve")
NOT_FOUND = {404: "no such route", 405: "this route does not take that method"}


def create_app(index: Index, config: ServeConfig, digest: bytes | None = None) -> ASGIApp:
    """`digest` is the key's."""
    additions = config.additions("")
    openai, beside = OpenAI(index, config.timeout, additions), Beside(index)
    completions = Completions(index, config.timeout)
    said = describe(index)

    async def document(_: Request) -> Response:
        return JSONResponse(said)

    routes = [
        *ollama_routes(Ollama(index, config.timeout, additions)),
        Route("/v1/chat/completions", openai.chat, methods=["POST"]),
        Route("/v1/completions", completions.complete, methods=["POST"]),
        Route("/v1/embeddings", openai.embeddings, methods=["POST"]),
        Route("/v1/models", openai.models),
        Route("/v1/models/{name:path}", openai.model),
        Route("/tokenize", beside.tokenize, methods=["POST"]),
        Route("/detokenize", beside.detokenize, methods=["POST"]),
        Route("/tokenizer_info", beside.tokenizer_info),
        Route("/health", beside.health),
        Route("/metrics", beside.metrics),
        Route("/openapi.json", document),
    ]

    @asynccontextmanager
    async def life(_: Any) -> AsyncIterator[None]:
        yield
        for engine in index.engines:
            engine.close()

    known = (ApiError, HTTPException, EngineBusy, EngineBroken, WorkLost, TimeoutError)
    handlers: dict[Any, Any] = dict.fromkeys((*known, Exception), on_error)
    handlers |= {ClientGone: on_gone, ClientDisconnect: on_gone}
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=life)
    app.router.redirect_slashes = False
    return Guard(app, allowed_names(config.host, config.names), digest, config.log_bodies)


def ollama_routes(ollama: Ollama) -> list[Route]:
    asked = {"chat": ollama.chat, "generate": ollama.generate, "show": ollama.show}
    asked |= {"embed": ollama.embed, "embeddings": ollama.embedding}
    looked_at = {"tags": ollama.tags, "version": ollama.version, "ps": ollama.running}
    every = ["GET", "HEAD", "POST", "PUT", "DELETE"]
    return [
        Route("/", ollama.alive),
        *(Route(f"/api/{name}", handler, methods=["POST"]) for name, handler in asked.items()),
        *(Route(f"/api/{name}", handler) for name, handler in looked_at.items()),
        *(Route(f"/api/{name}", ollama.absent, methods=every) for name in CHANGING),
        Route("/api/blobs/{digest:path}", ollama.absent, methods=every),
    ]


async def on_error(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        text = NOT_FOUND.get(error.status_code, "the request was refused")
        return error_response(request.url.path, ApiError(error.status_code, text, headers=error.headers))
    told = as_api(error)
    if told.status == 500:
        place = traceback.extract_tb(error.__traceback__)[-1]
        log.error("%s in %s, line %s", type(error).__name__, place.filename, place.lineno)
    return error_response(request.url.path, told, getattr(request.state, "added", ""))


async def on_gone(_: Request, __: Exception) -> Response:
    return Response(status_code=499)
