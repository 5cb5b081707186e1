"""The training stage: rows, model, the one loop, and what it leaves behind."""

import gc
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from medmind.core.errors import DataError, GateError, Interrupted
from medmind.core.heap import keep_blocks
from medmind.core.jsonl import read_json, write_json
from medmind.core.log import say
from medmind.core.rundir import RunDir
from medmind.models.spec import ModelSpec
from medmind.prompts.chat import Renderer
from medmind.train import checkpoint
from medmind.train.adapter import count_parameters, prepare_model, save_for_the_base
from medmind.train.arguments import training_arguments
from medmind.train.batches import pack, pad
from medmind.train.checkpoint import Shelf, saving
from medmind.train.config import TrainConfig
from medmind.train.guard import Guard
from medmind.train.held_out import HeldOutLoss
from medmind.train.lanes import open_lanes
from medmind.train.machine import dtype_of, settle
from medmind.train.processes import first_goes_first, is_first, join_processes, wait_for_all
from medmind.train.progress import Meter, Watcher
from medmind.train.record import MetricsLog, ProcessLog
from medmind.train.rows import StoredRows, load_rows
from medmind.train.trackers import check_trackers
from medmind.train.trainer import PackedTrainer


def train(
    config: TrainConfig, rundir: RunDir, spec: ModelSpec, renderer: Renderer, system_prompt: str, seed: int
) -> list[Path]:
    """Trains from data/train.jsonl, resuming the newest whole checkpoint; returns what it wrote."""
    check_trackers(config.report_to, rundir)
    processes = join_processes()
    with first_goes_first():
        rows, held_out = (
            load_rows(rundir, part, spec, renderer, system_prompt, config) for part in ("train", "validation")
        )
        resume = checkpoint.newest_whole(rundir.checkpoints)
    check_rows(config, rundir, spec, rows, held_out)
    machine = settle(config, rundir, processes, resumed=resume is not None)
    config = config.model_copy(update={"dtype": machine["dtype"]})
    set_seed(seed)
    model = prepare_model(config, spec, seed)
    lanes = open_lanes(config, model, processes)
    parameters = count_parameters(model)
    first_step = checkpoint.step_of(resume) if resume else 0
    tell(config, rundir, spec, parameters, rows.counts, first_step)
    plan: dict[str, Any] = {"parameters": parameters, **machine}
    plan |= {"train": summary(rows.counts), "validation": summary(held_out.counts), "resumed_from": first_step}
    if is_first():
        rundir.note(**machine)
        write_json(rundir.plan, plan)

    meter, log, process = Meter(), MetricsLog(rundir.metrics, first_step), ProcessLog(rundir.processes, first_step)
    shelf = Shelf(rundir.checkpoints, rundir.metrics, config.save_total_limit)
    watcher = Watcher(meter, log, process, config.logging_steps)
    measure = HeldOutLoss(held_out, config, dtype_of(machine), log, meter, shelf, lanes) if held_out else None
    trainer = PackedTrainer(
        model=model,
        args=training_arguments(config, rundir, dtype_of(machine), seed, whole=lanes is not None),
        train_dataset=rows,
        data_collator=pack if config.packing else pad,
        callbacks=[watcher, *([measure] if measure else [])],
        loraplus_lr_ratio=config.lora.loraplus_lr_ratio,
        meter=meter,
        guard=Guard(rows, rundir.split("train"), renderer.tokenizer.vocab_size, first_step + 1),
        shelf=shelf,
        lanes=lanes,
    )
    if measure and config.report_to:
        measure.report = trainer.log
    with keep_blocks() if lanes else nullcontext():
        step = go_on(trainer, watcher, measure, resume)
    if shelf.best not in (None, step):
        step = take_best(trainer, shelf)
    if is_first():
        write_json(rundir.plan, plan | {"result_step": step})
    files = finish(config, rundir, trainer)
    wait_for_all()
    if is_first():
        shutil.rmtree(rundir.rows("train").parent)
    return files


def go_on(trainer: PackedTrainer, watcher: Watcher, measure: HeldOutLoss | None, resume: Path | None) -> int:
    """Trains to the end, from a checkpoint if there is one; returns the last step."""
    if resume and (is_last(resume) or (measure and measure.exhausted)):  # killed after its last step: none is left
        trainer.load_weights(resume)
        return checkpoint.step_of(resume)
    gc.freeze()  # a model's modules live as long as the run: the collector need not go through them again and again
    try:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    finally:
        gc.unfreeze()
        watcher.close()
    step: int = trainer.state.global_step
    if watcher.stopped and step < trainer.state.max_steps and not (measure and measure.exhausted):
        raise Interrupted(f"stopped after step {step}, which is saved", todo="the same command resumes there")
    return step


def is_last(resume: Path) -> bool:
    state = read_json(resume / "trainer_state.json")
    return bool(state["global_step"] >= state["max_steps"])


def take_best(trainer: PackedTrainer, shelf: Shelf) -> int:
    """Puts the weights with the lowest held-out loss in the place of the last; returns their step."""
    assert shelf.best is not None
    folder = shelf.path(shelf.best)
    if not checkpoint.is_whole(folder):
        raise DataError(
            "the checkpoint with the lowest held-out loss is gone or damaged",
            where=str(folder),
            todo="set train.load_best_model_at_end to false, or train anew",
        )
    trainer.load_weights(folder)
    say(f"the result is step {shelf.best}, which had the lowest held-out loss")
    return shelf.best


def check_rows(config: TrainConfig, rundir: RunDir, spec: ModelSpec, rows: StoredRows, held_out: StoredRows) -> None:
    if not rows:
        raise DataError("no row to train on", where=str(rundir.split("train")))
    if rows.longest > spec.context:
        raise DataError(
            f"a row has {rows.longest} tokens, more than the {spec.context} {spec.id} can read",
            todo=f"set train.max_length to at most {spec.context} and say in train.overflow what is to happen",
        )
    need_loss = ("eval_steps", "early_stopping_patience", "load_best_model_at_end")
    idle = ", ".join(f"train.{name}" for name in need_loss if getattr(config, name))
    if idle and not held_out:
        raise DataError(
            f"no row is held out, and without its loss there is no effect of {idle}",
            where=str(rundir.split("validation")),
            todo="raise data.validation_fraction, or leave the setting out",
        )


def tell(
    config: TrainConfig,
    rundir: RunDir,
    spec: ModelSpec,
    parameters: dict[str, int],
    counts: dict[str, Any],
    first_step: int,
) -> None:
    say(
        f"training {spec.id} ({config.method}, {parameters['trainable']:,} of {parameters['total']:,} parameters, "
        f"{config.dtype}) on {counts['rows']:,} rows, {counts['tokens']:,} tokens, "
        f"{counts['supervised_tokens']:,} of them supervised"
        + (f"; resuming at step {first_step}" if first_step else "")
    )
    if counts["rows_over_limit"] and config.overflow != "chunk":
        say(
            f"{counts['rows_over_limit']:,} rows are longer than train.max_length {config.max_length}; "
            f"train.overflow {config.overflow}: {counts['rows_dropped']:,} rows and {counts['tokens_lost']:,} tokens "
            f"left out, the answer was hit in {counts['answers_hit']:,}; their ids are in {rundir.plan.name}",
            style="yellow",
        )


def summary(counts: dict[str, Any]) -> dict[str, Any]:
    """The counts for plan.json, the lengths as a few quantiles."""
    lengths = sorted(counts.pop("lengths"))
    if not lengths:
        return counts
    spread = {f"p{share}": lengths[min(len(lengths) - 1, len(lengths) * share // 100)] for share in (50, 90, 99, 100)}
    return counts | {"length_tokens": spread}


def finish(config: TrainConfig, rundir: RunDir, trainer: PackedTrainer) -> list[Path]:
    """Saves the result under its final name, once it is whole."""
    out = rundir.model if config.method == "full" else rundir.adapter
    partial = out.with_name(f".{out.name}.tmp")
    model = trainer.model
    assert model is not None
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not all(bool(torch.isfinite(parameter).all()) for parameter in learnt):
        raise GateError("training ended with a weight that is not a number", todo="lower train.learning_rate")
    with saving(f"the {out.name}", partial):
        trainer.save_model(str(partial))
        if is_first():
            save_for_the_base(model, partial)
    if is_first():
        (partial / "training_args.bin").unlink(missing_ok=True)
        replace_folder(partial, out)
    files = [path for path in out.rglob("*") if path.is_file()]
    return [*files, rundir.plan, rundir.metrics]


def replace_folder(new: Path, old: Path) -> None:
    """Puts a finished folder in an older one's place."""
    if old.exists():
        shutil.rmtree(old)
    new.rename(old)
