"""Settings of training; names that transformers, PEFT or bitsandbytes have are theirs."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator
from pydantic_core import PydanticCustomError

from medmind.core.config import StageConfig

Optimiser = Literal[
    "adamw_torch",
    "adamw_torch_fused",
    "adafactor",
    "sgd",
    "adagrad",
    "rmsprop",
    "adamw_8bit",
    "adamw_bnb_8bit",
    "ademamix",
    "ademamix_8bit",
    "lion_32bit",
    "lion_8bit",
    "rmsprop_bnb",
    "rmsprop_bnb_32bit",
    "rmsprop_bnb_8bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
    "paged_ademamix_32bit",
    "paged_ademamix_8bit",
    "paged_lion_32bit",
    "paged_lion_8bit",
]
"""The Trainer's names, without those that need a package of their own."""

BUILT_IN = ("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop")
"""Those that torch and transformers bring; bitsandbytes has the others."""


def check_init(value: Any) -> bool | str:
    if value is True or (isinstance(value, str) and re.fullmatch(r"gaussian|pissa(_niter_[1-9]\d*)?", value)):
        return value
    raise PydanticCustomError("init_lora_weights", "must be true, gaussian, pissa or pissa_niter_N")


class LoraConfig(StageConfig):
    r: int = Field(default=16, ge=1)
    lora_alpha: int = Field(default=32, ge=1)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] = ()
    """Empty: every linear module of the model's family."""
    use_rslora: bool = False
    use_dora: bool = False
    init_lora_weights: Annotated[bool | str, PlainValidator(check_init)] = True
    """pissa begins with the principal part of the weights, pissa_niter_N finds it by N rounds of a fast SVD."""
    modules_to_save: tuple[str, ...] = ()
    """Trained whole, beside the adapters."""
    loraplus_lr_ratio: float | None = Field(default=None, gt=1)
    """How much faster the B matrices learn than the A matrices (LoRA+)."""

    @property
    def uses_pissa(self) -> bool:
        return isinstance(self.init_lora_weights, str) and self.init_lora_weights.startswith("pissa")


class QuantizationConfig(StageConfig):
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    bnb_4bit_use_double_quant: bool = True
    llm_int8_threshold: float = Field(default=6.0, ge=0)
    llm_int8_skip_modules: tuple[str, ...] = ()
    """Left as they are, besides the output layer."""
    llm_int8_enable_fp32_cpu_offload: bool = False
    """What does not fit on the GPU stays on the CPU in float32."""


class TrainConfig(StageConfig):
    method: Literal["full", "lora", "qlora", "lora8"] = "lora"
    """qlora, lora8: adapters over a frozen base in 4 or 8 bits."""
    format: Literal["chat", "text"] = "chat"
    """text: plain passages, every token supervised; only for pre-training."""
    lora: LoraConfig = LoraConfig()
    quantization: QuantizationConfig = QuantizationConfig()
    init: Literal["pretrained", "random"] = "pretrained"
    """random: new weights in the model's shape (method full)."""

    learning_rate: float = Field(default=2e-4, gt=0)
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    warmup_steps: int | None = Field(default=None, ge=0)
    """In place of the ratio."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    optim: Optimiser = "adamw_torch"
    neftune_noise_alpha: float | None = Field(default=None, gt=0)
    num_train_epochs: float = Field(default=3.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    per_device_train_batch_size: int = Field(default=4, ge=1)
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    gradient_checkpointing: bool = False

    max_length: int = Field(default=1024, ge=8)
    """Tokens in a row, prompt and reply together."""
    overflow: Literal["error", "truncate", "drop", "chunk"] = "error"
    """What happens to a longer row; whatever it is, it is counted. chunk divides plain passages."""
    packing: bool = True
    """Rows of a step side by side without padding; the loss is the same either way."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the computation; master weights and the optimiser stay in float32."""
    backend: Literal["transformers", "unsloth"] = "transformers"
    """Who loads the model and puts the adapters on; rows, loss and loop are the same. unsloth: on a GPU."""
    torch_compile: bool = False
    """Each layer compiled, on a GPU."""
    use_liger_kernel: bool = False
    """Norms, rotary positions and SwiGLU by Liger's kernels, on a GPU."""
    save_strategy: Literal["steps", "epoch"] = "steps"
    save_steps: int = Field(default=50, ge=1)
    save_total_limit: int = Field(default=2, ge=1)
    eval_steps: int | None = Field(default=None, ge=1)
    """How often the held-out loss is measured; None: at the start and the end."""
    early_stopping_patience: int | None = Field(default=None, ge=1)
    """Measurements without a better held-out loss after which training ends."""
    load_best_model_at_end: bool = False
    logging_steps: int = Field(default=1, ge=1)
    report_to: tuple[Literal["tensorboard", "mlflow", "wandb", "trackio"], ...] = ()
    """Trackers to tell of each step; all but tensorboard may send it to a server."""

    @property
    def needs_bitsandbytes(self) -> bool:
        return self.method in ("qlora", "lora8") or self.optim not in BUILT_IN

    def conflicts(self) -> list[str]:
        found = [*self.conflicts_of_method(), *self.conflicts_of_backend(), *self.conflicts_of_schedule()]
        if self.init == "random" and self.method != "full":
            found.append('train.init "random" needs train.method "full"')
        if self.overflow == "chunk" and self.format != "text":
            found.append('train.overflow "chunk" needs train.format "text": a divided chat has no answer')
        return found

    def conflicts_of_method(self) -> list[str]:
        found = []
        if self.method == "full" and self.lora != LoraConfig():
            found.append(f'train.lora has no effect with train.method "{self.method}"')
        idle = {"qlora": {"llm_int8_threshold"}, "lora8": {"bnb_4bit_quant_type", "bnb_4bit_use_double_quant"}}
        said = changed(self.quantization).keys()
        for name in said & idle.get(self.method, said):
            found.append(f'train.quantization.{name} has no effect with train.method "{self.method}"')
        if self.lora.uses_pissa and self.method in idle:
            found.append(
                f'train.lora.init_lora_weights "{self.lora.init_lora_weights}" changes the base\'s weights, '
                f'which train.method "{self.method}" has quantised'
            )
        for name in ("use_dora", "modules_to_save"):
            if self.lora.uses_pissa and getattr(self.lora, name):
                found.append(f"train.lora.{name} cannot be combined with PiSSA, whose result would lose it when saved")
        if both := sorted({*self.lora.target_modules} & {*self.lora.modules_to_save}):
            found.append(f"train.lora.modules_to_save trains whole what has an adapter: {', '.join(both)}")
        return found

    def conflicts_of_backend(self) -> list[str]:
        if self.backend != "unsloth":
            return []
        found = []
        if self.method == "full":
            found.append('train.backend "unsloth" trains adapters: choose another train.method')
        for name in ("torch_compile", "use_liger_kernel"):
            if getattr(self, name):
                found.append(f'train.{name} has no effect with train.backend "unsloth", which has kernels of its own')
        if self.neftune_noise_alpha:
            found.append('train.neftune_noise_alpha is not known to train.backend "unsloth"')
        own = changed(self.lora).keys() & {"use_dora", "init_lora_weights", "modules_to_save"}
        found += [f'train.lora.{name} is not known to train.backend "unsloth"' for name in sorted(own)]
        found += [f"train.quantization.{name} is Unsloth's own choice" for name in changed(self.quantization)]
        return found

    def conflicts_of_schedule(self) -> list[str]:
        found, said = [], changed(self)
        if {"warmup_ratio", "warmup_steps"} <= said.keys():
            found.append("train.warmup_steps goes before train.warmup_ratio: say one of them")
        for name in ("warmup_steps", "warmup_ratio"):
            if said.get(name) and self.lr_scheduler_type == "constant":
                found.append(f'train.{name} has no effect with train.lr_scheduler_type "constant"')
        if self.save_strategy == "epoch" and "save_steps" in said:
            found.append('train.save_steps has no effect with train.save_strategy "epoch"')
        for name in ("early_stopping_patience", "load_best_model_at_end"):
            if name in said and not self.eval_steps:
                found.append(f"train.{name} needs train.eval_steps: how often the held-out loss is measured")
        return found


def changed(config: StageConfig) -> dict[str, Any]:
    """The settings that differ from their defaults."""
    fields = type(config).model_fields
    return {name: value for name, value in config if value != fields[name].default}
