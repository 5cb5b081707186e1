"""What a run leaves on disk at its fullest, by part; from the shape alone."""

import math

from medmind.estimate.activations import WIDE
from medmind.estimate.counts import count, linears
from medmind.estimate.memory import STATES
from medmind.estimate.work import Steps
from medmind.models.files import is_here
from medmind.models.spec import ModelSpec, Shape
from medmind.models.weights import INDEX, WEIGHTS
from medmind.recipe.schema import Recipe
from medmind.train.config import TrainConfig

PUBLISHED = 2
"""Bytes a weight has in the checkpoints of these families: bfloat16."""
Q6_K = 6.5625
BITS = {"f32": 32.0, "f16": 16.0, "bf16": 16.0, "q8_0": 8.5, "q6_k": Q6_K}
MIXED = {"q4_k_m": 4.5, "q5_k_m": 5.5}
"""Bits a weight, with its block's scales. A mixture gives half of v_proj and down_proj, and the output, six bits."""
SMALL = 5_000_000
"""Tokenizer, configs, and a checkpoint's scheduler and random state."""


def predict_disk(recipe: Recipe, spec: ModelSpec, steps: Steps, tokens: int) -> dict[str, int]:
    """Bytes by part; what the recipe's stages do not write is not there."""
    config, counts = recipe.train, count(spec, recipe.train)
    result = WIDE * counts.trainable
    saves = math.ceil(steps.steps / config.save_steps) if config.save_strategy == "steps" else math.ceil(steps.epochs)
    # One more than is kept: the oldest goes only when the newest is whole.
    kept = min(saves, config.save_total_limit + 1 + config.load_best_model_at_end)
    checkpoint = result + round(STATES[config.optim] * counts.trainable) + SMALL
    parts = {
        "checkpoints": kept * checkpoint,
        "model" if config.method == "full" else "adapter": result,
        "tokenised rows": 2 * WIDE * tokens,
    }
    if "export" in recipe.stages:
        parts["merged"] = (WIDE if config.method == "full" else PUBLISHED) * counts.total + SMALL
        parts |= {f"GGUF {kind}": gguf_size(spec.shape, kind) + SMALL for kind in recipe.export.gguf}
        if "f32" not in recipe.export.gguf:
            parts["GGUF f32, while it is checked"] = gguf_size(spec.shape, "f32") + SMALL
    return parts


def predict_download(spec: ModelSpec, config: TrainConfig) -> int:
    """Bytes the Hub's cache still lacks."""
    here = spec.local or is_here(spec, WEIGHTS) or is_here(spec, INDEX) or config.init == "random"
    return 0 if here else PUBLISHED * spec.shape.parameters + SMALL


def gguf_size(shape: Shape, kind: str) -> int:
    if kind in BITS:
        return round(shape.parameters * BITS[kind] / 8)
    sizes = {name: inputs * outputs for name, (inputs, outputs) in linears(shape).items()}
    some = sizes["v_proj"] + sizes["down_proj"]
    few = MIXED[kind]
    layers = shape.num_hidden_layers * (few * sum(sizes.values()) + (Q6_K - few) * some / 2)
    embedding = shape.vocab_size * shape.hidden_size
    return round((layers + embedding * (Q6_K if shape.tie_word_embeddings else few + Q6_K)) / 8)
