"""A training step against the same step on the slow twins (sdpa, plain cross entropy, transformers' and PEFT's parts).

OMP_NUM_THREADS=1 make bench BENCH=train_loop

Both arms in one process, alternated, in CPU seconds, since the machine may be shared; the first step is left out.
"""

import json
import statistics
import time
from array import array
from typing import Any
from unittest.mock import patch

import torch
from torch.nn.functional import scaled_dot_product_attention

from medmind.models.catalog import find_model
from medmind.train import adapter, attention, loss
from medmind.train.batches import Row, pack
from medmind.train.config import LoraConfig, TrainConfig

WORK = {
    "pretraining": (TrainConfig(method="full", init="random", format="text"), [512] * 8, 0),
    "lora": (TrainConfig(lora=LoraConfig(r=32, lora_alpha=64)), [200, 231, 150, 180, 260, 140, 190, 210], 50),
}
"""Settings, tokens in each row, and how many of them are prompt."""
PAIRS = 5


def make_batch(lengths: list[int], prompt: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for length in lengths:
        ids = torch.randint(3, 8192, (length,), generator=generator).tolist()
        labels = [-100] * prompt + ids[prompt + 1 :] + [-100]
        rows.append(Row("bench", array("i", ids), array("i", labels), 1))
    return pack(rows)


def by_sdpa(query: Any, key: Any, value: Any, lengths: list[int], scale: float) -> torch.Tensor:
    documents = zip(*(part.split(lengths, 2) for part in (query, key, value)), strict=True)
    parts = [scaled_dot_product_attention(*each, is_causal=True, enable_gqa=True, scale=scale) for each in documents]
    return torch.cat(parts, 2).transpose(1, 2)


def step(model: torch.nn.Module, batch: dict[str, Any]) -> float:
    start = time.process_time()
    with torch.autocast("cpu", torch.bfloat16):
        total = loss.completion_loss(model, batch)
    (total / (batch["labels"] >= 0).sum()).backward()
    model.zero_grad()
    return time.process_time() - start


def compare(work: str) -> None:
    config, lengths, prompt = WORK[work]
    batch = make_batch(lengths, prompt)
    fast = adapter.prepare_model(config, find_model("nano"), seed=0).train()
    with patch.object(adapter, "fuse"):
        slow = adapter.prepare_model(config, find_model("nano"), seed=0).train()
    runs = []
    for _ in range(PAIRS + 1):
        ours = step(fast, batch)
        with patch.object(attention, "causal_attention", by_sdpa), patch.object(loss, "plain_head", return_value=None):
            runs.append((ours, step(slow, batch)))
    tokens = sum(lengths)
    ours, anchor = (round(tokens / statistics.median(each)) for each in zip(*runs[1:], strict=True))
    ratio = round(statistics.median(theirs / mine for mine, theirs in runs[1:]), 3)
    print(json.dumps({"bench": f"train_loop {work}", "ours": ours, "anchor": anchor, "ratio": ratio, "runs": PAIRS}))


if __name__ == "__main__":
    for name in WORK:
        compare(name)
