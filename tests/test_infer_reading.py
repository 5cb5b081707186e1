"""Texts read side by side on a CPU say what transformers' own pass over padded texts says."""

import random
from typing import Any

import pytest
import torch
from tiny import tiny_mistral
from transformers import LlamaConfig, LlamaForCausalLM

from medmind.infer.reading import BLOCK, can_pack, read, read_packed, read_padded

LENGTHS = (300, 300, 300, BLOCK + 1, BLOCK, BLOCK, 7, 1)
SCALED = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0} | {
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def llama(**changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(3)
    shape: dict[str, Any] = {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512}
    return LlamaForCausalLM(LlamaConfig(**shape | heads | {"rope_parameters": SCALED} | changes))


def texts() -> list[list[int]]:
    draw = random.Random(0)
    return [[draw.randrange(97) for _ in range(length)] for length in LENGTHS]


@pytest.mark.parametrize("family", ["mistral", "llama"])
@torch.inference_mode()
def test_the_fast_pass_beside_its_slow_twin(family: str) -> None:
    model = llama() if family == "llama" else tiny_mistral(0, vocab_size=97, initializer_range=0.2)
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    rows = texts()
    spots = [(row, place) for row, ids in enumerate(rows) for place in {0, len(ids) // 2, len(ids) - 1}]
    random.Random(1).shuffle(spots)
    assert can_pack(model)
    fast, slow = read_packed(model.get_decoder(), rows, spots), read_padded(model, rows, spots)
    assert fast.shape == (len(spots), 64)
    assert torch.allclose(fast, slow, atol=2e-5)
    assert torch.equal(read(model, rows, spots), fast)
    whole = model.get_decoder()(input_ids=torch.tensor([rows[0]])).last_hidden_state[0]
    assert torch.allclose(read(model, rows[:1], [(0, 299)])[0], whole[299], atol=2e-5)


def test_what_it_does_not_know_goes_the_slow_way() -> None:
    mistral = tiny_mistral(0, vocab_size=97)
    assert can_pack(mistral)
    assert not can_pack(tiny_mistral(0, vocab_size=97, sliding_window=8))
    assert not can_pack(tiny_mistral(0, vocab_size=97, hidden_act="gelu"))
    assert not can_pack(llama(attention_bias=True))
    assert not can_pack(mistral.to(torch.bfloat16))
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(llama(), LoraConfig(r=2, target_modules=["q_proj"]))
    assert not can_pack(adapted)
