"""What distinguishes the methods: how the model is prepared. The loop does not know."""

import tempfile
import warnings
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import BitsAndBytesConfig, PreTrainedModel

from medmind.core.errors import EnvironmentFault, UsageError
from medmind.models import quantised
from medmind.models.load import load_base, load_random, pick_dtype
from medmind.models.spec import ModelSpec
from medmind.models.stored import open_tensors
from medmind.models.weights import find_weights
from medmind.train import attention, unsloth
from medmind.train.config import TrainConfig
from medmind.train.fused import fuse
from medmind.train.neftune import add_noise

BITS = {"qlora": 4, "lora8": 8}
TIED = ("embed_tokens", "lm_head")


def prepare_model(config: TrainConfig, spec: ModelSpec, seed: int) -> torch.nn.Module:
    """The model with its trainable parameters in float32; frozen ones in the dtype of the computation, or quantised."""
    check_machine(config)
    refuse_tied(config, spec)
    if config.backend == "unsloth":
        return unsloth.prepare(config, spec, seed)
    attention.register(compiled=config.torch_compile)
    model = load(config, spec, seed)
    if config.packing:
        model.set_attn_implementation(attention.NAME)
    model.config.use_cache = False
    prepared = model if config.method == "full" else add_lora(config, spec, model, seed)
    for parameter in prepared.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    fuse(prepared)
    if config.neftune_noise_alpha:
        add_noise(prepared, model.get_input_embeddings(), config.neftune_noise_alpha)
    if config.torch_compile:
        compile_layers(model)
    return prepared


def compile_layers(model: Any, **settings: Any) -> None:
    """One by one: they are alike, so all but the first find their kernels made."""
    for layer in model.get_decoder().layers:
        layer.compile(dynamic=True, **settings)


def check_machine(config: TrainConfig) -> None:
    """What the recipe asks for and this machine or installation cannot do."""
    if config.needs_bitsandbytes:
        quantised.import_bitsandbytes()
    for key, (wanted, package) in needs_gpu(config).items():
        if wanted and not torch.cuda.is_available():
            raise EnvironmentFault(f"{key} needs a GPU", todo="leave it out: on a CPU medmind's own passes are used")
        if wanted and package and not find_spec(package):
            raise EnvironmentFault(
                f"{key} needs the package {package}", todo=f"pip install {package.replace('_', '-')}"
            )
    if torch.cuda.is_available():
        return
    if config.optim.startswith("paged_"):
        raise EnvironmentFault(
            f'train.optim "{config.optim}" needs a GPU: on a CPU there is nothing to page to, and it would not say so',
            todo=f'"{config.optim.removeprefix("paged_")}" has the same mathematics',
        )
    if config.dtype == "float16":
        raise EnvironmentFault(
            'train.dtype "float16" needs a GPU: gradients of its range are scaled there only',
            todo="choose auto, bfloat16 or float32",
        )


def needs_gpu(config: TrainConfig) -> dict[str, tuple[bool, str]]:
    """By key whether it is set, and the package it needs."""
    return {
        "train.torch_compile": (config.torch_compile, ""),
        "train.use_liger_kernel": (config.use_liger_kernel, "liger_kernel"),
        'train.backend "unsloth"': (config.backend == "unsloth", "unsloth"),
    }


def refuse_tied(config: TrainConfig, spec: ModelSpec) -> None:
    """Training one of two tied matrices unties them, and merging would throw the trained copy away."""
    for key in ("modules_to_save", "target_modules"):
        names = [name for name in getattr(config.lora, key) if name.endswith(TIED)]
        if names and spec.shape.tie_word_embeddings:
            raise UsageError(
                f"train.lora.{key}: {', '.join(names)}: {spec.id} ties embeddings and output layer together, "
                "and a merge would lose what was learnt",
                todo="leave them out, or choose a model that has two matrices",
            )


def load(config: TrainConfig, spec: ModelSpec, seed: int) -> PreTrainedModel:
    if config.init == "random":
        return load_random(spec, seed)
    dtype = pick_dtype(config.dtype)
    if config.method == "full":
        return load_base(spec, torch.float32)
    tensors = open_tensors(find_weights(spec))
    check_names(config, {name.removesuffix(".weight") for name in tensors})
    if config.method == "lora":
        return load_base(spec, dtype)
    model = load_base(spec, dtype, quantization(config, dtype))
    quantised.prepare(model, tensors)
    return model


def quantization(config: TrainConfig, dtype: torch.dtype) -> BitsAndBytesConfig:
    said = config.quantization.model_dump()
    said["llm_int8_skip_modules"] = list(config.quantization.llm_int8_skip_modules)
    bits = {f"load_in_{BITS[config.method]}bit": True}
    build: Any = BitsAndBytesConfig
    config_of_bitsandbytes: BitsAndBytesConfig = build(**bits, bnb_4bit_compute_dtype=dtype, **said)
    return config_of_bitsandbytes


def check_names(config: TrainConfig, modules: Iterable[str]) -> None:
    """PEFT passes over a name that fits nothing, if another one fits."""
    known = [f".{name}" for name in modules]
    for key in ("target_modules", "modules_to_save"):
        for name in getattr(config.lora, key):
            if not any(module.endswith(f".{name}") for module in known):
                ends = ", ".join(sorted({module.rpartition(".")[2] for module in known}))
                raise UsageError(f'train.lora.{key}: the model has no module "{name}"', todo=f"it has {ends}")


def add_lora(config: TrainConfig, spec: ModelSpec, model: PreTrainedModel, seed: int) -> torch.nn.Module:
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    torch.manual_seed(seed)
    lora = config.lora
    build: Any = LoraConfig
    settings: Any = build(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=list(lora.target_modules or spec.lora_targets),
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        init_lora_weights=lora.init_lora_weights,
        modules_to_save=list(lora.modules_to_save) or None,
        revision=None if spec.local else spec.revision,
    )
    adapted: Any = get_peft_model(model, settings)
    if lora.uses_pissa:
        start = get_peft_model_state_dict(adapted)
        adapted.first_adapter = {name: tensor.detach().cpu().clone() for name, tensor in start.items()}
    prepared: torch.nn.Module = adapted
    return prepared


def save_for_the_base(model: Any, folder: Path) -> None:
    """PiSSA learns beside weights it has changed: what it learnt, as a plain adapter of the published weights."""
    first = getattr(model, "first_adapter", None)
    if first is None:
        return
    with tempfile.TemporaryDirectory(prefix="pissa_", dir=folder.parent) as start, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT advises to do what is done here
        save_file(first, Path(start) / "adapter_model.safetensors")
        model.save_pretrained(folder, path_initial_model_for_weight_conversion=start)


def count_parameters(model: torch.nn.Module) -> dict[str, int]:
    """Of a quantised matrix, the weights it stands for."""
    sizes = [(size_of(parameter), parameter.requires_grad) for parameter in model.parameters()]
    return {"total": sum(size for size, _ in sizes), "trainable": sum(size for size, learns in sizes if learns)}


def size_of(parameter: torch.Tensor) -> int:
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else torch.Size(state.shape).numel()
