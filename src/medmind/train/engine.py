"""The one training loop: a small subclass of transformers.Trainer over packed rows."""

import math
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from medmind.core.errors import DataError, GateError, Interrupted
from medmind.core.jsonl import write_json
from medmind.core.log import say
from medmind.core.rundir import RunDir
from medmind.models.load import pick_dtype
from medmind.models.spec import ModelSpec
from medmind.prompts.chat import Renderer
from medmind.train import checkpoint
from medmind.train.adapter import count_parameters, prepare_model
from medmind.train.batches import Row, pack, pad
from medmind.train.config import TrainConfig
from medmind.train.loss import completion_loss
from medmind.train.progress import Meter, MetricsLog, Watcher
from medmind.train.rows import load_rows


class PackedTrainer(Trainer):
    """Loss summed over supervised tokens and divided by their number over the whole step and all processes."""

    def __init__(self, *, meter: Meter, keep: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.meter, self.keep = meter, keep
        self.loss_is_scaled_for_ga = True
        self.remove_callback(PrinterCallback)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        assert num_items_in_batch is not None
        loss = completion_loss(model, inputs) / num_items_in_batch
        self.meter.loss += loss.item()
        self.meter.tokens += (
            int(inputs["attention_mask"].sum()) if "attention_mask" in inputs else inputs["labels"].numel()
        )
        self.meter.supervised += int((inputs["labels"] >= 0).sum())
        scaled: torch.Tensor = loss * self.accelerator.num_processes
        return scaled

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor | int | None:
        count = sum((batch["labels"] >= 0).sum() for batch in batch_samples)
        total: torch.Tensor = self.accelerator.gather(torch.as_tensor(count, device=device)).sum()
        return total

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(str(self.args.output_dir))
        checkpoint.seal(folder / f"checkpoint-{self.state.global_step}")
        checkpoint.prune(folder, self.keep)


class HeldOutLoss(TrainerCallback):
    """Measures the held-out loss at the start, at the end and every `every` steps."""

    def __init__(
        self, rows: Sequence[Row], config: TrainConfig, dtype: torch.dtype, log: MetricsLog, meter: Meter
    ) -> None:
        self.rows, self.config, self.dtype, self.log, self.meter = rows, config, dtype, log, meter

    def measure(self, model: torch.nn.Module, step: int) -> None:
        entry = held_out_loss(model, self.rows, self.config, self.dtype)
        self.log.add({"step": step} | entry)
        shown = "  ".join(f"{name} {value:.3f}" for name, value in entry.get("bits_per_byte", {}).items())
        say(f"step {step}: held-out loss {entry['eval_loss']:.4f}" + (f"  bits per byte: {shown}" if shown else ""))
        self.meter.reset()

    def on_train_begin(self, args: Any, state: Any, control: Any, **settings: Any) -> None:
        if state.global_step == 0:
            self.measure(settings["model"], 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **settings: Any) -> None:
        every = self.config.eval_steps
        if (every and state.global_step % every == 0) or state.global_step == state.max_steps:
            self.measure(settings["model"], state.global_step)


@torch.no_grad()
def held_out_loss(
    model: torch.nn.Module, rows: Sequence[Row], config: TrainConfig, dtype: torch.dtype
) -> dict[str, Any]:
    """Nats per supervised token over all rows and, for plain text, bits per byte of each source."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    nats: dict[str, float] = defaultdict(float)
    ordered = sorted(rows, key=lambda row: (row.source, len(row.ids)))
    for source in sorted({row.source for row in rows}):
        part = [row for row in ordered if row.source == source]
        for start in range(0, len(part), config.per_device_train_batch_size):
            chosen = part[start : start + config.per_device_train_batch_size]
            batch = {name: value.to(device) for name, value in (pack if config.packing else pad)(chosen).items()}
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                nats[source] += completion_loss(model, batch).item()
    model.train(was_training)
    result: dict[str, Any] = {"eval_loss": sum(nats.values()) / sum(row.supervised for row in rows)}
    if config.format == "text":
        sizes = {source: sum(row.bytes for row in rows if row.source == source) for source in nats}
        result["bits_per_byte"] = {source: nats[source] / math.log(2) / sizes[source] for source in sorted(nats)}
    return result


def training_arguments(config: TrainConfig, rundir: RunDir, rows: int, dtype: torch.dtype, seed: int) -> Any:
    per_step = config.per_device_train_batch_size * config.gradient_accumulation_steps
    steps = config.max_steps or math.ceil(math.ceil(rows / per_step) * config.num_train_epochs)
    # Named only when wanted: newer versions of transformers warn of the name.
    extra: dict[str, Any] = {"gradient_checkpointing": True} if config.gradient_checkpointing else {}
    return TrainingArguments(
        output_dir=str(rundir.checkpoints),
        num_train_epochs=config.num_train_epochs,
        max_steps=config.max_steps or -1,
        per_device_train_batch_size=config.per_device_train_batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler_type,
        warmup_steps=round(steps * config.warmup_ratio),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim=config.optim,
        bf16=dtype == torch.bfloat16,
        use_cpu=not torch.cuda.is_available(),
        save_strategy="steps",
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


def train(
    config: TrainConfig, rundir: RunDir, spec: ModelSpec, renderer: Renderer, system_prompt: str, seed: int
) -> list[Path]:
    """Trains from data/train.jsonl, resuming the newest whole checkpoint; returns what it wrote."""
    rows = load_rows(rundir, "train", spec, renderer, system_prompt, config)
    if not rows:
        raise DataError("no row to train on", where=str(rundir.split("train")))
    refuse_beyond_context(rows.longest, spec)
    held_out = load_rows(rundir, "validation", spec, renderer, system_prompt, config)
    counts = rows.counts
    set_seed(seed)
    dtype = pick_dtype(config.dtype)
    model = prepare_model(config, spec, seed)
    parameters = count_parameters(model)
    resume = checkpoint.newest_whole(rundir.checkpoints)
    first_step = int(resume.name.rpartition("-")[2]) if resume else 0
    say(
        f"training {spec.id} ({config.method}, {parameters['trainable']:,} of {parameters['total']:,} parameters, "
        f"{dtype_name(dtype)}) on {counts['rows']:,} rows, {counts['tokens']:,} tokens, "
        f"{counts['supervised_tokens']:,} of them supervised" + (f"; resuming at step {first_step}" if resume else "")
    )
    if counts["rows_over_limit"] and config.overflow != "chunk":
        say(
            f"{counts['rows_over_limit']:,} rows are longer than train.max_length {config.max_length}; "
            f"train.overflow {config.overflow}: {counts['rows_dropped']:,} rows and {counts['tokens_lost']:,} tokens "
            f"left out, the answer was hit in {counts['answers_hit']:,}; their ids are in {rundir.plan.name}",
            style="yellow",
        )
    machine = {"dtype": dtype_name(dtype), "threads": torch.get_num_threads()}
    rundir.note(**machine)
    plan: dict[str, Any] = {"parameters": parameters, **machine}
    plan |= {"train": summary(counts), "validation": summary(held_out.counts), "resumed_from": first_step}
    write_json(rundir.plan, plan)

    meter, log = Meter(), MetricsLog(rundir.metrics, first_step)
    watcher = Watcher(meter, log, config.logging_steps)
    callbacks: list[TrainerCallback] = [watcher]
    if held_out:
        callbacks.append(HeldOutLoss(held_out, config, dtype, log, meter))
    trainer = PackedTrainer(
        model=model,
        args=training_arguments(config, rundir, len(rows), dtype, seed),
        train_dataset=rows,
        data_collator=pack if config.packing else pad,
        callbacks=callbacks,
        meter=meter,
        keep=config.save_total_limit,
    )
    started = time.time()
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    finally:
        watcher.close()
    last_step = trainer.state.global_step
    process = {"pid": os.getpid(), "first_step": first_step + 1, "last_step": last_step, "started": started}
    MetricsLog(rundir.processes, last_step).add(process)
    if watcher.stopped and last_step < trainer.state.max_steps:
        raise Interrupted(f"stopped after step {last_step}, which is saved", todo="the same command resumes there")
    shutil.rmtree(rundir.rows("train").parent)
    return finish(config, rundir, trainer)


def refuse_beyond_context(longest: int, spec: ModelSpec) -> None:
    if longest > spec.context:
        raise DataError(
            f"a row has {longest} tokens, more than the {spec.context} {spec.id} can read",
            todo=f"set train.max_length to at most {spec.context} and say in train.overflow what is to happen",
        )


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def summary(counts: dict[str, Any]) -> dict[str, Any]:
    """The counts for plan.json, the lengths as a few quantiles."""
    lengths = sorted(counts.pop("lengths"))
    if not lengths:
        return counts
    spread = {f"p{share}": lengths[min(len(lengths) - 1, len(lengths) * share // 100)] for share in (50, 90, 99, 100)}
    return counts | {"length_tokens": spread}


def finish(config: TrainConfig, rundir: RunDir, trainer: PackedTrainer) -> list[Path]:
    """Saves the result under its final name, once it is whole."""
    out = rundir.adapter if config.method == "lora" else rundir.model
    partial = out.with_name(f".{out.name}.tmp")
    model = trainer.model
    assert model is not None
    if not all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
        raise GateError("training ended with a weight that is not a number", todo="lower train.learning_rate")
    trainer.save_model(str(partial))
    (partial / "training_args.bin").unlink(missing_ok=True)
    replace_folder(partial, out)
    files = [path for path in out.rglob("*") if path.is_file()]
    return [*files, rundir.plan, rundir.metrics]


def replace_folder(new: Path, old: Path) -> None:
    """Puts a finished folder in an older one's place."""
    if old.exists():
        shutil.rmtree(old)
    new.rename(old)
