"""What one request may cost the others: no text that takes a minute to see, no number that breaks a model."""

import json
import socket
import time
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from serving import QUESTION, RENDERER, REPLY, Fake, listening, post, until

from medmind.infer.decoder import Sampling
from medmind.infer.slots import penalised
from medmind.safety.red_flags import find_red_flag
from medmind.serve import guard, heard

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
        found = post(url, "/api/chat", model="fake", messages=QUESTION, options={"repeat_penalty": least or 1e-9})
        assert (found.status_code, list(found.json())) == (400, ["error"])
        none = post(url, "/api/chat", model="fake", messages=QUESTION, options={"repeat_penalty": 0}, stream=False)
        assert none.json()["message"]["content"] == REPLY
        low = post(url, "/v1/chat/completions", model="fake", messages=QUESTION, repetition_penalty=0.9)
        assert low.json()["choices"][0]["message"]["content"] == REPLY
        assert len(fake.decoders) == 1


def test_penalties_that_look_far_back_take_no_longer() -> None:
    before = [*range(30_000), 7]
    sampling = Sampling(repeat_penalty=2.0, frequency_penalty=0.5, presence_penalty=0.25)
    started = time.monotonic()
    found = penalised(np.ones(30_001), sampling, before)
    assert time.monotonic() - started < 2
    assert (found[6], found[7], found[30_000]) == (0.5 - 0.5 - 0.25, 0.5 - 1.0 - 0.25, 1.0)


PART = {"type": "text", "text": ""}


@pytest.mark.parametrize(
    "more",
    [
        {"messages": [{"role": "user", "content": [PART] * 140_000}]},
        {"messages": [{"role": "user", "content": [PART] * 5000}]},
        {"tools": [{}] * 1_000_000},
        {"metadata": [[]] * 1_300_000},
        {"whatever": {str(number): 1 for number in range(300_000)}},
    ],
    ids=["parts", "fewer parts", "tools", "lists", "names"],
)
def test_lists_without_an_end_are_refused_before_they_are_read(more: dict[str, Any]) -> None:
    body = json.dumps({"model": "fake", "messages": QUESTION, **more}, separators=(",", ":")).encode()
    assert len(body) < guard.LARGEST_BODY
    with listening(Fake()) as url:
        assert httpx.post(f"{url}/v1/chat/completions", content=body, timeout=20).status_code == 400


def test_as_many_parts_as_anyone_says_are_one_text() -> None:
    parts = [{"type": "text", "text": text} for text in ("What is ", "rhinitis?", *[""] * 4000)]
    fake = Fake()
    with listening(fake) as url:
        found = post(url, "/v1/chat/completions", model="fake", messages=[{"role": "user", "content": parts}])
    assert found.status_code == 200
    assert fake.decoder.asked == [fake.prompt("What is rhinitis?")]


def test_bodies_that_do_not_end_are_bounded_together_and_questions_get_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MOST_COMING", 5 << 20)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4000000\r\n\r\n"
    with listening(Fake()) as url, ExitStack() as clients:
        address = ("127.0.0.1", urlsplit(url).port or 0)
        first, second = (clients.enter_context(socket.create_connection(address)) for _ in range(2))
        for one in (first, second):
            one.settimeout(5)
        first.sendall(head + b" " * 3_900_000)
        until(lambda: guard.Coming.held > 3_800_000)
        second.sendall(head + b" " * 1_500_000)
        refused = second.recv(1 << 16).lower()
        assert refused.startswith(b"http/1.1 503") and b"retry-after: 5" in refused
        assert post(url, "/v1/chat/completions", model="fake", messages=QUESTION).status_code == 200
        first.close()
        until(lambda: guard.Coming.held == 0)
        large = post(url, "/v1/chat/completions", model="fake", messages=QUESTION, user="x" * 3_900_000)
        assert large.status_code == 200


@pytest.mark.parametrize("least", [5e-324, 1e-310, 1e-40])
def test_next_to_no_temperature_is_none(least: float) -> None:
    fake = Fake()
    with listening(fake) as url:
        found = post(url, "/v1/chat/completions", model="fake", messages=QUESTION, temperature=least)
        assert found.json()["choices"][0]["message"]["content"] == REPLY
        assert len(fake.decoders) == 1


def test_few_long_messages_wait_for_what_is_read_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short call for help is read at once, however many long ones there are."""
    monkeypatch.setattr(heard.Waiting, "count", heard.MOST_WAITING)
    long, short = ([{"role": "user", "content": "I can't breathe" + " " * size}] for size in (heard.SHORT, 1))
    with listening(Fake()) as url:
        refused = post(url, "/v1/chat/completions", model="fake", messages=long)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        answered = post(url, "/v1/chat/completions", model="fake", messages=short)
        assert answered.json()["choices"][0]["medmind_added"]


def test_a_message_of_signs_that_stand_for_sentences_is_read_in_time() -> None:
    started = time.monotonic()
    find_red_flag("\ufdfa" * 40_000)
    assert time.monotonic() - started < 2
