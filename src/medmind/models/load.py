"""A base model, with an adapter if there is one: the only caller of from_pretrained.

safetensors only, no remote code; the dtype is the caller's and is never changed in silence.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from medmind.core.errors import DataError, EnvironmentFault
from medmind.models.spec import ModelSpec

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def has_fast_bfloat16() -> bool:
    """True where bfloat16 products run on hardware: such a GPU, or a CPU with AVX-512 BF16 or AMX."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def pick_dtype(name: str) -> torch.dtype:
    """auto: bfloat16 where the hardware has it, else float32."""
    if name == "auto":
        return torch.bfloat16 if has_fast_bfloat16() else torch.float32
    return DTYPES[name]


def load_base(spec: ModelSpec, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The published weights of a model."""
    model: PreTrainedModel = _load(AutoModelForCausalLM, spec.source, dtype=dtype, use_safetensors=True)
    return model


def load_random(spec: ModelSpec, seed: int) -> PreTrainedModel:
    """New float32 weights in the model's shape."""
    torch.manual_seed(seed)
    config = _load(AutoConfig, spec.source)
    build: Any = AutoModelForCausalLM.from_config
    model: PreTrainedModel = build(config, dtype=torch.float32)
    return model


def load_tuned(spec: ModelSpec, trained: Path, dtype: torch.dtype = torch.float32) -> Any:
    """What a run trained: an adapter folder over its base, or a whole checkpoint folder."""
    if not (trained / "adapter_config.json").exists():
        return _load(AutoModelForCausalLM, str(trained), dtype=dtype, use_safetensors=True)
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(load_base(spec, dtype), str(trained), autocast_adapter_dtype=False)
    except (ValueError, RuntimeError) as error:
        raise DataError(
            f"the adapter does not fit {spec.id}: {error}", where=str(trained), todo="name the base it was trained on"
        ) from None


def load_tokenizer(folder: Path) -> Any:
    """A checkpoint's tokenizer as transformers reads it: to prove that ours says the same, never to work with."""
    return _load(AutoTokenizer, str(folder))


def _load(loader: Any, source: str, **settings: Any) -> Any:
    silence: Any = logging.disable_progress_bar  # loading is quick, and downloads have their own bars
    silence()
    try:
        return loader.from_pretrained(source, trust_remote_code=False, **settings)
    except (OSError, ValueError) as error:
        raise EnvironmentFault(
            f"cannot load {source}: {error}", todo="check the folder, or for a Hub id the network and its licence"
        ) from None
