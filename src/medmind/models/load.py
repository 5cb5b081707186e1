"""A base model, with an adapter if there is one: the only caller of from_pretrained.

safetensors only, no remote code; the dtype is the caller's and is never changed in silence.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from medmind.core.errors import DataError, EnvironmentFault
from medmind.models.spec import ModelSpec

FETCH_AGAIN = "the files are cut or not of this config: fetch the checkpoint again"
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
    return _load_weights(spec.source, dtype)


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
        return _load_weights(str(trained), dtype)
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(load_base(spec, dtype), str(trained), autocast_adapter_dtype=False)
    except (ValueError, RuntimeError, SafetensorError) as error:
        raise DataError(
            f"the adapter does not fit {spec.id}: {error}", where=str(trained), todo="name the base it was trained on"
        ) from None


def load_tokenizer(folder: Path) -> Any:
    """A checkpoint's tokenizer as transformers reads it: to prove that ours says the same, never to work with."""
    return _load(AutoTokenizer, str(folder))


def _load_weights(source: str, dtype: torch.dtype) -> PreTrainedModel:
    """A whole checkpoint: a tensor that is absent or has another shape is never filled with random numbers."""
    settings = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    try:
        model, found = _load(AutoModelForCausalLM, source, **settings)
    except (RuntimeError, SafetensorError) as error:
        cause = str(error).strip().splitlines()[0]
        raise DataError(f"the weights cannot be read: {cause}", where=source, todo=FETCH_AGAIN) from None
    unfit = sorted(str(name) for kind in ("missing_keys", "mismatched_keys") for name in found[kind])
    if unfit:
        raise DataError(
            f"{len(unfit)} tensors are absent or misshapen, {unfit[0]} first", where=source, todo=FETCH_AGAIN
        )
    loaded: PreTrainedModel = model
    return loaded


def _load(loader: Any, source: str, **settings: Any) -> Any:
    # Loading is quick, downloads have bars of their own, and what is wrong with the weights is said by our errors.
    silencers: tuple[Any, ...] = (logging.disable_progress_bar, logging.set_verbosity_error)
    for silence in silencers:
        silence()
    try:
        return loader.from_pretrained(source, trust_remote_code=False, **settings)
    except (OSError, ValueError) as error:
        raise EnvironmentFault(
            f"cannot load {source}: {error}", todo="check the folder, or for a Hub id the network and its licence"
        ) from None
