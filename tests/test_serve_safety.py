"""What the server puts around a reply is marked, streamed or not, in both dialects; measured is the reply alone."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from serving import QUESTION, RENDERER, REPLY, SYSTEM, Fake, listening, post, until

from medmind.core.jsonl import read_json, write_jsonl
from medmind.core.rundir import RunDir
from medmind.core.types import Example, Message
from medmind.evaluate.config import EvaluateConfig
from medmind.evaluate.run import evaluate_model
from medmind.infer.endpoint import ChatEndpoint, IdEndpoint, open_endpoint
from medmind.safety.texts import EMERGENCY, NOTE

CHATS = ("/v1/chat/completions", "/api/chat")
IN_NEED = [{"role": "user", "content": "I can't breathe"}]
TEXT = EMERGENCY["en"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    fake = Fake(context=600)
    fake.served = replace(fake.served, noted=True)
    with listening(fake) as address:
        yield address


def test_openai_whole_and_streamed(url: str) -> None:
    body = {"model": "fake", "messages": IN_NEED}
    (choice,) = post(url, "/v1/chat/completions", **body).json()["choices"]
    assert choice["message"]["content"] == f"{TEXT}\n\n{REPLY}\n\n{NOTE}"
    assert (choice["medmind_added"], choice["medmind_note"]) == (TEXT, NOTE)
    lines = post(url, "/v1/chat/completions", **body, stream=True).text.split("\n\n")
    chunks = [json.loads(line[6:])["choices"][0] for line in lines if line.startswith("data: {")]
    assert "".join(chunk["delta"].get("content", "") for chunk in chunks) == f"{TEXT}\n\n{REPLY}\n\n{NOTE}"
    assert [chunk["medmind_added"] for chunk in chunks if "medmind_added" in chunk] == [TEXT]
    assert [chunk["medmind_note"] for chunk in chunks if "medmind_note" in chunk] == [NOTE]


def test_ollama_whole_and_streamed(url: str) -> None:
    body = {"model": "fake", "messages": IN_NEED}
    whole = post(url, "/api/chat", **body, stream=False).json()
    assert whole["message"]["content"] == f"{TEXT}\n\n{REPLY}\n\n{NOTE}"
    assert (whole["medmind_added"], whole["medmind_note"]) == (TEXT, NOTE)
    lines = [json.loads(line) for line in post(url, "/api/chat", **body).text.splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == f"{TEXT}\n\n{REPLY}\n\n{NOTE}"
    assert lines[-1]["done"]


def test_who_learns_gets_no_emergency_text_and_plain_completions_nothing(url: str) -> None:
    (choice,) = post(url, "/v1/chat/completions", model="fake", messages=QUESTION).json()["choices"]
    assert choice["message"]["content"] == f"{REPLY}\n\n{NOTE}"
    assert "medmind_added" not in choice
    (plain,) = post(url, "/v1/completions", model="fake", prompt="I can't breathe", max_tokens=64).json()["choices"]
    assert TEXT not in plain["text"]
    assert NOTE not in plain["text"]


def test_a_reply_that_has_the_note_gets_no_second() -> None:
    fake = Fake(write=lambda _: "It is educational.")
    fake.served = replace(fake.served, noted=True)
    with listening(fake) as address:
        (choice,) = post(address, "/v1/chat/completions", model="fake", messages=QUESTION).json()["choices"]
    assert choice["message"]["content"] == "It is educational."


@contextmanager
def busy(queue: int) -> Iterator[tuple[Fake, str]]:
    """Its one slot is taken for seconds."""
    fake = Fake(write=lambda _: "word " * 200, slots=1, queue=queue, context=600)
    fake.decoder.pause = 0.03
    with listening(fake) as address:
        body = {"model": "fake", "messages": QUESTION, "stream": True}
        with httpx.stream("POST", address + CHATS[0], json=body, timeout=20) as found:
            lines = found.iter_lines()  # gone, it would leave
            next(lines)
            yield fake, address


@pytest.mark.parametrize("path", [*CHATS, "/api/generate"])
def test_the_emergency_text_waits_for_no_model(path: str) -> None:
    asked = {"prompt": IN_NEED[0]["content"]} if path == "/api/generate" else {"messages": IN_NEED}
    wanted = 3 if path == CHATS[0] else 1
    body = {"model": "fake", "stream": True, **asked, **({"n": 3} if wanted > 1 else {})}
    with busy(queue=1) as (fake, address), httpx.stream("POST", address + path, json=body, timeout=20) as found:
        lines = found.iter_lines()
        for _ in range(wanted):
            assert TEXT in next(line for line in lines if "medmind_added" in line)
        assert (fake.engine.queued, len(fake.decoder.asked)) == (wanted, 1)


def test_a_refusal_keeps_its_status_and_brings_the_emergency_text() -> None:
    with busy(queue=0) as (_, address):
        for path in CHATS:
            for stream in (True, False):
                found = post(address, path, model="fake", messages=IN_NEED, stream=stream)
                assert found.status_code == 503 and int(found.headers["retry-after"]) >= 1
                assert added_to(found) == TEXT
            assert added_to(post(address, path, model="fake", messages=QUESTION)) is None


def added_to(found: httpx.Response) -> str | None:
    error = found.json()["error"]
    return (error if isinstance(error, dict) else found.json()).get("medmind_added")


def test_neither_too_long_a_conversation_nor_a_broken_model_is_a_bare_error() -> None:
    fake = Fake()
    long = [{"role": "user", "content": f"I can't breathe. {'nose ' * 20_000}"}]
    parts = [{"role": "user", "content": [{"type": "text", "text": "I can't breathe"}, {"type": "image_url"}]}]
    with listening(fake) as address:
        for path in CHATS:
            found = post(address, path, model="fake", messages=long)
            assert (found.status_code, added_to(found)) == (400, TEXT)
            found = post(address, path, model="other", messages=IN_NEED)
            assert (found.status_code, added_to(found)) == (404, TEXT)
            opened = len(fake.decoders)
            fake.decoder.fault = "out of memory"
            found = post(address, path, model="fake", messages=IN_NEED, stream=False)
            assert (found.status_code, added_to(found)) == (503, TEXT)
            until(lambda opened=opened: len(fake.decoders) > opened)  # type: ignore[misc]
        assert added_to(post(address, CHATS[0], model="fake", messages=parts)) == TEXT
        assert added_to(post(address, "/api/generate", model="fake", prompt=long[0]["content"])) == TEXT


@pytest.mark.parametrize("path", CHATS)
@pytest.mark.parametrize("own", ["", " Ring the ward. "])
def test_the_model_hears_its_replies_as_it_said_them(path: str, own: str) -> None:
    fake = Fake(context=600)
    fake.served = replace(fake.served, noted=True)
    with listening(fake, emergency_text=own) as address:
        first = post(address, path, model="fake", messages=IN_NEED, stream=False).json()
        said = (first["choices"][0] if "choices" in first else first)["message"]["content"]
        assert said == f"{own or TEXT}\n\n{REPLY}\n\n{NOTE}"
        turns = [*IN_NEED, {"role": "assistant", "content": said}, *QUESTION]
        post(address, path, model="fake", messages=turns, stream=False)
        assert fake.decoder.asked[-1] == ids_of(IN_NEED[0]["content"], REPLY, QUESTION[0]["content"])
        turns[1] = {"role": "assistant", "content": own or TEXT}
        post(address, path, model="fake", messages=turns, stream=False)
        assert fake.decoder.asked[-1] == ids_of(f"{IN_NEED[0]['content']}\n\n{QUESTION[0]['content']}")


def ids_of(*texts: str) -> tuple[int, ...]:
    """What training makes of these turns."""
    said = [Message(role="user" if place % 2 == 0 else "assistant", text=text) for place, text in enumerate(texts)]
    return RENDERER.render([Message(role="system", text=SYSTEM), *said]).ids


@pytest.mark.parametrize("ending", ["", "/api/chat", "/v1/chat/completions"])
def test_the_server_is_measured_through_every_api(url: str, ending: str, tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    turn = Message(role="user", text="I can't breathe")
    write_jsonl(run.suite("own"), [Example(id="1", source="t", task="qa", turns=(turn,), target=REPLY)])
    found = open_endpoint(url + ending, "", RENDERER.tokenizer, 4096)
    assert isinstance(found, ChatEndpoint if ending else IdEndpoint)
    evaluate_model(EvaluateConfig(max_new_tokens=64), run, "endpoint-fake", "fake", found, RENDERER, "", 0)
    scores = read_json(run.scores("own", "endpoint-fake"))
    assert scores["metrics"]["chrf"]["value"] == 1.0
    assert scores["engine"].startswith("endpoint ollama" if "api" in ending else "endpoint medmind")
    assert ("heldout_loss" in scores["metrics"]) == (not ending)
