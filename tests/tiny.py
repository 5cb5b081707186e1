"""The one small model of the tests: nano's format, two layers of 64, random weights."""

from typing import Any

import torch
from transformers import MistralConfig, MistralForCausalLM


def tiny_mistral(seed: int, **changes: Any) -> MistralForCausalLM:
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": 8192,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "sliding_window": None,
    }
    return MistralForCausalLM(MistralConfig(**shape | changes))
