"""What is served is what is measured: the same scores through an endpoint; what it cannot tell is left out openly."""

import argparse
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from endpoint_server import Server

from medmind.cli import evaluate as verb
from medmind.core.errors import DataError, EnvironmentFault, UsageError
from medmind.core.jsonl import read_json, read_jsonl, write_jsonl, write_text
from medmind.core.protocols import Converser
from medmind.core.rundir import RunDir
from medmind.core.types import Example, Message
from medmind.evaluate.config import EvaluateConfig
from medmind.evaluate.run import evaluate_model
from medmind.infer.endpoint import ChatEndpoint, IdEndpoint, open_endpoint, take_apart
from medmind.infer.wire import Wire
from medmind.models.catalog import find_model
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.chat import Renderer
from medmind.prompts.families import open_renderer

Make = Callable[..., Server]
EVERYTHING = {"openai", "tokenize", "completions", "echo"}
PROTOCOLS = ("lm-eval", "yes-no-100")


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return open_renderer("mistral-v3", open_tokenizer(find_model("nano")))


@pytest.fixture
def make(renderer: Renderer) -> Iterator[Make]:
    made: list[Server] = []

    def start(*knows: str, write: Callable[[str], str] = lambda _: "Yes.") -> Server:
        server = Server(renderer.tokenizer, write, set(knows))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        made.append(server)
        return server

    yield start
    for server in made:
        server.shutdown()
        server.server_close()


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    turn = Message(role="user", text="Is it so?")
    rows = [
        Example(
            id=f"q{n}",
            source="pubmedqa",
            task="choice",
            turns=(turn,),
            options=("yes", "no", "maybe"),
            target=("yes", "no")[n % 2],
        )
        for n in range(6)
    ]
    write_jsonl(run.suite("mini"), rows)
    free = [Example(id=f"f{n}", source="t", task="qa", turns=(turn,), target="It is.") for n in range(3)]
    write_jsonl(run.suite("free"), free)
    return run


def test_ids_go_out_and_likelihoods_come_back(make: Make, renderer: Renderer) -> None:
    server = make(*EVERYTHING)
    found = open_endpoint(server.url, "", renderer.tokenizer, 4096)
    assert isinstance(found, IdEndpoint)
    assert not isinstance(found, Converser)
    assert (found.name, found.judges, found.context) == ("endpoint vllm", True, 398)
    prompt = renderer.prompt([Message(role="user", text="Is it?")])
    (reply,) = found.generate([prompt], 20)
    assert (reply.text, reply.stopped) == ("Yes.", True)
    path, body = server.asked[-1]
    assert path == "/v1/completions"
    assert body["prompt"] == list(prompt)
    assert body["temperature"] == 0
    rows = [(prompt[: 3 + n % 4], (7, 8 + n)) for n in range(40)]
    assert found.log_likelihoods(rows) == [[-0.007, -(8 + n) / 1000] for n in range(40)]
    assert sorted(len(body["prompt"]) for _, body in server.asked[-3:]) == [8, 16, 16]


def test_order_is_kept_and_progress_told(make: Make, renderer: Renderer) -> None:
    server = make(*EVERYTHING, write=lambda text: text.split()[-1])
    found = open_endpoint(server.url, "", renderer.tokenizer, 4096)
    told: list[tuple[int, int]] = []
    prompts = [renderer.tokenizer.encode(f"word{n}") for n in range(12)]
    replies = found.generate(prompts, 5, lambda done, total: told.append((done, total)))
    assert [reply.text for reply in replies] == [f"word{n}" for n in range(12)]
    assert told == [(n, 12) for n in range(1, 13)]


@pytest.mark.parametrize("knows", [{"openai", "tokenize", "completions"}, {"openai", "completions", "echo"}])
def test_a_server_that_ignores_echo_or_hides_its_tokenizer(make: Make, renderer: Renderer, knows: set[str]) -> None:
    found = open_endpoint(make(*knows).url, "", renderer.tokenizer, 4096)
    assert not found.judges
    assert isinstance(found, IdEndpoint if "tokenize" in knows else ChatEndpoint)
    with pytest.raises(UsageError, match="no log-likelihoods"):
        found.log_likelihoods([((1,), (2,))])


def test_another_tokenizer_gets_no_ids(make: Make, renderer: Renderer) -> None:
    server = make(*EVERYTHING)
    other = open_tokenizer(find_model("nano"))
    server.tokenizer = type("Other", (), {"encode": lambda _, text: [len(text)], "blank": ""})()
    assert isinstance(open_endpoint(server.url, "", other, 4096), ChatEndpoint)
    with pytest.raises(UsageError, match="tokenizer is not"):
        open_endpoint(f"{server.url}/v1/completions", "", other, 4096)


def test_ollama_is_asked_in_messages_with_its_whole_context(make: Make, renderer: Renderer) -> None:
    server = make("ollama", write=lambda text: f"heard {text}")
    found = open_endpoint(server.url, "", renderer.tokenizer, 4096)
    assert isinstance(found, ChatEndpoint)
    assert isinstance(found, Converser)
    assert found.name == "endpoint ollama, prompt made by the server"
    (reply,) = found.converse([[Message(role="system", text="Be kind."), Message(role="user", text="you")]], 9)
    assert (reply.text, reply.stopped) == ("heard you", False)
    path, body = server.asked[-1]
    assert path == "/api/chat"
    assert body["options"] == {"temperature": 0.0, "seed": 0, "num_predict": 9, "num_ctx": 300}
    assert body["messages"][0] == {"role": "system", "content": "Be kind."}
    assert body["truncate"] is False
    assert body["stream"] is False


def test_the_address_picks_the_api(make: Make, renderer: Renderer) -> None:
    server = make(*EVERYTHING, "ollama")
    ways = {"": "vllm", "/v1/": "vllm", "/v1/completions": "vllm", "/v1/chat/completions": "vllm, prompt"}
    for ending, name in {**ways, "/api/chat": "ollama, prompt"}.items():
        found = open_endpoint(server.url + ending, "", renderer.tokenizer, 4096)
        assert found.name.startswith(f"endpoint {name}"), ending
    assert take_apart("http://x/base/v1/") == ("http://x/base", None)


def test_what_a_server_added_is_not_scored(make: Make, renderer: Renderer) -> None:
    server = make("openai", write=lambda _: "Yes.")
    server.added = {"medmind_added": "Call 112.", "medmind_note": "A note."}
    found = open_endpoint(server.url, "", renderer.tokenizer, 4096)
    assert isinstance(found, ChatEndpoint)
    (reply,) = found.converse([[Message(role="user", text="Is it?")]], 9)
    assert reply.text == "Yes."


def test_the_model_is_named_where_there_are_several(make: Make, renderer: Renderer) -> None:
    server = make(*EVERYTHING)
    server.models = ["one", "two:latest"]
    with pytest.raises(UsageError, match=r"which of its models.*one, two:latest"):
        open_endpoint(server.url, "", renderer.tokenizer, 4096)
    with pytest.raises(UsageError, match='no model "tow" there'):
        open_endpoint(server.url, "tow", renderer.tokenizer, 4096)
    assert open_endpoint(server.url, "two", renderer.tokenizer, 4096).server.model == "two:latest"


def test_a_busy_server_is_asked_again_and_a_dead_one_given_up(make: Make, renderer: Renderer) -> None:
    server = make(*EVERYTHING)
    server.faults = [503, 500]
    found = open_endpoint(server.url, "", renderer.tokenizer, 4096, pause=0.0)
    server.faults = [503, 429, 500]
    assert found.generate([(1, 5)], 5)[0].text == "Yes."
    server.faults = [503] * 4
    with pytest.raises(EnvironmentFault, match=r"no answer in 4 tries .*status 503: something is wrong here"):
        found.generate([(1, 5)], 5)
    server.faults = [400]
    before = len(server.asked)
    with pytest.raises(EnvironmentFault, match="refused, status 400: something is wrong"):
        found.generate([(1, 5)], 5)
    assert len(server.asked) == before + 1


def test_nobody_there_and_no_address(renderer: Renderer) -> None:
    with pytest.raises(EnvironmentFault, match="no answer"):
        open_endpoint("http://127.0.0.1:9", "", renderer.tokenizer, 4096, pause=0.0)
    for url in ("127.0.0.1:9", "file:///etc/passwd", "http://", "http://x:abc"):
        with pytest.raises(UsageError, match="not an address"):
            open_endpoint(url, "", renderer.tokenizer, 4096)


def test_the_key_comes_from_the_environment_alone(
    make: Make, renderer: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make(*EVERYTHING)
    monkeypatch.setenv("OPENAI_API_KEY", "not ours")
    open_endpoint(server.url, "", renderer.tokenizer, 4096)
    assert set(server.keys) == {None}
    monkeypatch.setenv("MEDMIND_API_KEY", "abc")
    open_endpoint(server.url, "", renderer.tokenizer, 4096)
    assert server.keys[-1] == "Bearer abc"
    server.faults = [401]
    with pytest.raises(EnvironmentFault, match="MEDMIND_API_KEY"):
        open_endpoint(server.url, "", renderer.tokenizer, 4096)


def test_no_redirect_is_followed(make: Make, renderer: Renderer) -> None:
    server = make(*EVERYTHING)
    found = open_endpoint(server.url, "", renderer.tokenizer, 4096)
    server.faults = [302]
    with pytest.raises(EnvironmentFault, match="status 302"):
        found.generate([(1, 5)], 5)


def test_too_long_is_refused_before_it_is_sent(make: Make, renderer: Renderer) -> None:
    found = open_endpoint(make(*EVERYTHING).url, "", renderer.tokenizer, 4096)
    with pytest.raises(DataError, match="398"):
        found.generate([[5] * 400], 5)


@pytest.mark.parametrize("api", ["ids", "messages"])
def test_a_suite_is_scored_through_either_api(
    api: str, make: Make, renderer: Renderer, rundir: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    server = make(*(EVERYTHING if api == "ids" else {"ollama"}))
    found = open_endpoint(server.url, "", renderer.tokenizer, 4096)
    config = EvaluateConfig(max_new_tokens=20, protocols=PROTOCOLS)
    files = evaluate_model(config, rundir, "endpoint-small", "small", found, renderer, "", 0)
    assert all(path.is_file() for path in files)
    scores = read_json(rundir.scores("mini", "endpoint-small"))
    assert scores["engine"] == found.name
    told = " ".join(capsys.readouterr().err.split())
    row = next(iter(read_jsonl(rundir.predictions("mini", "endpoint-small"))))
    if api == "ids":
        assert scores["metrics"]["accuracy"]["value"] == 0.5
        assert set(scores["protocols"]) == set(PROTOCOLS)
        assert "heldout_loss" in scores["metrics"]
        assert len(row["logprobs"]) == 3
    else:
        assert scores["outcomes"]["truncated"] == 6
        assert scores["protocols"] == {}
        assert "heldout_loss" not in scores["metrics"]
        assert row["logprobs"] is None
        assert "lm-eval is left out" in told
        assert "yes-no-100 is left out" in told
        assert "tells no log-likelihoods" in told


def test_the_verb_scores_an_endpoint(
    make: Make, rundir: RunDir, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(rundir.recipe, "name: run\nmodel: nano\n")
    server = make(*EVERYTHING)
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    words = [str(rundir.root), "--endpoint", server.url, "--suite", "mini", "--json"]
    assert verb.run(parser.parse_args(words)) == 0
    (scores,) = json.loads(capsys.readouterr().out)
    assert (scores["model"], scores["engine"], scores["n"]) == ("small", "endpoint vllm", 6)
    assert rundir.scores("mini", "endpoint-small").is_file()
    with pytest.raises(UsageError, match="two ways"):
        verb.run(parser.parse_args([*words, "--predictions", "x.jsonl"]))
    with pytest.raises(UsageError, match="whose questions"):
        verb.run(parser.parse_args(["--endpoint", server.url]))
    with pytest.raises(UsageError, match="add --endpoint"):
        verb.run(parser.parse_args([str(rundir.root), "--model", "small"]))


def test_what_goes_elsewhere_in_clear_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    for safe in ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://gpu.ward.example"):
        Wire(safe)
    assert capsys.readouterr().err == ""
    Wire("http://gpu.ward.example:8000/v1")
    assert "what goes to gpu.ward.example is not encrypted" in " ".join(capsys.readouterr().err.split())
