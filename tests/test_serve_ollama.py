"""Ollama's own API through its official client, on a fake model."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

import httpx
import ollama
import pytest
from serving import QUESTION, REPLY, SYSTEM, Fake, listening, post

from medmind.infer.decoder import Sampling, Work


@pytest.fixture(scope="module")
def fake() -> Fake:
    return Fake()


@pytest.fixture(scope="module")
def url(fake: Fake) -> Iterator[str]:
    with listening(fake) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[ollama.Client]:
    one = ollama.Client(host=url)
    yield one
    one._client.close()


def test_a_chat_whole_and_streamed(client: ollama.Client) -> None:
    whole = client.chat("fake", QUESTION)
    assert whole.message.content == REPLY
    assert (whole.done, whole.done_reason) == (True, "stop")
    assert whole.eval_count and whole.prompt_eval_count and whole.total_duration
    lines = list(client.chat("fake:latest", QUESTION, stream=True))
    assert "".join(line.message.content or "" for line in lines) == REPLY
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1].eval_count == whole.eval_count


def test_generate_with_a_system_of_its_own_and_raw(fake: Fake, client: ollama.Client) -> None:
    assert client.generate("fake", "What is rhinitis?", system="Be brief.").response == REPLY
    assert fake.decoder.asked[-1] == fake.prompt("What is rhinitis?", "Be brief.")
    client.generate("fake", "The nose", raw=True)
    tokenizer = fake.served.renderer.tokenizer
    assert list(fake.decoder.asked[-1]) == [tokenizer.token_id("<s>"), *tokenizer.encode(tokenizer.blank + "The nose")]
    with pytest.raises(ollama.ResponseError, match="raw mode"):
        client.generate("fake", "x", raw=True, system="y")


def test_options_are_heeded_and_unknown_ones_named(url: str) -> None:
    options = {"num_predict": 3, "temperature": 0, "mirostat_eta": 1}
    found = post(url, "/api/chat", model="fake", messages=QUESTION, options=options, stream=False)
    assert found.json()["eval_count"] == 3
    assert found.json()["done_reason"] == "length"
    assert found.headers["x-medmind-ignored"] == "mirostat_eta"
    wrong = post(url, "/api/chat", model="fake", messages=QUESTION, options={"num_ctx": 512})
    assert wrong.status_code == 400
    assert "512" in wrong.json()["error"] and "256" in wrong.json()["error"]
    for name, value in (("top_k", "many"), ("num_predict", 0), ("top_p", 2)):
        wrong = post(url, "/api/chat", model="fake", messages=QUESTION, options={name: value})
        assert wrong.status_code == 400 and wrong.json()["error"].startswith(f'option "{name}": ')
    wrong = post(url, "/api/chat", model="fake", messages=[*QUESTION, {"role": "nobody"}])
    assert wrong.json()["error"].startswith("messages[1].role: ")


USUAL = Sampling()
NOTED = {"repeat_penalty": 1.3, "presence_penalty": 0.5}


@pytest.mark.parametrize(
    ("options", "sampling"),
    [
        ({**NOTED, "repeat_last_n": -1}, replace(USUAL, **NOTED, repeat_last_n=256)),
        ({**NOTED, "repeat_last_n": 9999}, replace(USUAL, **NOTED, repeat_last_n=256)),
        ({**NOTED, "repeat_last_n": 0}, USUAL),
        ({"repeat_penalty": 0}, USUAL),
        ({"top_k": -1, "temperature": 0.5}, replace(USUAL, temperature=0.5)),
        ({"top_p": 0, "temperature": 0.5}, USUAL),
        ({"top_p": 0.5, "seed": -1, "num_predict": -2}, replace(USUAL, top_p=0.5)),
        ({"num_predict": -1, "temperature": None}, USUAL),
        (None, USUAL),
    ],
)
def test_options_mean_what_they_mean_to_ollama(
    fake: Fake, url: str, monkeypatch: pytest.MonkeyPatch, options: dict[str, float] | None, sampling: Sampling
) -> None:
    seen: list[Work] = []
    begin = fake.decoder.begin
    monkeypatch.setattr(fake.decoder, "begin", lambda slot, work: (seen.append(work), begin(slot, work)))
    assert post(url, "/api/chat", model="fake", messages=QUESTION, options=options).status_code == 200
    assert (seen[0].sampling, seen[0].max_new_tokens) == (sampling, 128)


def test_what_is_null_is_absent(url: str) -> None:
    found = post(url, "/api/chat", model="fake", messages=None, format=None, stream=False)
    assert found.json()["done_reason"] == "load"


def test_what_is_ignored_is_named(url: str) -> None:
    asked = {"model": "fake", "messages": [{**QUESTION[0], "thinking": "x"}], "stream": False, "top_logprobs": 2}
    found = post(url, "/api/chat", **asked, truncate=True, shift=False, keep_alive=5)
    assert found.headers["x-medmind-ignored"] == "thinking, top_logprobs, truncate"
    for path, said in (("/api/embed", {"input": "x", "truncate": True}), ("/api/embeddings", {"prompt": "x"})):
        found = post(url, path, model="fake", options={"num_ctx": 9}, keep_alive=5, **said)
        assert found.headers["x-medmind-ignored"] == ("options, truncate" if "input" in said else "options")


def test_what_cannot_be_done_is_named(url: str) -> None:
    for name, value in {"tools": [{}], "suffix": "x", "images": ["x"], "template": "x", "context": [1]}.items():
        found = post(url, "/api/generate", model="fake", prompt="x", **{name: value})
        assert found.json() == {"error": f'"fake" does not support {name}'}
    for name, value in {"logit_bias": {"5": 1}, "ignore_eos": True, "mirostat": 1, "typical_p": 0.9}.items():
        found = post(url, "/api/chat", model="fake", messages=QUESTION, options={name: value})
        assert found.json() == {"error": f'"fake" does not support {name}'}
    usual = {"mirostat": 0, "typical_p": 1.0, "tfs_z": 1, "num_thread": 4}
    found = post(url, "/api/chat", model="fake", messages=QUESTION, options=usual, stream=False)
    assert found.status_code == 200


def test_logprobs_stand_beside_the_message(client: ollama.Client) -> None:
    found = client.chat("fake", QUESTION, logprobs=True, top_logprobs=2)
    assert len(found.logprobs) == found.eval_count - 1
    assert all(len(one.top_logprobs) == 2 and one.logprob < 0 for one in found.logprobs)


def test_an_empty_question_loads(client: ollama.Client, url: str) -> None:
    assert client.chat("fake").done_reason == "load"
    assert post(url, "/api/generate", model="fake", keep_alive=0).json()["done_reason"] == "unload"


def test_lists_and_facts(client: ollama.Client, url: str) -> None:
    (model,) = client.list().models
    assert (model.model, model.details.parameter_size) == ("fake:latest", "1.0M")
    assert httpx.get(f"{url}/api/tags").json()["models"][0]["name"] == "fake:latest"
    (running,) = client.ps().models
    assert running.context_length == 256
    shown = client.show("fake")
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.modelinfo["llama.context_length"] == 256
    assert "completion" in shown.capabilities
    assert SYSTEM in shown.modelfile
    version = httpx.get(f"{url}/api/version").json()["version"]
    assert all(part.isdecimal() for part in version.split("."))
    datetime.fromisoformat(httpx.get(f"{url}/api/ps").json()["models"][0]["expires_at"])
    assert httpx.head(url).status_code == 200 and httpx.get(url).text == "Ollama is running"


def test_embeddings(client: ollama.Client) -> None:
    found = client.embed("fake", ["a", "b"]).embeddings
    assert [sum(part * part for part in one) for one in found] == pytest.approx([1, 1])
    assert client.embed("fake", "a", dimensions=3).embeddings[0] != found[0][:3]
    assert list(client.embeddings("fake", "a").embedding) == pytest.approx(list(found[0]))


def test_errors_are_one_line(client: ollama.Client, url: str) -> None:
    with pytest.raises(ollama.ResponseError, match="model 'other' not found") as caught:
        client.chat("other", QUESTION)
    assert caught.value.status_code == 404
    assert httpx.post(f"{url}/api/chat").json() == {"error": "missing request body"}
    with pytest.raises(ollama.ResponseError, match="does not support thinking"):
        client.chat("fake", QUESTION, think=True)
    with pytest.raises(ollama.ResponseError, match="context of 256"):
        client.generate("fake", "nose " * 400)


@pytest.mark.parametrize("name", ["pull", "push", "create", "copy", "delete", "blobs/sha256:ab"])
def test_what_changes_a_server_is_not_here(url: str, name: str) -> None:
    for method in ("POST", "DELETE"):
        found = httpx.request(method, f"{url}/api/{name}")
        assert found.status_code == 501
        assert "only answers" in found.json()["error"]


def test_a_failure_within_a_stream_is_its_last_line(url: str, fake: Fake) -> None:
    fake.decoder.pause = 0.02
    with httpx.stream("POST", f"{url}/api/chat", json={"model": "fake", "messages": QUESTION}) as found:
        lines = found.iter_lines()
        next(lines)
        fake.decoder.fault = "secret words of a patient"
        rest = [json.loads(line) for line in lines]
    assert set(rest[-1]) == {"error"}
    assert "secret" not in rest[-1]["error"]
    assert post(url, "/api/chat", model="fake", messages=QUESTION, stream=False).json()["message"]["content"] == REPLY


def test_an_empty_text_among_others_keeps_its_place(client: ollama.Client) -> None:
    alone = client.embed(model="fake", input="nose").embeddings
    assert client.embed(model="fake", input=["", "nose"]).embeddings[1:] == alone
