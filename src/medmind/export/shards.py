"""Checkpoints written tensor by tensor: safetensors' own writer wants a whole file of them in memory."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medmind.core.jsonl import write_json
from medmind.core.protocols import Progress
from medmind.models.stored import StoredTensor
from medmind.models.weights import INDEX, WEIGHTS, list_weights, open_weights

SIZES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}
"""What weights are stored in; a checkpoint that holds another type is no dense, unquantised one."""
Change = Callable[[str, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Entry:
    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


def list_entries(file: Path) -> list[Entry]:
    """The wide types first, so that every tensor begins at a multiple of its size."""
    entries = []
    with open_weights(file) as weights:
        for name in weights.keys():  # noqa: SIM118 (not a dictionary)
            part = weights.get_slice(name)
            shape, dtype = tuple(part.get_shape()), part.get_dtype()
            entries.append(Entry(name, dtype, shape, torch.Size(shape).numel() * SIZES[dtype]))
    return sorted(entries, key=lambda entry: (-SIZES[entry.dtype], entry.name))


def rewrite(base: Path, folder: Path, change: Change, progress: Progress | None = None) -> None:
    """The base's files under their own names, every tensor passed through `change`, which keeps shape and dtype."""
    files = {file: list_entries(file) for file in list_weights(base)}
    total, done = sum(map(len, files.values())), 0
    for file, entries in files.items():
        with open(folder / file.name, "wb") as out:
            out.write(header(entries))
            for entry in entries:
                changed = change(entry.name, StoredTensor(file, entry.name)[...])
                out.write(changed.contiguous().flatten().view(torch.uint8).numpy().data)
                done += 1
                if progress:
                    progress(done, total)
    if [file.name for file in files] != [WEIGHTS]:
        places = {entry.name: file.name for file, entries in files.items() for entry in entries}
        size = sum(entry.size for entries in files.values() for entry in entries)
        write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": places})


def is_finite(values: torch.Tensor) -> bool:
    """Not-a-number comes through a minimum and a maximum; torch.isfinite takes fifteen times as long."""
    return all(math.isfinite(float(end)) for end in values.aminmax())


def header(entries: list[Entry]) -> bytes:
    """Padded, so that the numbers begin at a multiple of eight."""
    said: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for entry in entries:
        end = start + entry.size
        said[entry.name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": (start, end)}
        start = end
    text = json.dumps(said).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
