"""The OpenAPI document of what this server answers, from the same classes that check the requests."""

from importlib.metadata import version
from typing import Any

from pydantic import BaseModel

from medmind.serve import bodies, ollama_bodies
from medmind.serve.ollama import ABSENT, CHANGING
from medmind.serve.served import Index

ASKED: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": bodies.ChatBody,
    "/v1/completions": bodies.CompletionBody,
    "/v1/embeddings": bodies.EmbeddingBody,
    "/api/chat": ollama_bodies.ChatBody,
    "/api/generate": ollama_bodies.GenerateBody,
    "/api/show": ollama_bodies.ShowBody,
    "/api/embed": ollama_bodies.EmbedBody,
    "/api/embeddings": ollama_bodies.EmbeddingBody,
    "/tokenize": bodies.TokenizeBody,
    "/detokenize": bodies.DetokenizeBody,
}
LOOKED_AT = (
    "/", "/v1/models", "/api/tags", "/api/version", "/api/ps", "/tokenizer_info", "/health", "/metrics", "/openapi.json"
)  # fmt: skip
REFUSALS = {
    "401": "a key is needed",
    "403": "a foreign Host or Origin",
    "404": "no such model",
    "405": "this address does not take that method",
    "500": "a fault of this server",
}
OF_BODIES = {
    "400": "what is wrong with the request",
    "408": "the body did not arrive in time",
    "413": "the body is too large",
    "415": "the body is packed with something else than gzip or deflate",
    "502": "the model was lost, or the server behind it",
    "503": "the queue is full, or the model is being started again",
    "504": "the answer took longer than this server allows",
}


def describe(index: Index) -> dict[str, Any]:
    """A request for any model but the served ones gets a 404, so the document names these."""
    names = [name for model in index.models for name in (model.name, f"{model.name}:latest")]
    paths: dict[str, Any] = {path: {"get": operation({})} for path in LOOKED_AT}
    paths["/health"] = {"get": operation({"503": "a model is not well"})}
    paths |= {f"/api/{name}": {"post": {"responses": {"501": {"description": ABSENT}}}} for name in CHANGING}
    paths["/tokenizer_info"] = {"get": operation({}, parameters=[parameter("model", "query", names)])}
    paths["/v1/models/{name}"] = {"get": operation({}, parameters=[parameter("name", "path", names)])}
    schemas: dict[str, Any] = {}
    for path, kind in ASKED.items():
        prefix = "Ollama" if path.startswith("/api") else ""
        schema = kind.model_json_schema(ref_template=f"#/components/schemas/{prefix}{{model}}")
        schemas |= {f"{prefix}{part}": one for part, one in schema.pop("$defs", {}).items()}
        for name in {"model", "name"} & schema["properties"].keys():
            needed = name in schema.get("required", ())
            schema["properties"][name] = {"enum": names if needed else [*names, None]}
        content = {"application/json": {"schema": schema}}
        paths[path] = {"post": operation(OF_BODIES, requestBody={"required": True, "content": content})}
    return {
        "openapi": "3.1.0",
        "info": {"title": "medmind", "version": version("medmind")},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def parameter(name: str, place: str, names: list[str]) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": {"enum": names}}


def operation(refusals: dict[str, str], **more: Any) -> dict[str, Any]:
    told = {"200": "the answer", **REFUSALS, **refusals}
    return {"responses": {code: {"description": text} for code, text in sorted(told.items())}, **more}
