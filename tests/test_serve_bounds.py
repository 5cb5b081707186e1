"""What one request may cost the others: no text that takes a minute to see, no number that breaks a model."""

from typing import Any

import pytest
from serving import QUESTION, RENDERER, REPLY, Fake, listening, post

BIG = "What is rhinitis? " * 10_000


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": BIG[: len(BIG) // 2]}] * 2}),
        ("/v1/completions", {"prompt": ["short", BIG]}),
        ("/v1/embeddings", {"input": BIG}),
        ("/api/chat", {"messages": [{"role": "user", "content": BIG}]}),
        ("/api/generate", {"prompt": BIG, "raw": True}),
        ("/api/embed", {"input": ["short", BIG]}),
        ("/api/embeddings", {"prompt": BIG}),
        ("/tokenize", {"prompt": BIG}),
        ("/detokenize", {"tokens": [5] * len(BIG)}),
    ],
)
def test_a_text_that_cannot_fit_is_refused_before_its_tokens_are_made(
    path: str, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 4 MB that takes a minute, in which nobody is answered."""
    made, encode = [], RENDERER.tokenizer.encode
    monkeypatch.setattr(RENDERER.tokenizer, "encode", lambda text: (made.append(len(text)), encode(text))[1])
    with listening(Fake(context=256)) as url:
        found = post(url, path, model="fake", **body)
    assert found.status_code == 400
    assert max(made, default=0) < 1000
    if path == "/v1/chat/completions":
        error = found.json()["error"]
        assert (error["code"], error["n_ctx"]) == ("context_length_exceeded", 256)
        assert 256 < error["n_prompt_tokens"] <= len(encode(BIG))
        assert f"at least {error['n_prompt_tokens']} tokens" in error["message"]


@pytest.mark.parametrize("least", [1e-320, 1e-40, 0.0])
def test_a_penalty_that_makes_no_numbers_is_refused(least: float) -> None:
    """It broke the model for everyone, three times in a row for good."""
    fake = Fake()
    with listening(fake) as url:
        hot = {"model": "fake", "messages": QUESTION, "temperature": 1.0}
        found = post(url, "/v1/chat/completions", **hot, repetition_penalty=least)
        assert (found.status_code, found.json()["error"]["param"]) == (400, "repetition_penalty")
        found = post(url, "/api/chat", model="fake", messages=QUESTION, options={"repeat_penalty": least})
        assert (found.status_code, list(found.json())) == (400, ["error"])
        low = post(url, "/v1/chat/completions", model="fake", messages=QUESTION, repetition_penalty=0.9)
        assert low.json()["choices"][0]["message"]["content"] == REPLY
        assert len(fake.decoders) == 1


@pytest.mark.parametrize("least", [5e-324, 1e-310, 1e-40])
def test_next_to_no_temperature_is_none(least: float) -> None:
    fake = Fake()
    with listening(fake) as url:
        found = post(url, "/v1/chat/completions", model="fake", messages=QUESTION, temperature=least)
        assert found.json()["choices"][0]["message"]["content"] == REPLY
        assert len(fake.decoders) == 1
