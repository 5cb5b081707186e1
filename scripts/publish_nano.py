"""Puts pre-trained weights into the package as bf16 safetensors; a maintainer runs it after `medmind train nano`.

.venv/bin/python scripts/publish_nano.py runs/nano/train/model
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from medmind.models.catalog import NANO


def main(trained: str) -> None:
    weights = load_file(Path(trained) / "model.safetensors")
    halved = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items() if name != "lm_head.weight"}
    save_file(halved, NANO / "model.safetensors", metadata={"format": "pt"})
    size = (NANO / "model.safetensors").stat().st_size
    print(f"{sum(tensor.numel() for tensor in halved.values()):,} parameters, {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main(*sys.argv[1:])
