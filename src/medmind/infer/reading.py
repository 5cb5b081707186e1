"""What a decoder makes of texts, after a few of their places: all that log-likelihoods need of a forward pass.

On a CPU the texts lie side by side without padding, attention goes block by block, and the last layer works only where
it is asked. transformers' own pass over padded texts is the slow twin, and serves everything else.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch
from torch.nn.functional import linear, silu
from transformers import LlamaModel, MistralModel

BLOCK = 128
"""Positions in a block: its scores stay in the cache, and little above the diagonal is computed."""
Spot = tuple[int, int]
"""A text and a place in it."""


def read(model: Any, rows: Sequence[Sequence[int]], spots: Sequence[Spot]) -> torch.Tensor:
    """The last hidden state after each spot: (spots, hidden size)."""
    return read_packed(model.get_decoder(), rows, spots) if can_pack(model) else read_padded(model, rows, spots)


def can_pack(model: Any) -> bool:
    """Whether it is a decoder whose parts are all known, with plain weights in float32 on a CPU."""
    decoder = model.get_decoder()
    if type(decoder) not in (LlamaModel, MistralModel) or model.device.type != "cpu" or model.dtype != torch.float32:
        return False
    products = [module for layer in decoder.layers for name, module in layer.named_modules() if name.endswith("_proj")]
    plain = all(type(module) is torch.nn.Linear and module.bias is None for module in products)
    return plain and not getattr(decoder.config, "sliding_window", None) and decoder.config.hidden_act == "silu"


def read_packed(decoder: Any, rows: Sequence[Sequence[int]], spots: Sequence[Spot]) -> torch.Tensor:
    lengths = [len(row) for row in rows]
    positions = torch.cat([torch.arange(length) for length in lengths])
    states = decoder.embed_tokens(torch.tensor([token for row in rows for token in row]))
    turns = [part[0, :, None] for part in decoder.rotary_emb(states[None], positions[None])]
    for layer in decoder.layers[:-1]:
        attention, normal = layer.self_attn, normalise(layer.input_layernorm, states)
        query, key, value = (heads(attention, name, normal) for name in ("q_proj", "k_proj", "v_proj"))
        seen = attend(rotate(query, turns), rotate(key, turns), value, lengths, attention.scaling)
        states.addmm_(seen, attention.o_proj.weight.T)
        add_mlp(layer, states)
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    asked = torch.tensor([starts[row] + place for row, place in spots])
    layer = decoder.layers[-1]
    attention, normal = layer.self_attn, normalise(layer.input_layernorm, states)
    key, value = rotate(heads(attention, "k_proj", normal), turns), heads(attention, "v_proj", normal)
    query = rotate(heads(attention, "q_proj", normal[asked]), [part[asked] for part in turns])
    seen = torch.empty(len(spots), query.shape[1] * query.shape[2])
    for line, (row, place) in enumerate(spots):
        before = slice(starts[row], starts[row] + place + 1)
        look(query[line : line + 1], key[before], value[before], attention.scaling, seen[line : line + 1])
    states = states[asked].addmm_(seen, attention.o_proj.weight.T)
    add_mlp(layer, states)
    return normalise(decoder.norm, states)


def normalise(norm: Any, states: torch.Tensor) -> torch.Tensor:
    """RMSNorm in three passes."""
    size = states.shape[-1]
    length = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
    inverse = (length.square_() / size + norm.variance_epsilon).rsqrt_()
    return torch.mul(states, inverse).mul_(norm.weight)


def heads(attention: Any, name: str, normal: torch.Tensor) -> torch.Tensor:
    """(tokens, heads, head size)."""
    return linear(normal, getattr(attention, name).weight).view(len(normal), -1, attention.head_dim)


def rotate(states: torch.Tensor, turns: Sequence[torch.Tensor]) -> torch.Tensor:
    """Rotary positions; cosine and sine say the same for both halves of a head."""
    half = states.shape[-1] // 2
    cosine, sine = (part[..., :half] for part in turns)
    one, other = states[..., :half], states[..., half:]
    found = torch.empty_like(states)
    torch.mul(one, cosine, out=found[..., :half]).addcmul_(other, sine, value=-1)
    torch.mul(other, cosine, out=found[..., half:]).addcmul_(one, sine)
    return found


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], scale: float
) -> torch.Tensor:
    """(tokens, heads, size) and the key heads' (tokens, fewer, size) → (tokens, heads × size), causal in each text.

    Texts of one length go together; the queries that share a key head are its group and lie as rows.
    """
    found = torch.empty_like(query)
    shared, group = key.shape[1], query.shape[1] // key.shape[1]
    start = 0
    for length, run in groupby(lengths):
        count = len(list(run))
        part = slice(start, start + count * length)
        start = part.stop
        q, k, v = (by_head(states[part], count, shared) for states in (query, key, value))
        out = found[part].view(count, length, shared, group, -1).transpose(1, 2)
        for first in range(0, length, BLOCK):
            last = min(first + BLOCK, length)
            bias = causal_bias(first, group)[: (last - first) * group, :last]
            scores = torch.baddbmm(bias, q[:, first * group : last * group], k[:, :last].transpose(1, 2), alpha=scale)
            block = torch.bmm(scores.softmax(-1), v[:, :last])
            out[:, :, first:last].copy_(block.view(count, shared, last - first, group, -1))
    return found.flatten(1)


def by_head(states: torch.Tensor, count: int, shared: int) -> torch.Tensor:
    """(texts × key heads, length × group, size), a copy."""
    split = states.view(count, -1, shared, states.shape[1] // shared, states.shape[2])
    return split.transpose(1, 2).flatten(0, 1).flatten(1, 2).contiguous()


@lru_cache(maxsize=32)
def causal_bias(first: int, group: int) -> torch.Tensor:
    """(BLOCK × group, first + BLOCK): nought up to a row's own position, minus infinity after it."""
    own = torch.arange(first, first + BLOCK).repeat_interleave(group)
    later = torch.arange(first + BLOCK)[None, :] > own[:, None]
    return torch.zeros(later.shape).masked_fill_(later, float("-inf"))


def look(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, out: torch.Tensor) -> None:
    """One position's view of all up to it: (1, heads, size) at (tokens, fewer heads, size)."""
    rows = query.view(key.shape[1], -1, query.shape[2])
    scores = torch.bmm(rows, key.permute(1, 2, 0)).mul_(scale)
    out.copy_(torch.bmm(scores.softmax(-1), value.transpose(0, 1)).view(1, -1))


def add_mlp(layer: Any, states: torch.Tensor) -> None:
    normal = normalise(layer.post_attention_layernorm, states)
    inner = silu(linear(normal, layer.mlp.gate_proj.weight), inplace=True)
    inner.mul_(linear(normal, layer.mlp.up_proj.weight))
    states.addmm_(inner, layer.mlp.down_proj.weight.T)


def read_padded(model: Any, rows: Sequence[Sequence[int]], spots: Sequence[Spot]) -> torch.Tensor:
    """Right-padded without a mask: under causal attention the padding comes too late to be seen."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=model.device)
    texts, places = map(list, zip(*spots, strict=True))
    with last_mlp_at(model, texts, places):
        hidden: torch.Tensor = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    return hidden[texts, places]


@contextmanager
def last_mlp_at(model: Any, texts: Sequence[int], places: Sequence[int]) -> Iterator[None]:
    """Within it, the last block's MLP works only where it is read: no position sees another's. Elsewhere, nonsense."""
    mlp = model.get_decoder().layers[-1].mlp
    whole = mlp.forward

    def part(states: torch.Tensor) -> torch.Tensor:
        found = torch.zeros_like(states)
        found[texts, places] = whole(states[texts, places])
        return found

    mlp.forward = part
    try:
        yield
    finally:
        mlp.forward = whole
