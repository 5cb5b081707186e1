"""Another server as an engine: every API passed on in streams, what it cannot is said, leaving frees it too."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from queue import SimpleQueue

import httpx
import pytest
from serving import QUESTION, RENDERER, REPLY, SYSTEM, Fake, listening, post, serving, until

from medmind.cli.targets import ENDPOINT_KEY, open_targets, read_target
from medmind.core.errors import UsageError
from medmind.infer.decode_endpoint import GONE, EndpointDecoder
from medmind.infer.wire import Stream
from medmind.models.catalog import find_model
from medmind.serve.app import create_app
from medmind.serve.config import ServeConfig
from medmind.serve.open import Speaker, open_remote
from medmind.serve.served import Index, Served

ENDINGS = ("", "/v1/chat/completions", "/api/chat")


@pytest.fixture
def far() -> Iterator[tuple[Fake, str]]:
    fake = Fake("far", slots=2)
    with listening(fake) as url:
        yield fake, url


def remote(url: str) -> Served:
    speaker = Speaker("", find_model("nano"), RENDERER, SYSTEM, 0.0)
    return open_remote(speaker, url, "", ServeConfig(redact_phi=False, max_concurrent=2))


def near(url: str) -> "tuple[Served, object]":
    model = remote(url)
    return model, create_app(Index([model]), ServeConfig(timeout=20))


@pytest.mark.parametrize("ending", ENDINGS)
def test_each_api_passes_each_api_on(far: tuple[Fake, str], ending: str) -> None:
    fake, there = far
    model, app = near(there + ending)
    assert model.name == "far"
    with serving(app) as url:
        whole = post(url, "/v1/chat/completions", model="far", messages=QUESTION).json()
        line = post(url, "/api/chat", model="far", messages=QUESTION, stream=False).json()
        with httpx.stream("POST", f"{url}/api/generate", json={"model": "far", "prompt": "What is rhinitis?"}) as found:
            pieces = found.read().count(b'"done":false') + found.read().count(b'"done": false')
    assert whole["choices"][0]["message"]["content"] == line["message"]["content"] == REPLY
    assert whole["choices"][0]["finish_reason"] == line["done_reason"] == "stop"
    assert pieces > 5
    assert whole["usage"]["completion_tokens"] == line["eval_count"] > 5
    assert fake.prompt(QUESTION[0]["content"]) in fake.decoder.asked


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_system_prompt_is_the_one_of_this_server(far: tuple[Fake, str], ending: str) -> None:
    fake, there = far
    model = replace(remote(there + ending), system_prompt="You are brief.")
    with serving(create_app(Index([model]), ServeConfig(timeout=20))) as url:
        post(url, "/v1/chat/completions", model="far", messages=QUESTION)
        own = [{"role": "system", "content": "You are kind."}, *QUESTION]
        post(url, "/api/chat", model="far", messages=own, stream=False)
    asked = [fake.prompt(QUESTION[0]["content"], system) for system in ("You are brief.", "You are kind.")]
    assert fake.decoder.asked[-2:] == asked


@pytest.mark.parametrize("ending", ENDINGS)
def test_limits_heat_and_stops_are_passed_on(far: tuple[Fake, str], ending: str) -> None:
    fake, there = far
    _, app = near(there + ending)
    seen = []
    begin = fake.decoder.begin
    fake.decoder.begin = lambda slot, work: (seen.append(work), begin(slot, work))  # type: ignore[method-assign]
    asked = {"model": "far", "messages": QUESTION}
    hot = {"temperature": 0.5, "seed": 7, "top_p": 0.9}
    with serving(app) as url:
        short = post(url, "/v1/chat/completions", **asked, **hot, max_tokens=3).json()["choices"][0]
        cut = post(url, "/v1/chat/completions", **asked, stop=["nose"]).json()["choices"][0]
        post(url, "/api/chat", **asked, stream=False, options={"repeat_penalty": 1.3, "repeat_last_n": 9})
    assert (seen[0].max_new_tokens, short["finish_reason"]) == (3, "length")
    sampling = seen[0].sampling
    assert (sampling.temperature, sampling.seed, sampling.top_p, sampling.top_k) == (0.5, 7, 0.9, 0)
    assert (cut["message"]["content"], cut["finish_reason"]) == ("Rhinitis is swelling of the", "stop")
    assert (seen[2].sampling.repeat_penalty, seen[2].sampling.repeat_last_n) == (1.3, 9)


class Deaf(Served):
    """Writes on, whatever was asked."""

    def limit(self, prompt: Sequence[int], *asked: int | None) -> int:
        return 100


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_server_that_does_not_stop_is_stopped(ending: str) -> None:
    fake = Fake("far", lambda _: "word " * 200)
    fake.served = Deaf(**vars(fake.served))
    with listening(fake) as there:
        _, app = near(there + ending)
        before = fake.engine.counts["new_tokens"]
        with serving(app) as url:
            found = post(url, "/v1/chat/completions", model="far", messages=QUESTION, max_tokens=5).json()
            until(lambda: fake.engine.busy == 0)
    assert (found["choices"][0]["finish_reason"], found["usage"]["completion_tokens"]) == ("length", 5)
    tokenizer = RENDERER.tokenizer
    assert found["choices"][0]["message"]["content"] == tokenizer.decode(tokenizer.encode("word " * 9)[:5]).strip()
    assert fake.engine.counts["new_tokens"] - before < 60, "it was left, not waited for"


def test_plain_text_goes_where_ids_are_taken_and_what_cannot_be_is_said(far: tuple[Fake, str]) -> None:
    _, there = far
    for ending in ENDINGS:
        _, app = near(there + ending)
        with serving(app) as url:
            can = httpx.get(f"{url}/v1/models").json()["data"][0]["capabilities"]
            plain = post(url, "/v1/completions", model="far", prompt="Rhinitis", max_tokens=40)
            judged = post(url, "/v1/completions", model="far", prompt="Rhinitis", logprobs=1, echo=True, max_tokens=1)
            chat = post(url, "/v1/chat/completions", model="far", messages=QUESTION, logprobs=True)
            vector = post(url, "/v1/embeddings", model="far", input="nose")
        assert can["completion"] == (ending == "") == (plain.status_code == 200)
        assert not (can["echo"] or can["logprobs"] or can["embeddings"])
        for refused in (judged, chat, vector, *([plain] if ending else [])):
            assert refused.status_code == 400
            assert "does not support" in refused.json()["error"]["message"]


def test_whoever_leaves_frees_the_slot_there_too(far: tuple[Fake, str]) -> None:
    fake, there = far
    model, app = near(there)
    fake.decoder.pause = 0.05
    with serving(app) as url:
        body = {"model": "far", "messages": QUESTION, "stream": True}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body) as found:
            next(found.iter_lines())
            assert fake.engine.busy == model.engine.busy == 1
        until(lambda: fake.engine.busy == model.engine.busy == 0)
        assert fake.engine.counts["cancelled"] == 1


def test_a_server_that_fails_or_is_gone_is_said_and_the_next_one_served(
    far: tuple[Fake, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medmind.serve.beside.FRESH", 0)
    fake, there = far
    model, app = near(there)
    with serving(app) as url:
        fake.decoder.fault = "no memory"
        lost = post(url, "/v1/chat/completions", model="far", messages=QUESTION)
        assert (lost.status_code, lost.json()["error"]["code"]) == (502, "no_answer")
        assert post(url, "/api/chat", model="far", messages=QUESTION, stream=False).status_code == 200
        assert httpx.get(f"{url}/health").status_code == 200
        fake.engine.close()
        lost = post(url, "/api/chat", model="far", messages=QUESTION, stream=False)
        assert (lost.status_code, "server behind this model" in lost.json()["error"]) == (502, True)
        assert httpx.get(f"{url}/health").status_code == 503
        assert model.engine.counts["failed"] >= 2


FAR = """
import sys
sys.path.insert(0, sys.argv[1])
from serving import Fake, ServeConfig, app_of, server
fake = Fake("far")
fake.decoder.pause = 0.05
server(app_of(fake), ServeConfig(port=int(sys.argv[2]))).run()
"""


@contextmanager
def kept_port() -> Iterator[int]:
    """A port nobody else is given while it is kept; whoever names it may listen there, on Linux."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@contextmanager
def another_process(port: int) -> Iterator[str]:
    """A server of its own, killed without a word when the block ends."""
    words = [sys.executable, "-c", FAR, str(Path(__file__).parent), str(port)]
    process, url = (
        subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL),
        f"http://127.0.0.1:{port}",
    )
    try:
        until(lambda: process.poll() is not None or answers(url), 30)
        yield url
    finally:
        process.kill()
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("ending", ["", "/api/chat"])
def test_a_server_that_is_killed_is_said_and_used_again_when_it_is_back(
    ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medmind.serve.beside.FRESH", 0)
    body = {"model": "far", "messages": QUESTION, "stream": True}
    with ExitStack() as stack:
        port = stack.enter_context(kept_port())
        with another_process(port) as there:
            model, app = near(there + ending)
            url = stack.enter_context(serving(app))
            found = stack.enter_context(httpx.stream("POST", f"{url}/v1/chat/completions", json=body))
            lines = found.iter_lines()
            first = list(islice(lines, 5))
            assert (found.status_code, len(first), "error" in "".join(first)) == (200, 5, False), first
        (told,) = [line for line in lines if "error" in line]
        assert json.loads(told.removeprefix("data: "))["error"]["code"] == "no_answer"
        for _ in range(4):  # more often than a broken engine is opened again
            lost = post(url, "/v1/chat/completions", model="far", messages=QUESTION)
            assert (lost.status_code, lost.json()["error"]["code"]) == (502, "no_answer")
        lost = post(url, "/api/chat", model="far", messages=QUESTION, stream=False)
        assert (lost.status_code, "server behind this model" in lost.json()["error"]) == (502, True)
        assert not answers(url)
        with another_process(port):
            whole = post(url, "/v1/chat/completions", model="far", messages=QUESTION).json()
            assert whole["choices"][0]["message"]["content"] == REPLY
            assert answers(url)
        assert model.engine.busy == model.engine.queued == 0


@pytest.mark.parametrize("said", ["7", '["a"]', '"\\ud800"', "[" * 100_000, '{"a": 1}'])
def test_what_is_no_text_is_no_answer(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(None, "", {})  # type: ignore[arg-type]
    monkeypatch.setattr(
        stream, "lines", lambda: (line for line in [b'data: {"choices": [{"text": %s}]}' % said.encode()])
    )
    decoder = EndpointDecoder.__new__(EndpointDecoder)
    decoder._ollama, decoder._streams, decoder._news = False, {3: stream}, SimpleQueue()
    decoder._listen(3, stream, 9)
    (step,) = decoder.step()
    assert (step.text, step.fault) == ("", GONE)


def test_a_key_is_shown_to_one_server_and_an_address_holds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT_KEY, "secret")
    targets = [read_target(f"http://127.0.0.1:{port}", ["model=nano"]) for port in (1, 2)]
    with pytest.raises(UsageError, match="shown to each") as told:
        open_targets(targets, ServeConfig())
    assert "secret" not in str(told.value)
    with pytest.raises(UsageError, match="password in it") as told:
        remote("http://me:secret@127.0.0.1:1")
    assert "secret" not in str(told.value)


def test_an_address_needs_a_model_of_ours(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="which model it has"):
        read_target("http://127.0.0.1:1", [])
    target = read_target("http://127.0.0.1:1#far", ["model=nano"])
    assert (target.url, target.recipe.model) == ("http://127.0.0.1:1#far", "nano")
