"""Under load and before strangers: many clients that vanish, no packet out, and the larger clients where installed."""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from serving import QUESTION, REPLY, Fake, listening, post, serving, until

from medmind.core.jsonl import read_json, write_jsonl, write_text
from medmind.core.rundir import RunDir
from medmind.core.types import Example
from medmind.core.types import Message as Turn
from medmind.export import gguf
from medmind.export.merge import merge
from medmind.export.metadata import Facts
from medmind.infer.llamacpp import has_library
from medmind.models.catalog import find_model
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import open_renderer
from medmind.serve.app import create_app
from medmind.serve.config import ServeConfig
from medmind.serve.engine import Engine
from medmind.serve.open import Speaker, open_checkpoint, open_gguf
from medmind.serve.served import Index

pytestmark = pytest.mark.slow
CLIENTS, SECONDS = 200, float(os.environ.get("MEDMIND_LOAD_SECONDS", "15"))
"""Of each engine; five minutes are MEDMIND_LOAD_SECONDS=300."""
NANO = find_model("nano")
SPEAKER = Speaker("nano", NANO, open_renderer(NANO.renderer, open_tokenizer(NANO)), "", 0.0)


async def storm(url: str, seconds: float, model: str = "fake", reply: str = REPLY) -> tuple[int, int, int]:
    """Streams that were whole, that were left, and that were wrong."""
    dice, end, whole, left, wrong = random.Random(7), time.monotonic() + seconds, 0, 0, 0
    limits = httpx.Limits(max_connections=CLIENTS)

    async def one(client: httpx.AsyncClient) -> None:
        nonlocal whole, left, wrong
        while time.monotonic() < end:
            patience = dice.randrange(12) if dice.random() < 0.1 else None
            body = {"model": model, "messages": QUESTION, "stream": True}
            text, lines = "", 0
            async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as found:
                async for line in found.aiter_lines():
                    lines += 1
                    if patience is not None and lines > patience:
                        break
                    if line.startswith("data: {"):
                        text += json.loads(line[6:])["choices"][0]["delta"].get("content", "")
            if patience is not None:
                left += 1
            elif text == reply:
                whole += 1
            else:
                wrong += 1

    async with httpx.AsyncClient(limits=limits, timeout=600) as client:
        await asyncio.gather(*(one(client) for _ in range(CLIENTS)))
    return whole, left, wrong


def test_two_hundred_streams_with_vanishing_clients() -> None:
    fake = Fake(slots=16, queue=1000)
    with listening(fake) as url:
        withstands(url, fake.engine, "fake", REPLY)


@pytest.fixture(scope="module")
def nano_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not has_library():
        pytest.skip("needs a binding of llama.cpp")
    folder = tmp_path_factory.mktemp("gguf")
    merge(NANO, Path(NANO.source), folder / "merged")
    gguf.write(folder / "merged", folder / "nano.gguf", "f32", Facts("nano", "MIT", "nano", ""))
    return folder / "nano.gguf"


@pytest.mark.parametrize("engine", ["transformers", "llama.cpp"])
def test_two_hundred_streams_of_a_real_model(engine: str, request: pytest.FixtureRequest) -> None:
    config = ServeConfig(max_concurrent=16, queue=1000, context=256, max_new_tokens=6, red_flags=False)
    if engine == "llama.cpp":
        model = open_gguf(SPEAKER, request.getfixturevalue("nano_gguf"), config)
    else:
        (model,) = open_checkpoint([(SPEAKER, None)], Path(NANO.source), config)
    with serving(create_app(Index([model]), config)) as url:
        alone = post(url, "/v1/chat/completions", model="nano", messages=QUESTION).json()
        withstands(url, model.engine, "nano", alone["choices"][0]["message"]["content"])


def withstands(url: str, engine: Engine, model: str, reply: str) -> None:
    """Nothing lost, memory flat, no slot leaked."""
    asyncio.run(storm(url, 5, model, reply))
    before = psutil.Process().memory_info().rss
    whole, left, wrong = asyncio.run(storm(url, SECONDS, model, reply))
    grown = (psutil.Process().memory_info().rss - before) / 2**20
    until(lambda: engine.busy == engine.queued == 0, 30)
    assert httpx.get(f"{url}/health").status_code == 200
    counts = dict(engine.counts)
    print(f"\n{engine.name}, {model}: {whole} whole, {left} left, {wrong} wrong, {grown:.1f} MiB grown, {counts}")
    assert wrong == 0 and whole > CLIENTS // 2 and left > 10
    assert grown < 50


@contextmanager
def traced(folder: Path, port: int, *target: str) -> Iterator[str]:
    """The command itself, every connect() of it and of its children written down."""
    trace = ["strace", "-f", "-e", "trace=connect,sendto,sendmsg", "-o", str(folder / "trace")]
    command = [sys.executable, "-m", "medmind", "serve", *target, "--port", str(port)]
    words = [*trace, *command] if shutil.which("strace") else command
    process = subprocess.Popen([*words, "--set", "serve.redact_phi=false"], stderr=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{port}"

    def up() -> bool:
        try:
            return httpx.get(f"{url}/health").status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(up, 300)
    except AssertionError:
        kill(process)
        raise
    yield url
    (psutil.Process(process.pid).children() or [process])[0].send_signal(signal.SIGINT)  # strace itself keeps it
    process.communicate(timeout=30)
    if shutil.which("strace"):
        check_trace(folder / "trace")


@pytest.fixture(scope="module")
def nano_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with traced(tmp_path_factory.mktemp("traced"), 11777, "nano") as url:
        yield url


def kill(process: "subprocess.Popen[str]") -> None:
    for one in (*psutil.Process(process.pid).children(recursive=True), process):
        one.kill()
    process.communicate()


def check_trace(file: Path, known: str = "") -> None:
    """No socket but those of this machine's own files and its clients, and of the one address that is known."""
    text = file.read_text(errors="replace")
    assert "exited with" in text
    out = [line for line in text.splitlines() if re.search(r"(connect|sendto|sendmsg)\(.*sa_family=AF_INET6?", line)]
    assert [line for line in out if not known or known not in line] == []
    assert bool(out) == bool(known)


def needs_strace() -> None:
    if not shutil.which("strace"):
        pytest.skip("needs strace")


def ask_around(url: str, model: str) -> None:
    for path in ("/v1/models", "/api/tags", "/tokenizer_info", "/metrics", "/openapi.json"):
        assert httpx.get(url + path).status_code == 200
    body = {"model": model, "messages": QUESTION, "max_tokens": 5}
    assert httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).status_code == 200
    assert httpx.post(f"{url}/api/embed", json={"model": model, "input": "nose"}, timeout=60).status_code == 200


def test_no_packet_leaves(nano_url: str) -> None:
    needs_strace()
    ask_around(nano_url, "nano")


def test_no_packet_leaves_llamacpp(nano_gguf: Path, tmp_path: Path) -> None:
    needs_strace()
    with traced(tmp_path, 11778, str(nano_gguf), "--set", "model=nano") as url:
        ask_around(url, "nano")


def test_no_packet_leaves_an_evaluation_but_to_the_endpoint(nano_url: str, tmp_path: Path) -> None:
    needs_strace()
    run = RunDir(tmp_path / "run")
    write_text(run.recipe, "name: run\nmodel: nano\n")
    options, turns = ("yes", "no"), (Turn(role="user", text="Is rhinitis a swelling of the nose?"),)
    rows = [Example(id=str(n), source="x", task="choice", turns=turns, options=options, target="yes") for n in range(3)]
    write_jsonl(run.suite("mini"), rows)
    command = [sys.executable, "-m", "medmind", "evaluate", str(run.root), "--endpoint", nano_url, "--suite", "mini"]
    words = ["strace", "-f", "-e", "trace=connect,sendto,sendmsg", "-o", str(tmp_path / "trace"), *command]
    done = subprocess.run([*words, "--set", "evaluate.max_new_tokens=4"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert read_json(run.scores("mini", "endpoint-nano"))["engine"] == "endpoint medmind"
    check_trace(tmp_path / "trace", 'sin_port=htons(11777), sin_addr=inet_addr("127.0.0.1")')


def test_no_packet_leaves_a_chat(tmp_path: Path) -> None:
    needs_strace()
    command = [sys.executable, "-m", "medmind", "chat", "nano", "--set", "evaluate.max_new_tokens=4"]
    words = ["strace", "-f", "-e", "trace=connect,sendto,sendmsg", "-o", str(tmp_path / "trace"), *command]
    done = subprocess.run(words, input="What is rhinitis?\n/help\n", capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.strip()
    check_trace(tmp_path / "trace")


def test_langchain(nano_url: str) -> None:
    chat = pytest.importorskip("langchain_openai", reason="needs langchain-openai")
    native = pytest.importorskip("langchain_ollama", reason="needs langchain-ollama")
    first = chat.ChatOpenAI(base_url=f"{nano_url}/v1", api_key="x", model="nano", max_tokens=6, temperature=0)
    second = native.ChatOllama(base_url=nano_url, model="nano", num_predict=6, temperature=0)
    question = "What is rhinitis?"
    whole = first.invoke(question)
    assert whole.content == second.invoke(question).content != ""
    assert "".join(part.content for part in first.stream(question)) == whole.content
    assert whole.usage_metadata["output_tokens"] == 6


def test_litellm(nano_url: str) -> None:
    litellm = pytest.importorskip("litellm", reason="needs litellm")
    asked = {"messages": QUESTION, "max_tokens": 6, "temperature": 0}
    first = litellm.completion(model="openai/nano", api_base=f"{nano_url}/v1", api_key="x", **asked)
    second = litellm.completion(model="ollama_chat/nano", api_base=nano_url, **asked)
    assert first.choices[0].message.content == second.choices[0].message.content != ""
