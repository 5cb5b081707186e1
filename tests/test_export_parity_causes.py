"""Faults planted in a GGUF, a Modelfile or a checkpoint are each caught and called by their name."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from medmind.core.errors import GateError
from medmind.core.jsonl import read_json, write_json
from medmind.core.types import Example, Message
from medmind.export import gguf
from medmind.export.config import ExportConfig
from medmind.export.merge import merge
from medmind.export.metadata import Facts
from medmind.export.ollama import modelfile
from medmind.export.parity.diagnose import Cause, find_faults
from medmind.export.parity.gate import FileParity, Proof
from medmind.export.parity.go_template import read_modelfile
from medmind.export.parity.prove import Prover, check_merged, choose_questions, open_reference, read_adapter
from medmind.export.parity.tokens import anchor_in, check_tokens
from medmind.models.catalog import describe_folder
from medmind.models.spec import ModelSpec
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import open_renderer

FACTS = Facts("tiny", "MIT", "nano", "")
CONFIG = ExportConfig(max_new_tokens=8, gguf=("f16",), modelfile_from="f16")
EXAMPLES = [
    Example(
        id=f"e{n}", source="t", task="qa", turns=(Message(role="user", text=f"What is {n}?"),), target="A swelling."
    )
    for n in range(3)
]


@dataclass
class Bench:
    """A merged checkpoint with everything beside it that a fault can be planted in."""

    spec: ModelSpec
    adapter: Path
    merged: Path
    folder: Path
    source: Path
    """What the GGUF is written from; the gate holds it against `merged`."""

    @property
    def renderer(self) -> Any:
        return open_renderer(self.spec.renderer, open_tokenizer(self.spec))

    def modelfile(self) -> str:
        return modelfile("x.gguf", self.renderer, system_prompt="", num_ctx=512, temperature=0, licence="MIT")

    def prove(self, words: str | None = None) -> Proof:
        file, renderer = self.folder / "model-f16.gguf", self.renderer
        gguf.write(self.source, file, "f16", FACTS)
        return self.judge(file, words or self.modelfile(), renderer)

    def judge(self, file: Path, words: str, renderer: Any) -> Proof:
        adapter = read_adapter(self.spec, self.adapter)
        questions = choose_questions(CONFIG, EXAMPLES, {}, renderer, "Be kind.", 512, 0)
        reference = open_reference(self.spec, self.merged, renderer)
        prover = Prover(reference, renderer, questions, CONFIG.max_new_tokens)
        candidate = prover.open(file)
        anchor = anchor_in(self.merged)
        tokens = check_tokens(questions.conversations, renderer, anchor, candidate, read_modelfile(words))
        faults = find_faults(self.merged, file, candidate.metadata, adapter)
        found: FileParity = prover.compare(candidate, "f16", CONFIG.parity.f16, None, faults)
        return Proof({"f32": found}, tokens, 0, check_merged(adapter, self.merged))

    def copy(self) -> Path:
        """A checkpoint to spoil."""
        shutil.copytree(self.merged, self.folder / "spoilt")
        return self.folder / "spoilt"


@pytest.fixture(scope="module")
def made(wide_model: Path, wide_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("causes")
    spec = describe_folder(wide_model)
    merge(spec, wide_adapter, folder / "merged")
    return Bench(spec, wide_adapter, folder / "merged", folder, folder / "merged")


@pytest.fixture
def bench(made: Bench, tmp_path: Path) -> Bench:
    return replace(made, folder=tmp_path)


def causes(proof: Proof) -> set[Cause]:
    found = [*proof.merged, *proof.tokens.findings, *(one for file in proof.files.values() for one in file.findings)]
    return {finding.cause for finding in found}


def double_bos(bench: Bench, patch: pytest.MonkeyPatch) -> Proof:
    return bench.prove(bench.modelfile().replace('TEMPLATE """', 'TEMPLATE """<s>'))


def double_bos_in_gguf(bench: Bench, patch: pytest.MonkeyPatch) -> Proof:
    bench.source = bench.copy()
    template = bench.source / "chat_template.jinja"
    template.write_text("{{- bos_token -}}" + template.read_text())
    return bench.prove()


def missing_stop(bench: Bench, patch: pytest.MonkeyPatch) -> Proof:
    return bench.prove(bench.modelfile().replace('PARAMETER stop "</s>"\n', ""))


def wrong_end(bench: Bench, patch: pytest.MonkeyPatch) -> Proof:
    bench.source = bench.copy()
    settings = read_json(bench.source / "tokenizer_config.json")
    write_json(bench.source / "tokenizer_config.json", settings | {"eos_token": "<unk>"})
    return bench.prove()


def rope_base(bench: Bench, patch: pytest.MonkeyPatch) -> Proof:
    bench.source = bench.copy()
    config = read_json(bench.source / "config.json")
    write_json(bench.source / "config.json", config | {"rope_theta": 500.0})
    return bench.prove()


def rope_freqs(bench: Bench, patch: pytest.MonkeyPatch) -> Proof:
    config = read_json(bench.merged / "config.json")
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope |= {"original_max_position_embeddings": 32}
    scaled = {"rope_parameters": config["rope_parameters"] | rope, "rope_scaling": rope}
    whole, bench.merged = bench.merged, bench.copy()
    write_json(bench.merged / "config.json", config | scaled)
    bench.source = whole
    return bench.prove()


def not_merged(bench: Bench, patch: pytest.MonkeyPatch) -> Proof:
    bench.source = bench.copy()
    shutil.copy(Path(bench.spec.source) / "model.safetensors", bench.source)
    return bench.prove()


def never_merged(bench: Bench, patch: pytest.MonkeyPatch) -> Proof:
    bench.merged = bench.source = bench.copy()
    shutil.copy(Path(bench.spec.source) / "model.safetensors", bench.merged)
    return bench.prove()


def drift(bench: Bench, patch: pytest.MonkeyPatch) -> Proof:
    return bench.prove(bench.modelfile().replace("[INST] ", "[INST]"))


def drift_in_gguf(bench: Bench, patch: pytest.MonkeyPatch) -> Proof:
    bench.source = bench.copy()
    template = bench.source / "chat_template.jinja"
    template.write_text(template.read_text().replace("[INST] ", "[INST]"))
    return bench.prove()


def permuted(heads: Callable[[int], int]) -> Callable[[Bench, pytest.MonkeyPatch], Proof]:
    def plant(bench: Bench, patch: pytest.MonkeyPatch) -> Proof:
        real = gguf.heads_of
        with patch.context() as during:
            during.setattr(gguf, "heads_of", lambda name, config: heads(real(name, config)))
            gguf.write(bench.source, bench.folder / "model-f16.gguf", "f16", FACTS)
        return bench.judge(bench.folder / "model-f16.gguf", bench.modelfile(), bench.renderer)

    return plant


def padded(bench: Bench, patch: pytest.MonkeyPatch) -> Proof:
    bench.source = bench.copy()
    weights = load_file(bench.source / "model.safetensors")
    rows = weights["model.embed_tokens.weight"]
    weights["model.embed_tokens.weight"] = torch.cat([rows, torch.zeros(64, rows.shape[1], dtype=rows.dtype)])
    save_file(weights, bench.source / "model.safetensors", {"format": "pt"})
    config = read_json(bench.source / "config.json")
    write_json(bench.source / "config.json", config | {"vocab_size": len(rows) + 64})
    return bench.prove()


@pytest.mark.parametrize(
    ("plant", "cause"),
    [
        (double_bos, Cause.DOUBLE_BOS),
        (double_bos_in_gguf, Cause.DOUBLE_BOS),
        (missing_stop, Cause.STOP),
        (wrong_end, Cause.STOP),
        (rope_base, Cause.ROPE_BASE),
        (rope_freqs, Cause.ROPE_FREQS),
        (not_merged, Cause.NOT_MERGED),
        (never_merged, Cause.NOT_MERGED),
        (drift, Cause.TEMPLATE),
        (drift_in_gguf, Cause.TEMPLATE),
        (permuted(lambda heads: 0), Cause.PERMUTATION),
        (permuted(lambda heads: {0: 0, 4: 2, 2: 4}[heads]), Cause.PERMUTATION),
        (padded, Cause.PADDED),
    ],
)
def test_a_planted_fault_is_named(
    plant: Callable[[Bench, pytest.MonkeyPatch], Proof], cause: Cause, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = plant(bench, monkeypatch)
    assert causes(proof) == {cause}
    with pytest.raises(GateError, match=f"{cause.value}: ") as caught:
        proof.refuse("parity.json")
    assert caught.value.exit_code == 1
    assert caught.value.todo


def test_without_a_fault_nothing_is_named(bench: Bench) -> None:
    proof = bench.prove()
    assert causes(proof) == set()
    assert proof.passed, proof.files["f32"].faults
    proof.refuse("parity.json")
