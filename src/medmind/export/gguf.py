"""A merged checkpoint as a GGUF file, written tensor by tensor: dense Llama and Mistral."""

import math
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type

from medmind.core.disk import require_space
from medmind.core.errors import DataError, UsageError
from medmind.core.jsonl import read_json
from medmind.core.protocols import Progress
from medmind.export.header import read_tensors
from medmind.export.kinds import pick
from medmind.export.merge import CONFIG
from medmind.export.metadata import Facts, add_architecture, add_control_tokens, add_general, add_kind, head_size
from medmind.export.quantise import encode
from medmind.export.shards import is_finite
from medmind.export.vocab import read_vocabulary
from medmind.export.whole import whole
from medmind.models.stored import StoredTensor
from medmind.models.weights import list_weights, open_weights

ARCHITECTURES = ("MistralForCausalLM", "LlamaForCausalLM")
HEADS = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
"""Whose rows are reordered for rotary pairs, head by head."""
BUFFERS = ".rotary_emb.inv_freq"
"""Old checkpoints hold what is computed from the config."""
SMALL = 20_000_000
"""Header, vocabulary and padding."""


@dataclass(frozen=True)
class Tensor:
    """One tensor's place in the GGUF, and where its numbers are; `heads` > 0: its rows are reordered."""

    name: str
    shape: tuple[int, ...]
    stored: StoredTensor | torch.Tensor
    heads: int = 0

    @property
    def source(self) -> str:
        return self.stored.name if isinstance(self.stored, StoredTensor) else self.name

    def read(self) -> torch.Tensor:
        values = self.stored[...]
        if not is_finite(values):
            raise DataError(f"{self.source} holds a value that is not a number", todo="train again")
        return interleave(values, self.heads) if self.heads else values


@dataclass(frozen=True)
class Planned:
    """A tensor and the type it is stored in."""

    tensor: Tensor
    qtype: Type

    @property
    def size(self) -> int:
        return math.prod(gguf.quant_shape_to_byte_shape(self.tensor.shape, self.qtype))


def interleave(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of q or k from the two halves of each head (Hugging Face) to neighbouring pairs (llama.cpp)."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def write(merged: Path, out: Path, kind: str, facts: Facts, progress: Progress | None = None) -> None:
    """`kind` is one of KINDS. Memory holds one matrix; nothing is left under `out` that was not read back."""
    config = read_json(merged / CONFIG)
    check_config(config, merged / CONFIG)
    plan = make_plan(merged, config, kind)
    vocabulary = read_vocabulary(merged / "tokenizer.json", config["vocab_size"])
    with whole(out) as temporary:
        require_space(temporary, sum(each.size for each in plan) + SMALL, out.name)
        with closing(gguf.GGUFWriter(temporary, "llama")) as writer:
            add_kind(writer, kind)
            add_general(writer, facts, sum(math.prod(each.tensor.shape) for each in plan))
            add_architecture(writer, config)
            vocabulary.write(writer)
            add_control_tokens(writer, merged, vocabulary)
            stream(writer, plan, temporary, progress)
        verify(temporary, plan)


def make_plan(merged: Path, config: dict[str, Any], kind: str) -> list[Planned]:
    layers, tied = config["num_hidden_layers"], config["tie_word_embeddings"]
    return [
        Planned(tensor, pick(kind, tensor.name, tensor.shape, layers, tied))
        for tensor in [*rope_factors(config), *find_tensors(merged, config)]
    ]


def stream(writer: gguf.GGUFWriter, plan: list[Planned], out: Path, progress: Progress | None = None) -> None:
    """The header from the shapes alone, then one tensor at a time; what passes through files does so beside `out`."""
    for each in plan:
        name, shape = each.tensor.name, each.tensor.shape
        writer.add_tensor_info(name, shape, np.dtype(np.float32), each.size, raw_dtype=each.qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.", dir=out.parent) as folder:
        for number, each in enumerate(plan, start=1):
            try:
                data = encode(each.tensor.read(), each.qtype, Path(folder))
            except OverflowError:
                raise DataError(
                    f"{each.tensor.source} exceeds the range of float16", todo="choose bf16 or q8_0 in export.gguf"
                ) from None
            writer.write_tensor_data(data)
            if progress:
                progress(number, len(plan))


def verify(file: Path, plan: list[Planned]) -> None:
    """Reads the head back: every tensor in its type and shape, and whole within the file."""
    expected = {each.tensor.name: (each.qtype, each.tensor.shape) for each in plan}
    found = {name: (info.qtype, info.shape) for name, info in read_tensors(file).items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise DataError(f"the written GGUF differs from its plan in {', '.join(wrong[:3])}", where=str(file))


def check_config(config: dict[str, Any], file: Path) -> None:
    """What the llama architecture of llama.cpp would get wrong without a word."""
    architecture = config["architectures"][0]
    faults = []
    if architecture not in ARCHITECTURES:
        faults.append(f"the architecture {architecture} (known: {', '.join(ARCHITECTURES)})")
    if config.get("hidden_act", "silu") != "silu":
        faults.append(f"the activation {config['hidden_act']}")
    if config["rope_parameters"]["rope_type"] not in ("default", "llama3"):
        faults.append(f"rotary scaling of type {config['rope_parameters']['rope_type']}")
    if config.get("sliding_window") is not None:
        faults.append(f"a sliding window of {config['sliding_window']}")
    if faults:
        raise UsageError(f"export does not support {'; '.join(faults)}", where=str(file), todo="choose another base")


def rope_factors(config: dict[str, Any]) -> Iterator[Tensor]:
    """Llama 3 slows its long waves down; llama.cpp reads by how much from a tensor, one number for each pair."""
    rope = config["rope_parameters"]
    if rope["rope_type"] != "llama3":
        return
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    head = head_size(config)
    waves = 2 * math.pi * rope["rope_theta"] ** (torch.arange(0, head, 2, dtype=torch.float64) / head)
    turns = rope["original_max_position_embeddings"] / waves
    share = (turns - low) / (high - low)
    between = 1 / ((1 - share) / factor + share)
    factors = torch.where(turns > high, 1.0, torch.where(turns < low, factor, between)).float()
    yield Tensor("rope_freqs.weight", tuple(factors.shape), factors)


def find_tensors(merged: Path, config: dict[str, Any]) -> list[Tensor]:
    """In the order of the file: embedding, blocks, norm, head. A tied head is left out, the loader reuses the rows."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    found = []
    for file in list_weights(merged):
        with open_weights(file) as weights:
            for source in weights.keys():  # noqa: SIM118 (not a dictionary)
                if source.endswith(BUFFERS) or (source == "lm_head.weight" and config["tie_word_embeddings"]):
                    continue
                name = names.get_name(source, (".weight", ".bias"))
                if name is None:
                    raise DataError(f"no place in a GGUF for {source}", where=str(file), todo="choose another base")
                shape = tuple(weights.get_slice(source).get_shape())
                found.append(Tensor(name, shape, StoredTensor(file, source), heads_of(name, config)))
    return sorted(found, key=file_order)


def heads_of(name: str, config: dict[str, Any]) -> int:
    part = name.split(".")[-2]
    return int(config[HEADS[part]]) if part in HEADS else 0


def file_order(tensor: Tensor) -> tuple[int, int, str]:
    part, _, rest = tensor.name.partition(".")
    if part == "blk":
        return 1, int(rest.partition(".")[0]), tensor.name
    return (0 if part == "token_embd" else 2), 0, tensor.name
