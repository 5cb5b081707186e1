"""What distinguishes the methods: how the model is prepared. The loop does not know."""

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from medmind.models.load import load_base, load_random, pick_dtype
from medmind.models.spec import ModelSpec
from medmind.train import attention
from medmind.train.config import TrainConfig
from medmind.train.fused import fuse


def prepare_model(config: TrainConfig, spec: ModelSpec, seed: int) -> torch.nn.Module:
    """The model with its trainable parameters in float32; frozen ones in the dtype of the computation."""
    attention.register()
    if config.init == "random":
        model = load_random(spec, seed)
    else:
        model = load_base(spec, torch.float32 if config.method == "full" else pick_dtype(config.dtype))
    if config.packing:
        model.set_attn_implementation(attention.NAME)
    model.config.use_cache = False
    prepared = add_lora(config, spec, model, seed) if config.method == "lora" else model
    fuse(prepared)
    return prepared


def add_lora(config: TrainConfig, spec: ModelSpec, model: PreTrainedModel, seed: int) -> torch.nn.Module:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    lora = config.lora
    settings = LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=list(lora.target_modules or spec.lora_targets),
        use_rslora=lora.use_rslora,
    )
    adapted: torch.nn.Module = get_peft_model(model, settings)
    if config.gradient_checkpointing:
        require_grads: Callable[[], None] = model.enable_input_require_grads
        require_grads()
    return adapted


def count_parameters(model: torch.nn.Module) -> dict[str, int]:
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return {"total": sum(size for size, _ in sizes), "trainable": sum(size for size, learns in sizes if learns)}
