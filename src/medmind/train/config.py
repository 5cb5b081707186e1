"""Settings of training; names that transformers or PEFT have are theirs."""

from typing import Literal

from pydantic import Field

from medmind.core.config import StageConfig


class LoraConfig(StageConfig):
    r: int = Field(default=16, ge=1)
    lora_alpha: int = Field(default=32, ge=1)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: tuple[str, ...] = ()
    """Empty: every linear module of the model's family."""
    use_rslora: bool = False


class TrainConfig(StageConfig):
    method: Literal["lora", "full"] = "lora"
    format: Literal["chat", "text"] = "chat"
    """text: plain passages, every token supervised; only for pre-training."""
    lora: LoraConfig = LoraConfig()
    init: Literal["pretrained", "random"] = "pretrained"
    """random: new weights in the model's shape (method full)."""

    learning_rate: float = Field(default=2e-4, gt=0)
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    optim: str = "adamw_torch"
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

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the computation; master weights and the optimiser stay in float32."""
    save_steps: int = Field(default=50, ge=1)
    save_total_limit: int = Field(default=2, ge=1)
    eval_steps: int | None = Field(default=None, ge=1)
    """How often the held-out loss is measured; None: at the start and the end."""
    logging_steps: int = Field(default=1, ge=1)
    report_to: tuple[str, ...] = ()

    def conflicts(self) -> list[str]:
        found = []
        if self.method != "lora" and self.lora != LoraConfig():
            found.append(f'train.lora has no effect with train.method "{self.method}"')
        if self.init == "random" and self.method != "full":
            found.append('train.init "random" needs train.method "full"')
        if self.overflow == "chunk" and self.format != "text":
            found.append('train.overflow "chunk" needs train.format "text": a divided chat has no answer')
        return found
