"""`medmind models make`: the shape to the last number, the same bytes every time, little memory, all or nothing."""

import json
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from medmind.cli import models_make
from medmind.cli.main import main
from medmind.cli.models_make import make_checkpoint
from medmind.core import disk
from medmind.core.errors import EnvironmentFault, UsageError
from medmind.core.types import Message
from medmind.models import make, vocabulary
from medmind.models.catalog import CATALOG, find_model, find_row
from medmind.models.load import load_base
from medmind.models.spec import ModelSpec
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import open_renderer

TALK = [Message(role="user", text="What is hypertension?"), Message(role="assistant", text="High blood pressure.")]
CONTROL = {
    "Llama-3.2-1B-Instruct": {"<|begin_of_text|>": 128000, "<|end_of_text|>": 128001, "<|eot_id|>": 128009},
    "SmolLM2-135M-Instruct": {"<|im_start|>": 1, "<|im_end|>": 2},
    "Mistral-7B-v0.3": {"<s>": 1, "</s>": 2, "[INST]": 3},
}
MAKE = """
import resource, sys
from pathlib import Path
import medmind.export.merge
from medmind.cli.models_make import make_checkpoint
from medmind.models import make
from medmind.models.catalog import find_row
make.SHARD_BYTES = 20_000_000
row = find_row("SmolLM2-135M-Instruct")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
make_checkpoint(row, Path(sys.argv[1]))
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


def two_layers(name: str) -> ModelSpec:
    """Narrow too: only the vocabulary is as large as it is."""
    row = find_row(name)
    assert row
    narrow = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16}
    return replace(row, shape=replace(row.shape, **narrow, num_attention_heads=4, num_key_value_heads=2))


@pytest.mark.parametrize("name", CONTROL)
def test_what_is_made_loads_everywhere_and_speaks_its_format(name: str, tmp_path: Path) -> None:
    row, out = two_layers(name), tmp_path / "made"
    make_checkpoint(row, out)
    spec = find_model(str(out))
    assert (spec.family, spec.renderer, spec.context, spec.shape) == (row.family, row.renderer, row.context, row.shape)
    model = load_base(spec)
    assert sum(one.numel() for one in model.parameters()) == row.shape.parameters
    plain: Any = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    assert plain.dtype is torch.bfloat16
    renderer = open_renderer(spec.renderer, open_tokenizer(spec))
    assert {text: renderer.tokenizer.token_id(text) for text in CONTROL[name]} == CONTROL[name]
    tokenizer: Any = AutoTokenizer.from_pretrained(out)
    assert len(tokenizer) == row.shape.vocab_size
    talk = [{"role": one.role, "content": one.text} for one in TALK]
    ids = tokenizer.apply_chat_template(talk, return_dict=False)
    rendered = renderer.render(TALK).ids
    assert tuple(ids[: len(rendered)]) == rendered
    assert plain(torch.tensor([rendered])).logits.isfinite().all()
    assert (plain.config.bos_token_id, plain.config.eos_token_id) == (
        renderer.tokenizer.token_id(renderer.bos),
        renderer.stop_ids[0] if len(renderer.stop_ids) == 1 else list(renderer.stop_ids),
    )


def test_weights_are_normal_norms_are_one_and_a_second_time_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = two_layers("Llama-3.2-1B")
    monkeypatch.setattr(make, "SHARD_BYTES", 100_000)
    for name in ("one", "two"):
        make_checkpoint(row, tmp_path / name)
    ours, again = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert ours == again and sum(name.endswith(".safetensors") for name in ours) > 2
    index = json.loads(ours["model.safetensors.index.json"])
    assert index["metadata"]["total_size"] == 2 * row.shape.parameters
    weights = dict(load_base(find_model(str(tmp_path / "one"))).named_parameters())
    assert all(torch.equal(one, torch.ones_like(one)) for name, one in weights.items() if "norm" in name)
    for one in (one for name, one in weights.items() if "norm" not in name):
        assert abs(one.mean()) < 0.001 and abs(one.std() - 0.02) < 0.001
    up, other = (weights[f"model.layers.{layer}.mlp.up_proj.weight"] for layer in (0, 1))
    assert not torch.equal(up, other)


def test_the_readme_says_that_the_weights_are_random_and_which_tokenizer_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(models_make, "find_row", lambda _: two_layers("Mistral-7B-Instruct-v0.3"))
    assert main(["models", "make", "Mistral-7B-Instruct-v0.3", str(tmp_path / "a")]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "random weights" in told and "Mistral v3 as mistral-common ships it" in told
    readme = (tmp_path / "a" / "README.md").read_text()
    assert "**Nothing was trained" in readme and "mistral-common ships it" in readme
    monkeypatch.setattr(vocabulary, "read_mistral", lambda: None)
    assert main(["models", "make", "Mistral-7B-Instruct-v0.3", str(tmp_path / "b")]) == 0
    assert "a stand-in of the same size" in (tmp_path / "b" / "README.md").read_text()
    assert "[INST]" in open_tokenizer(find_model(str(tmp_path / "b"))).token_text(3)


def test_the_models_own_tokenizer_is_taken_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text('{"known": 1}')
    monkeypatch.setattr(vocabulary, "find_cached", lambda spec, name: file)
    assert vocabulary.find_tokenizer(two_layers("Llama-3.2-1B")) == ({"known": 1}, "the model's own")


@pytest.mark.parametrize("spec", CATALOG, ids=lambda spec: spec.id)
def test_every_row_has_a_tokenizer_of_its_size(spec: ModelSpec, tmp_path: Path) -> None:
    tokenizer, _ = vocabulary.find_tokenizer(spec)
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    ours = open_tokenizer(replace(spec, source=str(tmp_path), local=True))
    assert ours.vocab_size == spec.shape.vocab_size
    text = "Hypertension: 140/90 mmHg, naïve — 高血圧 🙂"
    assert ours.decode(ours.encode(text)) == text
    assert len(ours.encode(TALK[0].text)) < 12, "about as many tokens as a true one would make"
    open_renderer(spec.renderer, ours).render(TALK)


def test_what_stands_in_the_way_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = two_layers("SmolLM2-135M-Instruct")
    with pytest.raises(UsageError, match=r'unknown shape "mistral"; did you mean|unknown shape "mistral".*known: '):
        models_make.make(SimpleNamespace(shape="mistral", dir=tmp_path / "x"))  # type: ignore[arg-type]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep me")
    (tmp_path / "file").write_text("keep me too")
    for name in ("full", "file"):
        with pytest.raises(UsageError, match="something already"):
            make_checkpoint(row, tmp_path / name)
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep me"
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=12_000_000_000))
    with pytest.raises(EnvironmentFault, match=r"Mistral-7B-v0.3 needs 14\.5 GB, 12\.0 GB are free"):
        make_checkpoint(find_model("Mistral-7B-v0.3"), tmp_path / "deep" / "er")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]


def test_a_disk_that_fills_up_midway_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors import SafetensorError

    def fill(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(models_make, "find_row", lambda _: two_layers("SmolLM2-135M-Instruct"))
    monkeypatch.setattr(make, "save_file", fill)
    (tmp_path / "empty").mkdir()
    assert main(["models", "make", "SmolLM2-135M-Instruct", str(tmp_path / "empty")]) == 3
    assert "no space left" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["empty"] and not any((tmp_path / "empty").iterdir())


def test_interrupted_midway_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(make, "save_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_checkpoint(two_layers("SmolLM2-135M-Instruct"), tmp_path / "made")
    assert not any(tmp_path.iterdir())


def test_no_more_than_one_file_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[weakref.ref[torch.Tensor]] = []
    most: list[int] = []

    def draw(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        tensor = torch.zeros(shape, dtype=make.DTYPE)
        drawn.append(weakref.ref(tensor))
        most.append(sum(one.nbytes for ref in drawn if (one := ref()) is not None))
        return tensor

    spec = two_layers("SmolLM2-135M-Instruct")
    monkeypatch.setattr(make, "draw", draw)
    monkeypatch.setattr(make, "SHARD_BYTES", 50_000)
    make.make_weights(spec, tmp_path, {"bos_token_id": 1})
    embeddings = 2 * spec.shape.vocab_size * spec.shape.hidden_size
    assert most[0] == embeddings and max(most[1:]) <= 50_000


@pytest.mark.slow
def test_killed_midway_nothing_lies_under_the_final_name_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    out, half = tmp_path / "made", tmp_path / ".made.new"
    process = subprocess.Popen([sys.executable, "-c", MAKE, str(out)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(half.rglob("*.safetensors")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert half.is_dir() and not out.exists()
    make_checkpoint(two_layers("SmolLM2-135M-Instruct"), out)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


@pytest.mark.slow
def test_a_true_shape_is_made_in_little_memory(tmp_path: Path) -> None:
    """270 MB on disk in files of at most 57 MB, the embeddings."""
    command = [sys.executable, "-c", MAKE, str(tmp_path / "made")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert sum(path.stat().st_size for path in (tmp_path / "made").glob("*.safetensors")) > 269_000_000
    assert int(done.stdout) < 130_000_000, done.stdout
    assert sum(one.numel() for one in load_base(find_model(str(tmp_path / "made"))).parameters()) == 134_515_008
