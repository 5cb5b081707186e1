"""Every setting of a recipe's train section that the Trainer has, under its name there."""

from typing import Any

import torch
from transformers import TrainingArguments

from medmind.core.rundir import RunDir
from medmind.train.config import TrainConfig
from medmind.train.processes import share_out, state

LIGER = {"rope": True, "rms_norm": True, "swiglu": True, "cross_entropy": False, "fused_linear_cross_entropy": False}
"""Its kernels but those of the loss, which is ours."""


def training_arguments(config: TrainConfig, rundir: RunDir, dtype: torch.dtype, seed: int, whole: bool = False) -> Any:
    """whole: a step is one batch, which whoever computes its loss takes in passes."""
    at_once, rounds = share_out(config, state().num_processes)
    if whole:
        at_once, rounds = at_once * rounds, 1
    # Named only when wanted: newer versions of transformers warn of the name.
    extra: dict[str, Any] = {}
    if config.gradient_checkpointing:
        extra = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    if config.use_liger_kernel:
        extra |= {"use_liger_kernel": True, "liger_kernel_config": LIGER}
    args = TrainingArguments(
        output_dir=str(rundir.checkpoints),
        num_train_epochs=config.num_train_epochs,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=rounds,
        # Each batch is cut into a piece for every process, and no example is read twice to make the pieces even.
        accelerator_config={"split_batches": True, "even_batches": False},
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        warmup_steps=config.warmup_ratio if config.warmup_steps is None else config.warmup_steps,  # below 1, a share
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim=config.optim,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        use_cpu=not torch.cuda.is_available(),
        save_strategy=config.save_strategy,
        save_steps=config.save_steps,
        logging_strategy="steps" if config.report_to else "no",
        logging_steps=config.logging_steps,
        report_to=list(config.report_to),
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        seed=seed,
        data_seed=seed,
        **extra,
    )
    # One process computes on one device: beside others of its own the Trainer would cut a packed row in pieces.
    args._n_gpu = min(args.n_gpu, 1)
    return args
