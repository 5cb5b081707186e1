"""Peak memory of training as a sum: what is there all the time, and what a step needs on top of it.

The sum is exact arithmetic on the shape; the constants here are the rest, fitted once by bench/estimate.py.
"""

from medmind.estimate.activations import WIDE, Batch, Kind, kept, kept_by_layer
from medmind.estimate.counts import Counts, count
from medmind.models.spec import ModelSpec
from medmind.train.config import TrainConfig

PROCESS = 490_000_000
"""Python, torch, transformers, peft and what reading the data left behind."""
LANES = 180_000_000
"""Compiled passes, what compiled them, and the heaps of several threads."""
SLACK = 1.1
"""What the allocator holds for each byte kept for the backward pass."""
WORK = 2.75
"""Layers' worth of kept tensors that the backward pass of one layer needs beside them."""
SCALES, SCALES_TWICE = 32 / 64, 8 / 64 + 32 / (64 * 256)
"""Bits a weight of bitsandbytes' blocks of 64 in 4 bits: a float32 each, or a byte each and a float32 for 256."""
ROWS = 1024
"""Tokens whose logits exist at a time, as train/loss.py has it."""
STATES = {
    "adamw_torch": 8.0,
    "adamw_torch_fused": 8.0,
    "adafactor": 0.0,
    "sgd": 0.0,
    "adagrad": 4.0,
    "rmsprop": 4.0,
    "adamw_8bit": 2.0,
    "adamw_bnb_8bit": 2.0,
    "ademamix": 12.0,
    "ademamix_8bit": 3.0,
    "lion_32bit": 4.0,
    "lion_8bit": 1.0,
    "rmsprop_bnb": 4.0,
    "rmsprop_bnb_32bit": 4.0,
    "rmsprop_bnb_8bit": 1.0,
    "paged_adamw_32bit": 8.0,
    "paged_adamw_8bit": 2.0,
    "paged_ademamix_32bit": 12.0,
    "paged_ademamix_8bit": 3.0,
    "paged_lion_32bit": 4.0,
    "paged_lion_8bit": 1.0,
}
"""Bytes each optimiser keeps a parameter; of 8-bit ones the block scales are small change."""


def predict(spec: ModelSpec, config: TrainConfig, batch: Batch, dtype_bytes: int, lanes: int = 1) -> dict[str, int]:
    """Bytes by part at the largest batch; `dtype_bytes` of the computation."""
    kind, counts = kind_of(config, dtype_bytes), count(spec, config)
    held = kept(spec, config, batch, kind) + copies(config, counts, kind)
    work = WORK * kept_by_layer(spec, config, batch, kind)
    return {
        "process": PROCESS + (LANES if lanes > 1 else 0),
        "weights": weights(config, counts, kind),
        "adapters": WIDE * counts.adapters,
        "gradients": WIDE * counts.trainable * (2 * lanes if lanes > 1 else 1),  # of a pass, and of all so far
        "optimiser": round(STATES[config.optim] * counts.trainable),
        "activations": round(SLACK * held),
        "one step's work": max(round(work), loss(spec, config, batch, kind, lanes)),
    }


def kind_of(config: TrainConfig, dtype_bytes: int) -> Kind:
    plain = config.method == "lora" and not (config.lora.lora_dropout or config.lora.use_dora)
    return Kind(
        narrow=dtype_bytes,
        stream=dtype_bytes if config.method == "lora" else WIDE,
        fused_adapters=plain,
        fused_layers=plain and config.packing,
    )


def weights(config: TrainConfig, counts: Counts, kind: Kind) -> int:
    if config.method == "full":
        return WIDE * counts.total
    if config.method == "lora":
        return kind.narrow * (counts.total + counts.joined * kind.fused_layers)
    if config.method == "lora8":
        bits = 8.0
    else:
        bits = 4 + (SCALES_TWICE if config.quantization.bnb_4bit_use_double_quant else SCALES)
    return round(counts.linear * bits / 8) + kind.narrow * (counts.total - counts.linear)


def copies(config: TrainConfig, counts: Counts, kind: Kind) -> int:
    """What learns stands in float32; each product keeps a narrow copy of it until its gradient is taken."""
    if kind.narrow == WIDE or kind.fused_layers:
        return 0
    return kind.narrow * (counts.linear if config.method == "full" else counts.adapters)


def loss(spec: ModelSpec, config: TrainConfig, batch: Batch, kind: Kind, lanes: int) -> int:
    shape = spec.shape
    hidden = 2 * batch.supervised * shape.hidden_size * kind.narrow
    logits = min(lanes * ROWS, batch.supervised) * shape.vocab_size * kind.narrow
    if not batch.packed:
        return batch.tokens * shape.vocab_size * kind.narrow + 3 * WIDE * batch.supervised * shape.vocab_size
    # Of a head that learns a narrow copy and the gradient, wide and narrow.
    copies = WIDE + 2 * kind.narrow if config.method == "full" else 0
    return hidden + logits + copies * shape.vocab_size * shape.hidden_size
