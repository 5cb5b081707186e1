"""K-quants, which only llama.cpp's own quantiser makes (through cyllama); Q8_0 is written by export/gguf.py itself."""

import os
from pathlib import Path

import gguf
from gguf import GGMLQuantizationType as Type

from medmind.core.errors import DataError, EnvironmentFault
from medmind.export.whole import whole
from medmind.infer.llamacpp import load_library

ALLOWED = {Type.Q4_K, Type.Q5_K, Type.Q6_K}
"""What Q4_K_M mixes. Anything else is the fallback for rows that are no multiple of 256."""


def quantise(source: Path, out: Path) -> None:
    """Q4_K_M from an F32 or F16 GGUF; the metadata is carried over."""
    library = load_library()
    settings = library.LlamaModelQuantizeParams()
    settings.ftype = int(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    settings.nthread = os.cpu_count() or 1
    with whole(out) as temporary:
        try:
            library.model_quantize(str(source), str(temporary), settings)
        except RuntimeError as error:
            raise EnvironmentFault(
                f"llama.cpp could not quantise: {error}", where=str(source), todo="check the free disk space"
            ) from None
        verify(source, temporary)


def verify(source: Path, file: Path) -> None:
    """The same tensors, vectors in F32, matrices in K-quants."""
    before = {tensor.name: len(tensor.shape) for tensor in gguf.GGUFReader(source).tensors}
    after = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(file).tensors}
    if before.keys() != after.keys():
        raise DataError(f"{len(before)} tensors went in, {len(after)} came out", where=str(file))
    for name, kind in after.items():
        if kind not in (ALLOWED if before[name] > 1 else {Type.F32}):
            raise DataError(
                f"{name} became {kind.name}: K-quants need rows whose length is a multiple of 256",
                where=str(file),
                todo="leave q4_k_m out of export.gguf for this model",
            )
