"""The export stage from end to end on two layers of nano."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from medmind.core.errors import DataError, GateError, UsageError
from medmind.core.jsonl import write_json, write_jsonl, write_text
from medmind.core.rundir import RunDir
from medmind.core.types import Example, Message
from medmind.export import gguf
from medmind.export.config import ExportConfig
from medmind.export.run import export
from medmind.models.catalog import describe_folder
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import open_renderer

Export = Callable[..., list[Path]]
FILES = {
    "Modelfile",
    "README.md",
    "merged.json",
    "model-f16.gguf",
    "model-q4_k_m.gguf",
    "model-q8_0.gguf",
    "parity.json",
}


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    rundir = RunDir(tmp_path / "My Run")
    rows = [
        Example(
            id=f"e{n}",
            source="t",
            task="qa",
            turns=(Message(role="user", text=f"What is {n}?"),),
            target="Swelling.",
        )
        for n in range(4)
    ]
    write_jsonl(rundir.split("test"), rows)
    return rundir


@pytest.fixture
def run(rundir: RunDir, wide_model: Path, wide_adapter: Path) -> Export:
    spec = describe_folder(wide_model)
    renderer = open_renderer(spec.renderer, open_tokenizer(spec))

    def call(**settings: object) -> list[Path]:
        unbound = {"nmse": None, "top1": None, "kl": None, "perplexity": None}  # random weights round worst of all
        parity = {"q8_0": unbound, "q4_k_m": unbound}
        config = ExportConfig.model_validate({"max_new_tokens": 12, "parity": parity} | settings)
        return export(config, rundir, spec, wide_adapter, renderer, "Be kind.", 0)

    return call


def test_everything_is_made_and_agrees(run: Export, rundir: RunDir) -> None:
    write_json(rundir.licences, [{"source": "terms", "file": "a/b.jsonl", "licence": "CC0-1.0", "sha256": "f" * 64}])
    write_text(rundir.recipe, "seed: 3\ntrain: {learning_rate: 0.0001}\n")
    metric = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 4}
    write_json(rundir.scores("terms", "tuned"), {"metrics": {"format_adherence": metric}})
    files = run()
    assert {path.name for path in files if path.parent == rundir.export} == FILES
    assert {path.name for path in rundir.export.iterdir()} == FILES | {"merged"}, "nothing else is left behind"
    found = json.loads(rundir.parity.read_text())
    assert (found["passed"], found["equal"], found["wrong"], found["n"]) == (True, 4, 0, 4)
    assert (found["reference"], found["candidate"], found["candidate_dtype"]) == ("transformers", "llama.cpp", "f32")
    assert found["token_ids"]["equal"] == 4
    assert found["files"].keys() == {"f16", "q8_0", "q4_k_m"}
    assert (found["token_ids"]["strings_equal"], found["token_ids"]["round_trips"]) == (1000, 1000)
    assert found["logits"]["nmse"] < 1e-9 < found["files"]["f16"]["logits"]["nmse"] < 1e-4
    assert all(check["passed"] for check in found["files"]["f16"]["checks"])
    named = rundir.modelfile.read_text().splitlines()[0].removeprefix("FROM ./")
    assert (rundir.modelfile.parent / named).is_file()
    card = rundir.card.read_text()
    for words in ("| terms | b.jsonl | CC0-1.0 |", "learning_rate: 0.0001", "Seed 3", "| 0.500 | 0.250 to 0.750 | 4 |"):
        assert words in card
    assert "ollama create my-run -f Modelfile" in card


def test_what_is_finished_and_unchanged_is_kept(run: Export, rundir: RunDir) -> None:
    run(gguf=["f16", "q4_k_m"])
    kept = [rundir.merged / "model.safetensors", rundir.gguf("q4_k_m")]
    before = [path.stat().st_mtime_ns for path in kept]
    whole = rundir.gguf("f16").read_bytes()
    rundir.gguf("f16").write_bytes(whole[:-1000] + bytes(1000))
    rundir.parity.unlink()
    left = rundir.export / ".model-q4_k_m.gguf.new"
    left.mkdir()
    (left / "new").write_bytes(b"of a killed run")
    run(gguf=["f16", "q4_k_m"])
    assert [path.stat().st_mtime_ns for path in kept] == before
    assert rundir.gguf("f16").read_bytes() == whole, "a damaged file is written again, even if its header is sound"
    assert rundir.parity.exists() and not left.exists()
    (rundir.merged / "config.json").write_text("{}")
    run(gguf=["f16", "q4_k_m"])
    assert json.loads((rundir.merged / "config.json").read_text())["vocab_size"] == 8192


def test_a_wrong_export_is_stopped_with_its_evidence(
    run: Export, rundir: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf, "interleave", lambda weight, heads: weight)
    with pytest.raises(GateError, match=r"does not say what the model says; f32: nmse .* \(bound 1e-06\)") as caught:
        run(gguf=["f16"], modelfile_from="f16", parity_prompts=2)
    assert caught.value.exit_code == 1
    found = json.loads(rundir.parity.read_text())
    assert (found["passed"], found["n"]) == (False, 2)
    assert found["wrong"] == sum(row["outcome"] == "wrong" for row in found["prompts"]) > 0


def test_the_float32_file_stays_if_asked_for(run: Export, rundir: RunDir) -> None:
    run(gguf=["f32"], modelfile_from="f32", max_new_tokens=2)
    assert rundir.gguf("f32").is_file()
    assert "| model-f32.gguf |" in rundir.card.read_text()


def test_refused_before_any_work(run: Export, rundir: RunDir) -> None:
    with pytest.raises(UsageError, match=r"num_ctx 2048 exceeds"):
        run(num_ctx=2048)
    write_jsonl(rundir.split("test"), [])
    with pytest.raises(DataError, match="no test row"):
        run()
    assert not rundir.export.exists()
