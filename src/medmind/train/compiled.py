"""Whether compiled passes and products can work here: with numba, on one thread of a CPU, on rows of a known type."""

from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

KNOWN = (torch.bfloat16, torch.float32)


@cache
def load() -> Any:
    """The module of passes; nothing where numba is not installed, cannot be loaded, or was told not to compile."""
    try:
        if import_module("numba").config.DISABLE_JIT:
            return None
        return import_module("medmind.train.numba_passes")
    except (ImportError, OSError):
        return None


@cache
def load_products() -> Any:
    """The module of products; nothing where numba cannot compile them, or torch has better: with matrix units."""
    if load() is None:
        return None
    target = import_module("numba.core.registry").cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    llvm = import_module("llvmlite.binding").llvm_version_info[0]  # 17 is the first that takes bfloat16 here
    if llvm < 17 or "+avx512bf16" not in target or "+amx-bf16" in target:
        return None
    return import_module("medmind.train.numba_products")


def who() -> str:
    """What is compiled, and by which numba."""
    try:
        return f"numba {version('numba')}" + (", products of bfloat16" if load_products() else "")
    except PackageNotFoundError:
        return "without numba"


def passes_for(*rows: torch.Tensor) -> Any:
    """The compiled passes, or nothing: then torch's own, which share an operation out among its threads."""
    known = all(each.device.type == "cpu" and each.dtype in KNOWN for each in rows)
    return load() if known and torch.get_num_threads() == 1 else None


def products_for(*matrices: torch.Tensor) -> Any:
    """The compiled products, or nothing: for bfloat16 whose rows lie whole."""
    if any(each.dtype != torch.bfloat16 or each.stride(-1) != 1 for each in matrices):
        return None
    return load_products() if passes_for(*matrices) else None


def bits(tensor: torch.Tensor) -> NDArray[Any]:
    """The same memory as an array; bfloat16, which numpy does not know, as its bits."""
    plain = tensor.detach()
    array: NDArray[Any] = (plain.view(torch.uint16) if plain.dtype == torch.bfloat16 else plain).numpy()
    return array


def number(value: float) -> np.float32:
    """So that a pass is compiled once, whatever kind of number it is called with."""
    return np.float32(value)
