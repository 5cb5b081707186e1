"""A merged checkpoint as a GGUF file, written tensor by tensor: dense Llama and Mistral with byte-level BPE."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from safetensors import safe_open

from medmind.core.errors import DataError, UsageError
from medmind.core.jsonl import read_json
from medmind.core.protocols import Progress
from medmind.export.merge import CONFIG, TEMPLATE
from medmind.export.vocab import Vocabulary, read_vocabulary
from medmind.export.whole import whole

ARCHITECTURES = ("MistralForCausalLM", "LlamaForCausalLM")
KINDS = {
    "f32": (Type.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (Type.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (Type.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
"""What this writer can make, each with the type of its matrices; vectors are always F32."""


@dataclass(frozen=True)
class Facts:
    """What a file says about itself."""

    name: str
    licence: str
    base: str
    base_source: str


@dataclass(frozen=True)
class Tensor:
    """One tensor's place in the checkpoint and in the GGUF; `heads` > 0: its rows are reordered for rotary pairs."""

    name: str
    file: Path
    source: str
    shape: tuple[int, ...]
    heads: int

    def qtype(self, kind: str) -> Type:
        return KINDS[kind][0] if len(self.shape) > 1 else Type.F32

    def read(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        with safe_open(self.file, framework="pt") as weights:
            values = weights.get_tensor(self.source).to(torch.float32)
        if not bool(torch.isfinite(values).all()):
            raise DataError(f"{self.source} holds a value that is not a number", where=str(self.file))
        return (interleave(values, self.heads) if self.heads else values).contiguous().numpy()


def interleave(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of q or k from the two halves of each head (Hugging Face) to neighbouring pairs (llama.cpp)."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def write(merged: Path, out: Path, kind: str, facts: Facts, progress: Progress | None = None) -> None:
    """`kind` is one of KINDS."""
    config = read_json(merged / CONFIG)
    check_config(config, merged / CONFIG)
    tensors = list(find_tensors(merged, config))
    vocabulary = read_vocabulary(merged / "tokenizer.json", config["vocab_size"])
    with whole(out) as temporary:
        with closing(gguf.GGUFWriter(temporary, "llama")) as writer:
            add_general(writer, facts, kind, sum(int(np.prod(tensor.shape)) for tensor in tensors))
            add_architecture(writer, config)
            vocabulary.write(writer)
            add_control_tokens(writer, merged, vocabulary)
            stream(writer, tensors, kind, progress)
        verify(temporary, {tensor.name: tensor.qtype(kind) for tensor in tensors})


def stream(writer: gguf.GGUFWriter, tensors: list[Tensor], kind: str, progress: Progress | None) -> None:
    """The header from the shapes alone, then one tensor at a time: memory holds the largest, not the model."""
    for tensor in tensors:
        qtype = tensor.qtype(kind)
        size = int(np.prod(gguf.quant_shape_to_byte_shape(tensor.shape, qtype)))
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, raw_dtype=qtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for number, tensor in enumerate(tensors, start=1):
        writer.write_tensor_data(encode(tensor, kind))
        if progress:
            progress(number, len(tensors))


def encode(tensor: Tensor, kind: str) -> np.ndarray[Any, Any]:
    with np.errstate(over="ignore"):
        data: np.ndarray[Any, Any] = gguf.quants.quantize(tensor.read(), tensor.qtype(kind))
    if data.dtype == np.float16 and not np.isfinite(data).all():
        raise DataError(f"{tensor.source} exceeds the range of float16", where=str(tensor.file))
    return data


def verify(file: Path, expected: dict[str, Type]) -> None:
    """Reads the file back with the library's reader, which maps it and touches no weight."""
    found = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(file).tensors}
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
    if config["rope_parameters"]["rope_type"] != "default":
        faults.append(f"rotary scaling of type {config['rope_parameters']['rope_type']}")
    if config.get("sliding_window") is not None:
        faults.append(f"a sliding window of {config['sliding_window']}")
    if faults:
        raise UsageError(f"export does not support {'; '.join(faults)}", where=str(file), todo="choose another base")


def find_tensors(merged: Path, config: dict[str, Any]) -> Iterator[Tensor]:
    """In the order of the file: embedding, blocks, norm, head. A tied head is left out, the loader reuses the rows."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    found = []
    for file in sorted(merged.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            for source in weights.keys():  # noqa: SIM118 (not a dictionary)
                if source == "lm_head.weight" and config["tie_word_embeddings"]:
                    continue
                name = names.get_name(source, (".weight", ".bias"))
                if name is None:
                    raise DataError(f"no place in a GGUF for {source}", where=str(file))
                shape = tuple(weights.get_slice(source).get_shape())
                found.append(Tensor(name, file, source, shape, heads.get(name.split(".")[-2], 0)))
    yield from sorted(found, key=file_order)


def file_order(tensor: Tensor) -> tuple[int, int, str]:
    part, _, rest = tensor.name.partition(".")
    if part == "blk":
        return 1, int(rest.partition(".")[0]), tensor.name
    return (0 if part == "token_embd" else 2), 0, tensor.name


def add_general(writer: gguf.GGUFWriter, facts: Facts, kind: str, parameters: int) -> None:
    writer.add_type("model")
    writer.add_name(facts.name)
    writer.add_basename(facts.base)
    writer.add_finetune(facts.name)
    writer.add_size_label(gguf.size_label(parameters, parameters, 0, 0))
    writer.add_license(facts.licence)
    writer.add_quantized_by(f"medmind {version('medmind')}")
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, facts.base)
    writer.add_base_model_repo_url(0, facts.base_source)
    writer.add_file_type(KINDS[kind][1])
    if kind == "q8_0":
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def add_architecture(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config["rope_theta"])


def add_control_tokens(writer: gguf.GGUFWriter, merged: Path, vocabulary: Vocabulary) -> None:
    settings = read_json(merged / "tokenizer_config.json")
    writer.add_bos_token_id(vocabulary.tokens.index(settings["bos_token"]))
    writer.add_eos_token_id(vocabulary.tokens.index(settings["eos_token"]))
    writer.add_unk_token_id(vocabulary.tokens.index(settings["unk_token"]))
    writer.add_pad_token_id(vocabulary.tokens.index(settings["pad_token"]))
    writer.add_add_bos_token(settings["add_bos_token"])
    writer.add_add_eos_token(settings["add_eos_token"])
    writer.add_chat_template((merged / TEMPLATE).read_text(encoding="utf-8"))
