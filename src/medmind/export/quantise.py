"""Rows of numbers as a GGUF stores them; K-quants come from llama.cpp's own quantiser, a slab of rows at a time.

It works on files alone, so each slab passes through a small one: no intermediate of the whole model is ever written.
"""

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type

from medmind.core.errors import DataError, EnvironmentFault
from medmind.export.kinds import K_QUANTS
from medmind.export.shards import is_finite
from medmind.infer.llamacpp import load_library

SLAB = 2**25
"""Numbers quantised at a time."""
BLOCK, LARGEST = 32, 127
FEW = 1000
"""Blocks turned into bytes at a time: they stay in the cache, and torch gives so few numbers to one thread alone (two
would wait for each other longer than they work).
"""
BELOW_HALF = torch.tensor(0.5).nextafter(torch.tensor(0.0))
"""Added before the cut, it rounds to the nearest and halves away from zero; a whole half would lift 0.49999997 too."""
NAME = "blk.0.ffn_up.weight"
"""A name that llama.cpp treats as any matrix."""

Array = np.ndarray[Any, Any]


def encode(values: torch.Tensor, qtype: Type, folder: Path) -> Array:
    """`folder` takes what passes through files."""
    found: Array
    if qtype == Type.F32:
        found = values.float().numpy()
    elif qtype == Type.F16:
        found = to_float16(values).numpy()
    elif qtype == Type.BF16:
        found = values.to(torch.bfloat16).view(torch.int16).numpy()
    elif qtype == Type.Q8_0:
        found = to_bytes(values)
    else:
        step = max(1, SLAB // values.shape[-1])
        slabs = (values[start : start + step].float() for start in range(0, values.shape[0], step))
        found = np.concatenate([quantise(slab.numpy(), qtype, folder) for slab in slabs])
    return found


def to_float16(values: torch.Tensor) -> torch.Tensor:
    halves = values.to(torch.float16)
    if not is_finite(halves):
        raise OverflowError
    return halves


def to_bytes(values: torch.Tensor) -> Array:
    """Q8_0 as llama.cpp's own quantiser makes it, to the bit: 32 whole numbers behind their scale in float16."""
    blocks = values.reshape(-1, BLOCK)
    found = torch.empty((len(blocks), torch.float16.itemsize + BLOCK), dtype=torch.int8)
    for start in range(0, len(blocks), FEW):
        part = blocks[start : start + FEW].float()
        scale = part.abs().amax(1, keepdim=True) / LARGEST
        numbers = part * torch.where(scale == 0, 0, 1 / scale)
        numbers += torch.copysign(BELOW_HALF, numbers)
        out = found[start : start + FEW]
        out[:, : torch.float16.itemsize] = scale.half().view(torch.int8)
        out[:, torch.float16.itemsize :] = numbers  # what is behind the point is cut off
    shape = (*values.shape[:-1], -1)
    return found.numpy().view(np.uint8).reshape(shape)


def quantise(rows: Array, qtype: Type, folder: Path) -> Array:
    source, result = folder / "rows.gguf", folder / "quantised.gguf"
    write_alone(rows, source)
    library = load_library()
    settings = library.LlamaModelQuantizeParams()
    settings.ftype, settings.pure, settings.nthread = int(K_QUANTS[qtype]), True, os.cpu_count() or 1
    try:
        library.model_quantize(str(source), str(result), settings)
    except RuntimeError as error:
        raise EnvironmentFault(
            f"llama.cpp could not quantise: {error}", where=str(folder), todo="check the free disk space"
        ) from None
    (tensor,) = gguf.GGUFReader(result).tensors
    if tensor.tensor_type != qtype:
        raise DataError(f"llama.cpp made {tensor.tensor_type.name} of what should be {qtype.name}", where=str(folder))
    return np.array(tensor.data)


def write_alone(values: Array, file: Path) -> None:
    """One matrix and the few numbers without which llama.cpp opens no model."""
    with closing(gguf.GGUFWriter(file, "llama")) as writer:
        writer.add_context_length(1)
        writer.add_embedding_length(values.shape[-1])
        writer.add_block_count(1)
        writer.add_feed_forward_length(1)
        writer.add_head_count(1)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_tensor(NAME, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
