"""Why an export says something else: the file's own words and numbers against the checkpoint's, each cause by name."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray

from medmind.core.jsonl import read_json
from medmind.core.types import Record
from medmind.export.gguf import find_tensors, interleave, rope_factors
from medmind.export.header import read_tensors
from medmind.export.lora import PlainLora
from medmind.export.merge import CONFIG, spell_twice
from medmind.models.stored import StoredTensor, open_tensors

CHECKED_UPDATES = 4
"""Matrices of an adapter that are looked for in a file: the first ones and the last ones."""
Weights = Callable[[str], torch.Tensor | None]
"""A weight by its checkpoint's name."""
ALIKE = 0.9
"""Least correlation of a matrix with what it was rounded from; four bits give 0.995."""


class Cause(StrEnum):
    DOUBLE_BOS = "double BOS"
    STOP = "missing stop"
    ROPE_BASE = "wrong rope base"
    ROPE_FREQS = "rope_freqs missing"
    NOT_MERGED = "adapter not merged"
    TEMPLATE = "template drift"
    PERMUTATION = "swapped q/k permutation"
    PADDED = "padded vocabulary"
    TOKENIZER = "another tokenizer"
    WEIGHTS = "other weights"


TODO = {
    Cause.DOUBLE_BOS: "leave BOS to the runtime: take it out of the template, or unset tokenizer.ggml.add_bos_token",
    Cause.STOP: "set the end-of-turn token as tokenizer.ggml.eos_token_id, and PARAMETER stop in the Modelfile",
    Cause.ROPE_BASE: "write rope_theta of config.json as llama.rope.freq_base (absent, it is 10000)",
    Cause.ROPE_FREQS: "write the tensor rope_freqs.weight, computed from rope_parameters of config.json",
    Cause.NOT_MERGED: "merge the adapter into the base, then convert the merged folder",
    Cause.TEMPLATE: "write the template that training used, word for word",
    Cause.PERMUTATION: "reorder the rows of attn_q by its own number of heads, those of attn_k by the key-value heads",
    Cause.PADDED: "do not resize the embedding: use an unused token as padding",
    Cause.TOKENIZER: "take the tokenizer of the checkpoint, and llama.cpp's name of its pre-tokeniser",
    Cause.WEIGHTS: "convert this checkpoint again",
}


class Finding(Record):
    cause: Cause
    detail: str

    def __str__(self) -> str:
        return f"{self.cause.value}: {self.detail}"

    @property
    def todo(self) -> str:
        return TODO[self.cause]


@dataclass(frozen=True)
class Adapter:
    """What training added, beside the weights it was added to."""

    lora: PlainLora
    base: Mapping[str, StoredTensor]


@dataclass(frozen=True)
class Part:
    """A tensor of a GGUF, `shape` as numpy has it; nothing of it is in memory before it is asked for."""

    name: str
    qtype: gguf.GGMLQuantizationType
    shape: tuple[int, ...]
    raw: NDArray[np.uint8]

    def values(self) -> torch.Tensor:
        rows = self.raw.reshape(gguf.quant_shape_to_byte_shape(self.shape, self.qtype))
        return torch.from_numpy(np.array(gguf.quants.dequantize(rows, self.qtype), dtype=np.float32))


def open_parts(file: Path) -> dict[str, Part]:
    raw = np.memmap(file, np.uint8, "r")
    return {
        name: Part(name, one.qtype, one.shape, raw[one.offset : one.offset + one.size])
        for name, one in read_tensors(file).items()
    }


def find_faults(merged: Path, file: Path, metadata: Mapping[str, str], adapter: Adapter | None) -> list[Finding]:
    """All that header and numbers of a GGUF tell; `merged` is the checkpoint it was made from."""
    config = {"tie_word_embeddings": False} | spell_twice(read_json(merged / CONFIG))
    tensors = open_parts(file)
    found = [*check_rope(config, metadata, tensors), *check_vocabulary(config, merged, metadata, tensors)]
    if disorder := list(check_order(config, merged, tensors)):
        return [*found, *disorder]  # in rows out of order no adapter can be looked for
    return [*found, *check_adapter(adapter, lambda name: read_as(name, config, tensors), file.name)]


def check_rope(config: dict[str, Any], metadata: Mapping[str, str], tensors: Mapping[str, Part]) -> Iterator[Finding]:
    base = float(metadata.get("llama.rope.freq_base", 10000.0))
    if not math.isclose(base, config["rope_theta"], rel_tol=1e-6):
        yield Finding(cause=Cause.ROPE_BASE, detail=f"the file says {base:g}, config.json {config['rope_theta']:g}")
    for factors in rope_factors(config):
        found = tensors.get(factors.name)
        if found is None:
            yield Finding(cause=Cause.ROPE_FREQS, detail="config.json scales the rotary frequencies, the file does not")
        elif not torch.allclose(found.values(), factors.read(), rtol=1e-4):
            yield Finding(cause=Cause.ROPE_FREQS, detail=f"{factors.name} holds other factors than config.json gives")


def check_vocabulary(
    config: dict[str, Any], merged: Path, metadata: Mapping[str, str], tensors: Mapping[str, Part]
) -> Iterator[Finding]:
    rows = {
        "the file's embedding": tensors["token_embd.weight"].shape[0],
        "the file's llama.vocab_size": int(metadata.get("llama.vocab_size", config["vocab_size"])),
        "the checkpoint's embedding": len(open_tensors(merged)["model.embed_tokens.weight"][...]),
    }
    for what, count in rows.items():
        if count != config["vocab_size"]:
            detail = f"{what} has {count} tokens, config.json {config['vocab_size']}"
            yield Finding(cause=Cause.PADDED, detail=detail)


def check_order(config: dict[str, Any], merged: Path, tensors: Mapping[str, Part]) -> Iterator[Finding]:
    """The first layer's q and k: in the right order, in a known wrong one, or other numbers altogether."""
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for expected in find_tensors(merged, config):
        layer, part = expected.name.removesuffix(".weight").rpartition(".")[::2]
        if layer != "blk.0" or part not in heads or tensors[expected.name].shape != expected.shape:
            continue
        found, right = tensors[expected.name].values(), expected.read().float()
        yield from name_order(expected.name, found, right, expected.stored[...].float(), part, heads)


def name_order(
    name: str, found: torch.Tensor, right: torch.Tensor, plain: torch.Tensor, part: str, heads: Mapping[str, int]
) -> Iterator[Finding]:
    """`right` is in llama.cpp's order, `plain` the same in Hugging Face's; `part` is attn_q or attn_k."""
    if correlation(found, right) >= ALIKE:
        return
    wrong = {"is not reordered at all": plain, "is reordered twice": interleave(right, heads[part])}
    for count in {*heads.values()} - {heads[part]}:
        if plain.shape[0] % (2 * count) == 0:
            wrong[f"is reordered for {count} heads, it has {heads[part]}"] = interleave(plain, count)
    named = [how for how, values in wrong.items() if correlation(found, values) >= ALIKE]
    if named:
        yield Finding(cause=Cause.PERMUTATION, detail=f"{name} {named[0]}")
    else:
        yield Finding(cause=Cause.WEIGHTS, detail=f"{name} holds other numbers")


def check_adapter(adapter: Adapter | None, read: Weights, where: str) -> Iterator[Finding]:
    """`read` gives a weight by its checkpoint's name, or None; a weight that was replaced whole tells nothing here."""
    shares = adapter_shares(adapter, read) if adapter else {}
    missing = [name for name, share in shares.items() if share < 0.5]
    twice = [name for name, share in shares.items() if share > 1.5]
    if missing:
        detail = f"{where} holds {shares[missing[0]]:.2f} of what the adapter adds to {missing[0]}"
        yield Finding(cause=Cause.NOT_MERGED, detail=detail)
    if twice:
        yield Finding(cause=Cause.WEIGHTS, detail=f"{where} holds the adapter {shares[twice[0]]:.1f} times over")


def adapter_shares(adapter: Adapter, read: Weights) -> dict[str, float]:
    """How much of the adapter's own part is in a weight: 1 merged, 0 not. Rounding falls in all directions alike."""
    names = sorted(adapter.lora.updates)
    chosen = dict.fromkeys([*names[: CHECKED_UPDATES // 2], *names[-CHECKED_UPDATES // 2 :]])
    shares = {}
    for name in chosen:
        delta, base, weight = adapter.lora.updates[name].delta(), adapter.base[name][...].float(), read(name)
        size = float((delta * delta).sum())
        if weight is not None and weight.shape == base.shape and size > 0:
            shares[name] = float(((weight - base) * delta).sum()) / size
    return shares


def read_as(name: str, config: dict[str, Any], tensors: Mapping[str, Part]) -> torch.Tensor | None:
    """A GGUF's matrix in the order and by the name of a checkpoint."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    found = tensors.get(names.get_name(name, (".weight", ".bias")) or "")
    if found is None:
        return None
    values = found.values()
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    count = heads.get(found.name.split(".")[-2])
    return half_split(values, count) if count else values


def half_split(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """`interleave` undone."""
    return weight.reshape(heads, -1, 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0))


def read_checkpoint(folder: Path) -> Weights:
    """What `check_adapter` reads a checkpoint with."""
    tensors: dict[str, StoredTensor] = open_tensors(folder)
    return lambda name: tensors[name][...].float() if name in tensors else None


def in_words(findings: Sequence[Finding]) -> str:
    return "; ".join(dict.fromkeys(str(finding) for finding in findings))
