"""`medmind export parity A B` between a checkpoint, its GGUF, another checkpoint and a running server."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from medmind.cli.main import main
from medmind.core.jsonl import read_json, write_json, write_jsonl
from medmind.core.types import Example, Message
from medmind.export import gguf
from medmind.export.merge import merge
from medmind.export.metadata import Facts
from medmind.infer.llamacpp import LlamaCppGenerator
from medmind.models.catalog import describe_folder
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import open_renderer

ROWS = [
    Example(
        id=f"e{n}", source="t", task="qa", turns=(Message(role="user", text=f"What is {n}?"),), target="A swelling."
    )
    for n in range(3)
]
FACTS = Facts("tiny", "MIT", "nano", "")
SHORT = ["--set", "export.max_new_tokens=8"]


@pytest.fixture(scope="module")
def made(wide_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    merge(describe_folder(wide_model), wide_model, folder / "merged")
    gguf.write(folder / "merged", folder / "model-f32.gguf", "f32", FACTS)
    write_jsonl(folder / "rows.jsonl", ROWS)
    return folder


def compare(made: Path, one: str | Path, other: str | Path, *words: str) -> int:
    rows = ["--rows", str(made / "rows.jsonl")]
    return main(["export", "parity", str(one), str(other), *rows, *SHORT, *words])


def test_a_checkpoint_and_its_gguf_in_either_order(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(made, made / "model-f32.gguf", made / "merged", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["passed"], found["equal"], found["candidate_dtype"]) == (True, 3, "f32")
    assert found["logits"]["top1"] == 1
    assert found["token_ids"]["not_checked"] == ["the Modelfile's template"]


def test_another_rope_base_in_a_checkpoint_is_named(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(made / "merged", tmp_path / "other")
    assert compare(made, made / "merged", other) == 0
    config = read_json(other / "config.json")
    rope = config["rope_parameters"] | {"rope_theta": 300.0}
    write_json(other / "config.json", config | {"rope_theta": 300.0, "rope_parameters": rope})
    assert compare(made, made / "merged", other) == 1
    assert "wrong rope base: 300, the other says" in capsys.readouterr().err


def test_two_ggufs(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "model-f16.gguf"
    gguf.write(made / "merged", other, "f16", FACTS)
    for pair in ((made / "model-f32.gguf", other), (other, made / "model-f32.gguf")):
        assert compare(made, *pair, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["passed"], found["n"], found["wrong"], found["reference"]) == (True, 3, 0, "llama.cpp")
        assert {check["check"]: check["bound"] for check in found["checks"]}["nmse"] == 1e-4, "the coarser's bounds"
        tokens = found["token_ids"]
        assert (tokens["equal"], tokens["strings"], tokens["round_trips"]) == (3, 1000, 1000)


def scaled(source: Path, patch: pytest.MonkeyPatch) -> None:
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = read_json(source / "config.json")
    rope |= {"original_max_position_embeddings": 32, "rope_theta": config["rope_theta"]}
    write_json(source / "config.json", config | {"rope_parameters": rope})


def based(source: Path, patch: pytest.MonkeyPatch) -> None:
    write_json(source / "config.json", read_json(source / "config.json") | {"rope_theta": 300.0})


def unordered(source: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(gguf, "interleave", lambda weight, heads: weight)


def drifted(source: Path, patch: pytest.MonkeyPatch) -> None:
    template = source / "chat_template.jinja"
    template.write_text(template.read_text().replace("[INST] ", "[INST]"))


@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (scaled, "rope_freqs missing: rope_freqs.weight: the other file does not hold it"),
        (based, "wrong rope base: the file says 300, the other 10000"),
        (unordered, "swapped q/k permutation: blk.0.attn_q.weight is not reordered at all"),
        (drifted, "template drift: the GGUF's template gives 3 prompts other token ids"),
    ],
)
def test_what_differs_between_two_ggufs_is_named(
    plant: Callable[[Path, pytest.MonkeyPatch], None],
    told: str,
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = Path(shutil.copytree(made / "merged", tmp_path / "source"))
    with monkeypatch.context() as patch:
        plant(source, patch)
        gguf.write(source, tmp_path / "other.gguf", "f16", FACTS)
    assert compare(made, made / "model-f32.gguf", tmp_path / "other.gguf") == 1
    assert told in capsys.readouterr().err


def test_what_cannot_be_compared_is_refused(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, text = str(made / "model-f32.gguf"), tmp_path / "notes.txt"
    text.write_text("a text, no GGUF")
    half = tmp_path / "half.gguf"
    half.write_bytes((made / "model-f32.gguf").read_bytes()[:-1000])
    foreign = tmp_path / "foreign.gguf"
    source = Path(shutil.copytree(made / "merged", tmp_path / "source"))
    (source / "chat_template.jinja").write_text("{{ messages[0].content }}")
    gguf.write(source, foreign, "f32", FACTS)
    server, none = "http://127.0.0.1:9/v1", tmp_path / "none.jsonl"
    odd, empty = tmp_path / "odd.jsonl", tmp_path / "empty.jsonl"
    odd.write_text('{"id": "x"}\n')
    empty.touch()
    for words, code, told in (
        ([file], 2, "one side is missing"),
        ([str(made / "merged"), file], 2, "--rows FILE"),
        ([file, file, "--rows", str(none)], 2, "no such file of rows"),
        ([file, file, "--rows", str(text)], 2, "not JSON"),
        ([file, file, "--rows", str(odd)], 2, "not a row to ask: Field required, " + str(odd) + ", row 1"),
        ([file, file, "--rows", str(empty)], 2, "no row to ask"),
        ([server, server, "--rows", str(made / "rows.jsonl")], 2, "two servers cannot be compared"),
        ([file, str(tmp_path / "none"), "--rows", str(made / "rows.jsonl")], 2, "neither a checkpoint folder nor"),
        ([str(foreign), file, "--rows", str(made / "rows.jsonl")], 2, "its chat template is none that medmind writes"),
        ([file, str(text), "--rows", str(made / "rows.jsonl")], 2, "does not begin with GGUF"),
        ([str(half), file, "--rows", str(made / "rows.jsonl")], 2, "not a whole GGUF"),
        ([file, server, "--rows", str(made / "rows.jsonl")], 3, "does not answer"),
        ([file, file, "--rows", str(made / "rows.jsonl"), "--as", "q3"], 2, 'unknown kind "q3"'),
    ):
        assert main(["export", "parity", *words]) == code, words
        assert told in capsys.readouterr().err
    assert main(["export", "demo", "x"]) == 2


class Server(ThreadingHTTPServer):
    """Serves the GGUF; `spoil` says how it goes wrong."""

    daemon_threads = True
    spoil = ""

    def __init__(self, made: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        spec = describe_folder(made / "merged")
        self.renderer = open_renderer(spec.renderer, open_tokenizer(spec))
        self.engine = LlamaCppGenerator(made / "model-f32.gguf", self.renderer.stop_ids, 512)
        self.lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            found = self.tokens(body) if self.path == "/tokenize" else self.chat(body)
        text = json.dumps(found).encode()
        self.send_response(302 if self.server.spoil == "away" else 404 if found is None else 200)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def tokens(self, body: dict[str, Any]) -> Any:
        return None if self.server.spoil else {"tokens": self.server.engine.encode(body["content"])}

    def chat(self, body: dict[str, Any]) -> Any:
        messages = [Message(role=one["role"], text=one["content"]) for one in body["messages"]]
        prompt = list(self.server.renderer.prompt(messages))
        prompt = [1, *prompt] if self.server.spoil == "bos" else prompt
        (reply,) = self.server.engine.generate([prompt], body["max_tokens"])
        text = reply.text + ("</s>[INST] And" if self.server.spoil == "stop" else "")
        choice = {"message": {"content": text}, "finish_reason": "stop" if reply.stopped else "length"}
        return {"choices": [choice], "usage": {"prompt_tokens": len(prompt)}}


@pytest.fixture
def server(made: Path) -> Iterator[Server]:
    server = Server(made)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("spoil", "code", "told"),
    [
        ("", 0, "1000 of 1000 strings"),
        ("bos", 1, "double BOS: every prompt has one token more"),
        ("stop", 1, "missing stop: 3 replies go on"),
        ("away", 3, "does not answer: status 302"),
    ],
)
def test_a_running_server(
    spoil: str, code: int, told: str, made: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.spoil = spoil
    assert compare(made, f"http://127.0.0.1:{server.server_port}/v1", made / "merged") == code
    assert told in capsys.readouterr().err
