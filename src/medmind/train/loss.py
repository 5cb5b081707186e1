"""The loss: cross entropy summed over the supervised tokens, logits computed for those only."""

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from medmind.train.batches import IGNORED


def completion_loss(model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    """Sum in nats over every label that is not IGNORED; divide by their number over the whole step."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    labels = batch["labels"]
    if "segments" in batch:
        places = (labels[0] != IGNORED).nonzero()[:, 0]
        logits = model(**inputs, logits_to_keep=places, use_cache=False).logits[0]
        return cross_entropy(logits.float(), labels[0, places], reduction="sum")
    logits = model(**inputs, use_cache=False).logits
    chosen = labels != IGNORED
    return cross_entropy(logits[chosen].float(), labels[chosen], reduction="sum")
