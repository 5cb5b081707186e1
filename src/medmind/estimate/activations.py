"""What a forward pass keeps for the backward pass: one term a tensor, as train/fused.py and its neighbours keep them.

A test counts the tensors autograd really saves and compares.
"""

from dataclasses import dataclass

from medmind.estimate.counts import ATTENTION_IN, MLP_IN, key_size, linears, query_size, targets
from medmind.models.spec import ModelSpec
from medmind.train.config import TrainConfig

BLOCK, KEPT = 128, 512
"""As train/blockwise.py has them: positions in a block, and the longest document whose probabilities are kept."""
WIDE = 4
"""Bytes of a float32."""


@dataclass(frozen=True)
class Batch:
    """What one forward pass computes: the length of each row, and how many tokens its loss is taken over."""

    lengths: tuple[int, ...]
    supervised: int
    packed: bool

    @property
    def tokens(self) -> int:
        """Padding included."""
        return sum(self.lengths) if self.packed else len(self.lengths) * max(self.lengths)


@dataclass(frozen=True)
class Kind:
    """How the training code treats a recipe: bytes of its numbers, and which of its faster twins are in use."""

    narrow: int
    """Of the products."""
    stream: int
    """Of the hidden states between the layers."""
    fused_adapters: bool
    fused_layers: bool


def kept(spec: ModelSpec, config: TrainConfig, batch: Batch, kind: Kind) -> int:
    """Bytes of all layers; with checkpointing each keeps what came in, and one at a time is computed again."""
    layers, layer = spec.shape.num_hidden_layers, kept_by_layer(spec, config, batch, kind)
    if config.gradient_checkpointing:
        return layers * batch.tokens * spec.shape.hidden_size * kind.stream + layer
    return layers * layer


def kept_by_layer(spec: ModelSpec, config: TrainConfig, batch: Batch, kind: Kind) -> int:
    if kind.fused_layers:
        per_token = fused(spec, config, kind)
    else:
        per_token = norms(spec, kind) + inputs(spec, config, kind) + mlp(spec, kind)
    return batch.tokens * per_token + attention(spec, config, batch, kind)


def fused(spec: ModelSpec, config: TrainConfig, kind: Kind) -> int:
    """A token: what came in, attention's result, what the MLP takes, its two products, the adapters' small ones."""
    shape, small = spec.shape, len(targets(spec, config)) * config.lora.r
    states = 2 * shape.hidden_size + query_size(shape) + 2 * shape.intermediate_size
    return kind.narrow * (states + small) + 2 * WIDE


def norms(spec: ModelSpec, kind: Kind) -> int:
    """Two of them, a token: what came in, and the inverse of its length."""
    return 2 * (spec.shape.hidden_size * kind.stream + WIDE)


def inputs(spec: ModelSpec, config: TrainConfig, kind: Kind) -> int:
    """Of the linear modules, a token: those that learn keep what came in, the fused ones once where they share it."""
    sizes, learn, full = linears(spec.shape), set(targets(spec, config)), config.method == "full"
    total = 0 if full else len(learn) * config.lora.r * kind.narrow
    for group in (ATTENTION_IN, ("o_proj",), MLP_IN, ("down_proj",)):
        learning = sum(name in learn for name in group)
        copies = min(learning, 1) if full or kind.fused_adapters else learning
        dropped = learning * WIDE if config.lora.lora_dropout else 0
        total += sizes[group[0]][0] * (copies * kind.narrow + dropped)
    return total


def mlp(spec: ModelSpec, kind: Kind) -> int:
    """A token: what the activation takes, what it gives, and what that is multiplied with."""
    return 3 * spec.shape.intermediate_size * kind.narrow


def attention(spec: ModelSpec, config: TrainConfig, batch: Batch, kind: Kind) -> int:
    """Queries, keys and values; blockwise the probabilities; of sdpa the result and the mask, keys spread to heads."""
    shape = spec.shape
    queries, keys = query_size(shape), key_size(shape)
    if batch.packed:
        pairs = shape.num_attention_heads * sum(scores(length) for length in batch.lengths if length <= KEPT)
        return kind.narrow * (batch.tokens * (queries + 2 * keys) + pairs)
    result = 0 if "o_proj" in targets(spec, config) else queries
    mask = batch.tokens * max(batch.lengths)
    return kind.narrow * (batch.tokens * (3 * queries + result) + mask)


def scores(length: int) -> int:
    """Of one document and head: each block of positions with all before its end."""
    ends = [min(start + BLOCK, length) for start in range(0, length, BLOCK)]
    return sum((end - start) * end for start, end in zip(range(0, length, BLOCK), ends, strict=True))
