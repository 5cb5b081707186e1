"""The gate on a Llama: scaled frequencies, tied embeddings, four layers, prompts beyond the unscaled context."""

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from vocabularies import byte_level_json

from medmind.core.types import Example, Message
from medmind.export import gguf
from medmind.export.config import ExportConfig
from medmind.export.merge import merge
from medmind.export.metadata import Facts
from medmind.export.parity.diagnose import Cause, find_faults
from medmind.export.parity.gate import FileParity
from medmind.export.parity.prove import Prover, choose_questions, open_reference
from medmind.export.parity.tokens import anchor_in, check_tokens, odd_strings
from medmind.models.catalog import describe_folder
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import open_renderer

ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}
LONG = " ".join(f"Finding {n} of the report is a swelling." for n in range(220))
EXAMPLES = [
    Example(
        id=f"e{n}",
        source="t",
        task="qa",
        turns=(Message(role="user", text=f"{LONG}\nWhat is {n}?"),),
        target="A swelling of the skin.",
    )
    for n in range(2)
]
CONFIG = ExportConfig(max_new_tokens=6, gguf=("f32",), modelfile_from="f32")


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    (folder / "base").mkdir()
    (folder / "base" / "tokenizer.json").write_text(byte_level_json("llama-bpe"), encoding="utf-8")
    size = 1 + max(token["id"] for token in json.loads(byte_level_json("llama-bpe"))["added_tokens"])
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        rope_parameters=dict(ROPE),
    )
    model = LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3 if "_proj" in name else 0.1)
    model.save_pretrained(folder / "base")
    merge(describe_folder(folder / "base"), folder / "base", folder / "merged")
    return folder / "merged"


@pytest.mark.slow
def test_long_prompts_under_scaled_frequencies(merged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = describe_folder(merged)
    renderer = open_renderer(spec.renderer, open_tokenizer(spec))
    questions = choose_questions(CONFIG, EXAMPLES, {}, renderer, "Be kind.", spec.context, 0)
    assert min(map(len, questions.prompts.values())) > 2000
    prover = Prover(open_reference(spec, merged, renderer), renderer, questions, CONFIG.max_new_tokens)

    def judge(name: str) -> FileParity:
        file = tmp_path / name
        gguf.write(merged, file, "f32", Facts("tiny", "MIT", "llama", ""))
        candidate = prover.open(file)
        if name == "whole.gguf":
            strings = odd_strings(200, 0)
            tokens = check_tokens(questions.conversations, renderer, anchor_in(merged), candidate, None, strings)
            assert tokens.passed, tokens
        return prover.compare(
            candidate, "f32", CONFIG.parity.f32, None, find_faults(merged, file, candidate.metadata, None)
        )

    found = judge("whole.gguf")
    assert found.passed, found.faults
    with monkeypatch.context() as without:
        without.setattr(gguf, "rope_factors", lambda config: [])
        spoilt = judge("spoilt.gguf")
    assert "nmse" in [check.check for check in spoilt.checks if not check.passed]
    header = prover.open(tmp_path / "spoilt.gguf").metadata
    findings = find_faults(merged, tmp_path / "spoilt.gguf", header, None)
    assert [finding.cause for finding in findings] == [Cause.ROPE_FREQS]
