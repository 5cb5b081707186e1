"""How many numbers a model and its adapters have, from the shape alone: a 7B model need not be on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass

from medmind.models.spec import ModelSpec, Shape
from medmind.train.config import TrainConfig

ATTENTION_IN = ("q_proj", "k_proj", "v_proj")
MLP_IN = ("gate_proj", "up_proj")


@dataclass(frozen=True)
class Counts:
    """Parameters: `linear` of all decoder layers, one `embedding` matrix, everything (`total`), and what is added."""

    linear: int
    largest: int
    """Of one linear module of a layer."""
    embedding: int
    norms: int
    total: int
    adapters: int
    joined: int
    """What train/products.py holds beside the weights: A once more, and B in matrices that are mostly zeros."""
    trainable: int


def linears(shape: Shape) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of every linear module of a decoder layer."""
    hidden, inner = shape.hidden_size, shape.intermediate_size
    queries, keys = query_size(shape), key_size(shape)
    return {
        "q_proj": (hidden, queries),
        "k_proj": (hidden, keys),
        "v_proj": (hidden, keys),
        "o_proj": (queries, hidden),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }


def query_size(shape: Shape) -> int:
    return shape.num_attention_heads * shape.head_dim


def key_size(shape: Shape) -> int:
    return shape.num_key_value_heads * shape.head_dim


def targets(spec: ModelSpec, config: TrainConfig) -> Sequence[str]:
    """The modules that learn: those with an adapter, or all of them."""
    return tuple(linears(spec.shape)) if config.method == "full" else config.lora.target_modules or spec.lora_targets


def count(spec: ModelSpec, config: TrainConfig) -> Counts:
    shape = spec.shape
    sizes = linears(shape)
    layer = [inputs * outputs for inputs, outputs in sizes.values()]
    embedding = shape.vocab_size * shape.hidden_size
    linear, norms = shape.num_hidden_layers * sum(layer), (2 * shape.num_hidden_layers + 1) * shape.hidden_size
    adapters = 0 if config.method == "full" else count_adapters(spec, config)
    trainable = shape.parameters if config.method == "full" else adapters
    joined = 0 if config.method == "full" else shape.num_hidden_layers * count_joined(spec, config)
    return Counts(linear, max(layer), embedding, norms, shape.parameters, adapters, joined, trainable)


def count_joined(spec: ModelSpec, config: TrainConfig) -> int:
    """In a layer: the rows of all matrices that read the same, times the ranks of all their adapters; and every A."""
    sizes, learn = linears(spec.shape), targets(spec, config)
    total = 0
    for group in (ATTENTION_IN, ("o_proj",), MLP_IN, ("down_proj",)):
        ranks = config.lora.r * sum(name in learn for name in group)
        total += ranks * (sizes[group[0]][0] + sum(sizes[name][1] for name in group))
    return total


def count_adapters(spec: ModelSpec, config: TrainConfig) -> int:
    """The A and B of each module, DoRA's lengths, and what modules_to_save trains whole."""
    shape, lora = spec.shape, config.lora
    times = dict.fromkeys(linears(shape), shape.num_hidden_layers) | {"lm_head": 1, "embed_tokens": 1}
    ends = (shape.hidden_size, shape.vocab_size)
    sizes = linears(shape) | {"lm_head": ends, "embed_tokens": ends}
    added = sum(
        times[name] * (lora.r * sum(sizes[name]) + lora.use_dora * sizes[name][1])
        for name in targets(spec, config)
        if name in sizes
    )
    whole = sum(times[name] * sizes[name][0] * sizes[name][1] for name in lora.modules_to_save if name in sizes)
    return added + whole
