"""The loss on rows that are held out of training, and for plain text the bits per byte of each source."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from transformers import TrainerCallback

from medmind.core.log import say
from medmind.train.batches import Row, pack, pad
from medmind.train.checkpoint import Shelf
from medmind.train.config import TrainConfig
from medmind.train.lanes import TOKENS, Lanes
from medmind.train.loss import completion_loss
from medmind.train.progress import Meter
from medmind.train.record import MetricsLog


@dataclass
class Best:
    """The lowest held-out loss so far, and how many measurements came after it; that before training is none."""

    step: int | None = None
    loss: float = math.inf
    later: int = 0

    def add(self, step: int, loss: float) -> bool:
        """Whether this is the lowest."""
        if step == 0:
            return False
        lowest = loss < self.loss
        if lowest:
            self.step, self.loss = step, loss
        self.later = 0 if lowest else self.later + 1
        return lowest


class HeldOutLoss(TrainerCallback):
    """Measures the held-out loss at the start, at the end and every `eval_steps`; keeps the best, stops early.

    What it has measured stands in metrics.jsonl, so a resumed run knows what the killed one knew.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        config: TrainConfig,
        dtype: torch.dtype,
        log: MetricsLog,
        meter: Meter,
        shelf: Shelf,
        lanes: Lanes | None = None,
    ) -> None:
        self.lanes = lanes
        self.rows, self.config, self.dtype, self.log, self.meter, self.shelf = rows, config, dtype, log, meter, shelf
        self.report: Callable[[dict[str, float]], None] | None = None
        """Tells the trackers of train.report_to."""
        self.best = Best()
        for step, loss in log.held_out:
            self.judge(step, loss)

    def measure(self, model: torch.nn.Module, step: int) -> float:
        entry = held_out_loss(model, self.rows, self.config, self.dtype, self.lanes)
        self.log.add({"step": step} | entry)
        loss: float = entry["eval_loss"]
        if self.report:
            self.report({"eval_loss": loss})
        shown = "  ".join(f"{name} {value:.3f}" for name, value in entry.get("bits_per_byte", {}).items())
        say(f"step {step}: held-out loss {loss:.4f}" + (f"  bits per byte: {shown}" if shown else ""))
        self.meter.reset()
        return loss

    def judge(self, step: int, loss: float) -> bool:
        """Whether the checkpoint of this step is to be kept as the best."""
        lowest = self.best.add(step, loss) and self.config.load_best_model_at_end
        if lowest:
            self.shelf.best = step
        return lowest

    @property
    def exhausted(self) -> bool:
        patience = self.config.early_stopping_patience
        return patience is not None and self.best.later >= patience

    def on_train_begin(self, args: Any, state: Any, control: Any, **settings: Any) -> None:
        if state.global_step == 0:
            self.measure(settings["model"], 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **settings: Any) -> None:
        every, step = self.config.eval_steps, state.global_step
        if step != state.max_steps and not (every and step % every == 0):
            return
        due = control.should_log
        if self.judge(step, self.measure(settings["model"], step)):
            control.should_save = True
        if self.exhausted and step < state.max_steps:
            say(f"stopping early: in {self.best.later} measurements none was below that of step {self.best.step}")
            control.should_training_stop = True
        control.should_log = due  # telling the trackers of this loss is not telling them of the step's


@torch.no_grad()
def held_out_loss(
    model: torch.nn.Module, rows: Sequence[Row], config: TrainConfig, dtype: torch.dtype, lanes: Lanes | None = None
) -> dict[str, Any]:
    """Nats per supervised token over all rows and, for plain text, bits per byte of each source."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    ordered = sorted(rows, key=lambda row: (row.source, len(row.ids)))
    most = (lanes.documents, TOKENS) if lanes else (config.per_device_train_batch_size, math.inf)
    parts = [part for _, of_source in groupby(ordered, key=lambda row: row.source) for part in cut(of_source, *most)]

    def loss_of(part: Sequence[Row]) -> float:
        batch = {name: value.to(device) for name, value in (pack if config.packing else pad)(part).items()}
        return completion_loss(model, batch).item()

    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        losses = lanes.each(loss_of, parts) if lanes else list(map(loss_of, parts))
    model.train(was_training)
    nats: dict[str, float] = defaultdict(float)
    for part, loss in zip(parts, losses, strict=True):
        nats[part[0].source] += loss
    result: dict[str, Any] = {"eval_loss": sum(nats.values()) / sum(row.supervised for row in rows)}
    if config.format == "text":
        sizes = {source: sum(row.bytes for row in rows if row.source == source) for source in nats}
        result["bits_per_byte"] = {source: nats[source] / math.log(2) / sizes[source] for source in sorted(nats)}
    return result


def cut(rows: Iterable[Row], count: int, tokens: float) -> Iterator[list[Row]]:
    """In batches of so many rows, and of so many tokens where a row is not alone."""
    part: list[Row] = []
    for row in rows:
        if part and (len(part) == count or sum(len(one.ids) for one in (*part, row)) > tokens):
            yield part
            part = []
        part.append(row)
    if part:
        yield part
