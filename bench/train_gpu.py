"""One cell a call of the table system × Mistral-7B, Llama-3.2 × LoRA, QLoRA on a GPU, packed to 4,096: SYSTEMS below.

`make bench BENCH=train_gpu` measures the first cell that $RESULTS (runs/train_gpu.jsonl) lacks, appends it and prints
the table; what is not installed is skipped by name. GPU_CELLS names some (trl/Llama-3.2-1B/qlora,…), GPU_MODELS other
models (nano, to try it on a CPU), GPU_ROWS (512) how many rows, GPU_PEAK the card's FLOP a second (989e12, an H100).
"""

import importlib.util
import json
import os
import sys
from itertools import product
from pathlib import Path
from typing import Any

import torch

os.environ["TRAIN_ROWS"] = os.environ.get("GPU_ROWS", "512")  # as train_cpu reads it
from train_arms import TRL, TRL_INSTALL
from train_cpu import ROWS, Results, prepare, speed

RESULTS = Path(os.environ.get("RESULTS", "runs/train_gpu.jsonl"))
SYSTEMS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "medmind": ("medmind", "", {}),
    "medmind-compiled": ("medmind", "", {"torch_compile": True}),
    "medmind-liger": ("medmind", "liger_kernel", {"use_liger_kernel": True}),
    "medmind-unsloth": ("medmind", "unsloth", {"backend": "unsloth"}),
    "trl": ("trl", "trl", {}),
    "unsloth": ("unsloth", "unsloth", {}),
}
"""The arm of train_arms, the package it needs, and settings of the recipe's train section."""
MODELS = os.environ.get("GPU_MODELS", "Mistral-7B-v0.3,Llama-3.2-1B,Llama-3.2-3B").split(",")
METHODS = ("lora", "qlora")
WANTED = [cell for cell in os.environ.get("GPU_CELLS", "").split(",") if cell]
PACKED = 4096
PEAK = float(os.environ.get("GPU_PEAK", "989e12"))
INSTALL = {"trl": TRL_INSTALL, "unsloth": "pip install unsloth", "liger_kernel": "pip install liger-kernel"}


def missing(system: str) -> str:
    """The command that would install it; empty where it is here."""
    sys.path.append(TRL)
    package = SYSTEMS[system][1]
    return "" if not package or importlib.util.find_spec(package) else INSTALL[package]


def measure(system: str, model: str, method: str) -> dict[str, Any]:
    """A packed row of 4,096 tokens a step, and for us as many examples as it holds."""
    work, (arm, _, settings) = prepare(model), SYSTEMS[system]
    found = work.call(arm, work.folder, method=method, limit=PACKED, bins=1, settings=settings)
    share = 4 * work.spec.shape.parameters * speed(found) / PEAK
    return found | {"mfu": share, "examples": work.examples}


def next_cell(results: Results) -> bool:
    """Measures one; False where none is left."""
    for system, model, method in product(SYSTEMS, MODELS, METHODS):
        cell = f"{system}/{model}/{method}"
        if results.of(model, f"{system} {method}") or (WANTED and cell not in WANTED):
            continue
        if command := missing(system):
            print(f"{cell}: skipped, {SYSTEMS[system][1]} is not installed ({command})", file=sys.stderr)
            continue
        if SYSTEMS[system][2] and not torch.cuda.is_available():
            print(f"{cell}: skipped, it needs a GPU", file=sys.stderr)
            continue
        results.need(model, f"{system} {method}", 0, lambda cell=(system, model, method): measure(*cell))
        return True
    return False


def main() -> None:
    results = Results(RESULTS)
    print("one cell measured" if next_cell(results) else "no cell is left")
    print("| model | method | system | tokens/s | MFU by 4·N | peak memory |\n|---|---|---|--:|--:|--:|")
    for model, method, system in product(MODELS, METHODS, SYSTEMS):
        for one in results.of(model, f"{system} {method}").values():
            rate, memory = f"{speed(one):,.0f}", f"{one['memory_gb']:.2f} GB"
            print(f"| {model} | {method} | {system} | {rate} | {one['mfu']:.1%} | {memory} |")
    for model, method, system in product(MODELS, METHODS, list(SYSTEMS)[1:]):
        ours, anchor = (results.of(model, f"{name} {method}").get(0) for name in ("medmind", system))
        if ours and anchor:
            line = {"bench": f"train_gpu {model} {method} {system}", "ours": speed(ours), "anchor": speed(anchor)}
            print(json.dumps(line | {"ratio": speed(ours) / speed(anchor), "runs": 1, "rows": ROWS}))


if __name__ == "__main__":
    main()
