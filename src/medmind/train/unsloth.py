"""The model and its adapters by Unsloth in place of transformers and PEFT: the same rows, loss and loop. CUDA only."""

from typing import Any

import torch

from medmind.core.offline import SILENT
from medmind.models.load import pick_dtype
from medmind.models.spec import ModelSpec
from medmind.models.weights import find_weights
from medmind.train.config import TrainConfig

assert "UNSLOTH_DISABLE_STATISTICS" in SILENT, "it would tell the Hub that it is used"


def prepare(config: TrainConfig, spec: ModelSpec, seed: int) -> torch.nn.Module:
    """From the weights on this disk, never from a repository of Unsloth's own."""
    from unsloth import FastLanguageModel

    model, _ = FastLanguageModel.from_pretrained(
        str(find_weights(spec)),
        max_seq_length=config.max_length,
        dtype=pick_dtype(config.dtype),
        load_in_4bit=config.method == "qlora",
        load_in_8bit=config.method == "lora8",
        use_exact_model_name=True,
        trust_remote_code=spec.trust_remote_code,
        use_gradient_checkpointing=config.gradient_checkpointing,
        random_state=seed,
    )
    lora = config.lora
    prepared: Any = FastLanguageModel.get_peft_model(
        model,
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=list(lora.target_modules or spec.lora_targets),
        use_rslora=lora.use_rslora,
        use_gradient_checkpointing=config.gradient_checkpointing,
        random_state=seed,
    )
    prepared.config.use_cache = False
    for adapter in prepared.peft_config.values():  # not where the weights lie here
        adapter.base_model_name_or_path = spec.source
        adapter.revision = None if spec.local else spec.revision
    for parameter in prepared.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    prepared.register_forward_pre_hook(say_lengths, with_kwargs=True)
    return prepared  # type: ignore[no-any-return]


def say_lengths(model: torch.nn.Module, args: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The lengths of packed documents by the name that Unsloth knows; without them one would see the other."""
    said = dict(inputs)
    if (segments := said.pop("segments", None)) is not None:
        said["packed_seq_lengths"] = segments.to(torch.int32)
    return args, said
