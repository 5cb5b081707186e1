"""Whatever the OpenAPI document allows, and much that it does not: no unexpected 5xx, errors in the right dialect."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from serving import Fake, listening, post

QUIET = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
UNABLE = {
    *("tools", "tool_choice", "response_format", "logit_bias", "suffix", "best_of", "logprobs", "num_ctx"),
    *("format", "think", "template", "context", "images", "dimensions"),
}
"""What the document names and no model here does; the errors say so, and /v1/models lists it."""


@pytest.fixture(scope="module")
def schemathesis() -> Any:
    return pytest.importorskip("schemathesis", reason="needs schemathesis")


@pytest.mark.slow
def test_every_request_gets_an_answer_of_its_dialect(schemathesis: Any) -> None:
    valid, invalid = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
    with listening(Fake(slots=8, queue=1000, screened=True), Fake("org/plain", queue=1000)) as url:
        operations = [one.ok() for one in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations()]
        assert len(operations) > 20
        for operation in operations:
            seen: Counter[int] = Counter()
            ask_all(operation.as_strategy(generation_mode=valid), seen)
            if operation.body or operation.query or operation.path_parameters:
                ask_all(operation.as_strategy(generation_mode=invalid), seen)
            print(f"{operation.label}: {dict(seen)}")
            assert seen[200] or "501" in operation.definition.raw["responses"], operation.label
            if operation.body:
                assert seen[200] > 50 and seen[400] > 20, f"{operation.label} is hardly asked: {seen}"


def ask_all(strategy: Any, seen: Counter[int]) -> None:
    QUIET(given(case=strategy)(lambda case: check(case, seen)))()


def check(case: Any, seen: Counter[int]) -> None:
    answer = case.call()
    seen[answer.status_code] += 1
    judge(case, answer)
    if answer.status_code == 400 and isinstance(case.body, dict):
        case.body = within_ability(case.body)
        answer = case.call()
        seen[answer.status_code] += 1
        judge(case, answer)


def judge(case: Any, answer: Any) -> None:
    assert str(answer.status_code) in case.operation.definition.raw["responses"], answer.text
    assert answer.status_code < 500 or answer.status_code == 501, answer.text
    assert answer.headers["x-request-id"]
    if answer.status_code >= 400:
        of_its_dialect(case.path, answer.json()["error"])


def of_its_dialect(path: str, error: Any) -> None:
    assert isinstance(error, str) == path.startswith("/api/")
    if not isinstance(error, str):
        assert error["message"] and error["type"] and {"param", "code"} <= set(error)


def within_ability(body: dict[str, Any]) -> dict[str, Any]:
    """The same without what no model here does, and with something to answer."""
    kept = {name: value for name, value in body.items() if name not in UNABLE}
    if isinstance(kept.get("options"), dict):
        kept["options"] = {name: value for name, value in kept["options"].items() if name not in UNABLE}
    if isinstance(kept.get("tokens"), list):
        kept["tokens"] = [token % 8192 for token in kept["tokens"] if isinstance(token, int)]
    if kept.get("raw"):
        kept.pop("system", None)
    for name in {"prompt", "input"} & kept.keys():
        if not isinstance(kept[name], str):
            kept[name] = [3, 4]
    if "messages" in kept:
        kept["messages"] = [{"role": "user", "content": "What is rhinitis?"}]
    return kept


@pytest.fixture(scope="module")
def document() -> Iterator[tuple[str, dict[str, Any]]]:
    with listening(Fake(), Fake("org/plain")) as url:
        yield url, httpx.get(f"{url}/openapi.json").json()


def test_other_methods_are_refused_in_the_right_dialect(document: tuple[str, dict[str, Any]]) -> None:
    url, told = document
    for path in told["paths"]:
        answer = httpx.patch(url + path.format(name="fake"))
        assert answer.status_code == 405 and answer.headers["x-request-id"]
        of_its_dialect(path, answer.json()["error"])


def test_the_document_names_what_is_served_and_what_may_go_wrong(document: tuple[str, dict[str, Any]]) -> None:
    _, told = document
    names = ["fake", "fake:latest", "org/plain", "org/plain:latest"]
    chat, show = (told["paths"][path]["post"] for path in ("/v1/chat/completions", "/api/show"))
    asked, looked_up = (
        one["requestBody"]["content"]["application/json"]["schema"]["properties"] for one in (chat, show)
    )
    assert asked["model"] == {"enum": names}
    assert looked_up["model"] == looked_up["name"] == {"enum": [*names, None]}
    wrong = {"400", "401", "403", "404", "405", "408", "413", "415", "500", "502", "503", "504"}
    assert chat["responses"].keys() == {"200", *wrong}
    assert told["paths"]["/api/pull"]["post"]["responses"].keys() == {"501"}


def test_what_the_document_allows_is_taken(document: tuple[str, dict[str, Any]]) -> None:
    """A stop may be one text; an empty list is no prompt, in the document as on the wire."""
    url, told = document
    chat = told["paths"]["/v1/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"string", "array", "null"} == {one["type"] for one in chat["properties"]["stop"]["anyOf"]}
    assert all(one["minItems"] == 1 for one in chat["properties"]["prompt"]["anyOf"] if one["type"] == "array")
    asked = {"model": "fake", "prompt": "nose", "max_tokens": 2}
    answers = [post(url, "/v1/completions", **asked, stop=stop) for stop in ("x", ["x"], [], None, False, 0)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 400, 400]
    assert post(url, "/v1/embeddings", model="fake", input=[]).status_code == 400
    assert post(url, "/tokenize", model="fake").status_code == 400
