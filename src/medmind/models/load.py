"""A base model, with an adapter if there is one: the only caller of from_pretrained.

safetensors only, no remote code unless the recipe trusts it; the dtype is the caller's, never changed in silence.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from medmind.core.errors import DataError, EnvironmentFault, MedmindError
from medmind.core.jsonl import read_json
from medmind.models import adapters, quantised
from medmind.models.files import CONFIG, fetch, find_file, find_snapshot
from medmind.models.spec import NETWORK, ModelSpec
from medmind.models.stored import open_tensors
from medmind.models.weights import FETCH_AGAIN, NO_MEMORY, WEIGHTS, check_weights, find_weights

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spm.model",
    "sentencepiece.bpe.model",
)
"""A classifier's own; those of a base model are read without transformers."""
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def has_fast_bfloat16() -> bool:
    """True where bfloat16 products run on hardware: such a GPU, or a CPU with AVX-512 BF16 or AMX."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def pick_dtype(name: str) -> torch.dtype:
    """auto: bfloat16 where the hardware has it, else float16 on a GPU, else float32."""
    if name != "auto":
        return DTYPES[name]
    if has_fast_bfloat16():
        return torch.bfloat16
    return torch.float16 if torch.cuda.is_available() else torch.float32


def load_base(
    spec: ModelSpec, dtype: torch.dtype = torch.float32, quantization: BitsAndBytesConfig | None = None
) -> PreTrainedModel:
    """The published weights of a model, under the name it was published by; its matrices quantised if so asked."""
    if spec.trust_remote_code:
        find_code(spec)
    model = _load_weights(find_weights(spec), dtype, spec.trust_remote_code, quantization)
    model.name_or_path = model.config.name_or_path = spec.source
    return model


def find_code(spec: ModelSpec) -> None:
    """The model's own Python files, fetched beside its weights."""
    for name in (read_json(find_file(spec, CONFIG)).get("auto_map") or {}).values():
        find_file(spec, f"{name.partition('.')[0]}.py")


def load_random(spec: ModelSpec, seed: int) -> PreTrainedModel:
    """New float32 weights in the model's shape."""
    torch.manual_seed(seed)
    config = _load(AutoConfig, find_file(spec, CONFIG).parent)
    build: Any = AutoModelForCausalLM.from_config
    model: PreTrainedModel = build(config, dtype=torch.float32)
    return model


def load_tuned(
    spec: ModelSpec,
    trained: Path,
    dtype: torch.dtype = torch.float32,
    quantization: BitsAndBytesConfig | None = None,
) -> Any:
    """What a run trained: an adapter folder over its base, or a whole checkpoint folder."""
    if not (trained / adapters.CONFIG).exists():
        check_weights(trained)
        return _load_weights(trained, dtype, spec.trust_remote_code, quantization)
    adapters.check_base(spec, trained)
    return adapters.put_on(load_base(spec, dtype, quantization), spec, trained)


def add_adapter(model: Any, spec: ModelSpec, trained: Path, name: str) -> None:
    """A further adapter over the base that `model` already adapts, under a name of its own."""
    if not (trained / adapters.CONFIG).exists():
        raise DataError("no adapter", where=str(trained), todo="only adapters of one base can share its weights")
    adapters.check_base(spec, trained)
    adapters.put_on(model, spec, trained, name)


def load_tokenizer(folder: Path) -> Any:
    """A checkpoint's tokenizer as transformers reads it: to prove that ours says the same, never to work with."""
    return _load(AutoTokenizer, folder)


def load_classifier(source: str) -> tuple[Any, Any]:
    """A classifier of texts and its tokenizer, from a folder or the Hub (org/name@revision); no code of its own."""
    folder = Path(source) if Path(source).is_dir() else fetch_classifier(source)
    check_weights(folder)
    settings: dict[str, Any] = {"use_safetensors": True, "output_loading_info": True, "dtype": torch.float32}
    model, found = _load(AutoModelForSequenceClassification, folder, **settings)
    if found["missing_keys"]:
        what = f"it has no {min(found['missing_keys'])}: not a trained classifier"
        raise DataError(what, where=source, todo="name a model trained on natural language inference")
    return model, load_tokenizer(folder)


def fetch_classifier(source: str) -> Path:
    """The folder with its one file of weights and all that its tokenizer may need."""
    name, _, revision = source.partition("@")
    for file in (*TOKENIZER_FILES, WEIGHTS):
        fetch(name, file, revision or "main")
    return find_snapshot(name, revision or "main", NETWORK)


def _load_weights(
    folder: Path, dtype: torch.dtype, trusted: bool, quantization: BitsAndBytesConfig | None = None
) -> PreTrainedModel:
    """A whole checkpoint: a tensor that is absent or has another shape is never filled with random numbers."""
    tensors, config = open_tensors(folder), _load(AutoConfig, folder, trusted)
    settings: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    settings |= {"ignore_mismatched_sizes": True}  # they are refused below, by name
    if quantization:
        settings |= quantised.load_settings(quantization, tensors)
    with explained(folder):
        if trusted and "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
            model, found = _load(AutoModelForCausalLM, folder, trusted, **settings)
        else:
            known: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
            model, found = known.from_pretrained(None, config=config, state_dict=tensors, **settings)
    unfit = sorted([*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])])
    if unfit:
        raise DataError(
            f"{len(unfit)} tensors are absent or misshapen, {unfit[0]} first", where=str(folder), todo=FETCH_AGAIN
        )
    if quantization:
        quantised.settle(model, quantization)
    loaded: PreTrainedModel = model
    return loaded


def _load(loader: Any, folder: Path, trusted: bool = False, **settings: Any) -> Any:
    silence()
    with explained(folder):
        return loader.from_pretrained(str(folder), trust_remote_code=trusted, **settings)


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """transformers lets through whatever an odd file brings about; too little memory is no fault of the file."""
    try:
        yield
    except MedmindError:
        raise
    except Exception as error:
        cause = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or NO_MEMORY in cause:
            todo = "medmind estimate says what fits"
            raise EnvironmentFault(f"too little memory: {cause}", where=str(folder), todo=todo) from None
        raise DataError(f"the model cannot be read: {cause}", where=str(folder), todo=FETCH_AGAIN) from None


def silence() -> None:
    """Loading is quick, downloads have bars of their own, and what is wrong with the weights is said by our errors."""
    switches: tuple[Any, ...] = (logging.disable_progress_bar, logging.set_verbosity_error)
    for switch in switches:
        switch()
