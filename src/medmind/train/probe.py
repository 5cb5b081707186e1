"""Times a few real steps of a recipe on this machine: of all layers of a small model, of one and two of a large one.

The weights are random, in a checkpoint made for the purpose: a model need not be here to be timed, and all else, from
loading to the optimiser, is what training does.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from medmind.core.rundir import RunDir
from medmind.models.load import pick_dtype
from medmind.models.make import make_weights
from medmind.models.spec import ModelSpec
from medmind.train.adapter import count_parameters, prepare_model
from medmind.train.arguments import training_arguments
from medmind.train.batches import Row, pack, pad
from medmind.train.config import TrainConfig
from medmind.train.held_out import held_out_loss
from medmind.train.lanes import open_lanes
from medmind.train.loss import completion_loss

SMALL = 200_000_000
"""Parameters up to which all layers are timed."""
SECONDS = 3.0
"""For the steps of a small model; the longest of a large one takes half of it."""
LEAST = 3
"""Of them whatever they cost."""
FEW = 32
"""Tokens of the first step of a large model, which tells how many the others may have."""


@dataclass(frozen=True)
class Line:
    """Seconds as a straight line over tokens."""

    fixed: float
    per_token: float

    def at(self, tokens: float) -> float:
        return self.fixed + self.per_token * tokens


@dataclass(frozen=True)
class Pace:
    """What this machine needs for one batch forward and back, for one update, and to load the model."""

    batch: Line
    forward_share: float
    update: float
    load: float


@dataclass(frozen=True)
class Pass:
    tokens: int
    forward: float
    backward: float

    @property
    def seconds(self) -> float:
        return self.forward + self.backward


class Bench:
    """The recipe's model with `layers` layers, ready to be timed; of them the first `used` compute."""

    def __init__(self, config: TrainConfig, spec: ModelSpec, folder: Path, seed: int) -> None:
        start = time.perf_counter()
        self.config = config
        self.dtype = pick_dtype(config.dtype)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model: Any = prepare_model(config, spec, seed)
        self.model = model.to(self.device).train()
        if config.gradient_checkpointing:
            self.model.gradient_checkpointing_enable()
        self.lanes = open_lanes(config, model)
        self.load = time.perf_counter() - start
        self.trainable = count_parameters(model)["trainable"]
        arguments = training_arguments(config, RunDir(folder), self.dtype, seed)
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments, self.model)
        self.optimiser = kind([one for one in self.model.parameters() if one.requires_grad], **settings)

    def run(self, rows: Sequence[Row]) -> Pass:
        """One batch forward and back."""
        batch = {name: value.to(self.device) for name, value in (pack if self.config.packing else pad)(rows).items()}
        start = self.now()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            loss = self.lanes.loss(self.model, batch) if self.lanes else completion_loss(self.model, batch)
        half = self.now()
        loss.backward()  # type: ignore[no-untyped-call]
        end = self.now()
        forward = self.forward(rows) if self.lanes else half - start  # lanes go back at once, pass by pass
        return Pass(int(batch["input_ids"].numel()), forward, end - start - forward)

    def forward(self, rows: Sequence[Row]) -> float:
        start = self.now()
        held_out_loss(self.model, rows, self.config, self.dtype, self.lanes)
        return self.now() - start

    def update(self) -> float:
        start = self.now()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return self.now() - start

    def use(self, layers: int) -> None:
        decoder: Any = getattr(self.model, "get_base_model", lambda: self.model)().model
        decoder.config.num_hidden_layers = layers

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def probe(config: TrainConfig, spec: ModelSpec, batches: Sequence[Sequence[Row]], seed: int) -> Pace:
    """`batches` are some of the run's own, in any order."""
    whole = spec.shape.parameters <= SMALL
    layers = spec.shape.num_hidden_layers if whole else 2
    with tempfile.TemporaryDirectory() as name:
        thin = replace(spec, source=name, local=True, shape=replace(spec.shape, num_hidden_layers=layers))
        make_weights(thin, Path(name), {})
        bench = Bench(config, thin, Path(name), seed)
        bench.run(shorten(batches[0], FEW))  # the first of all pays for what is set up once
        bench.update()
        return time_whole(bench, batches) if whole else time_layers(bench, batches, spec)


def time_whole(bench: Bench, batches: Sequence[Sequence[Row]]) -> Pace:
    """Steps as they come, until the time is up; the first, which meets new memory, does not count."""
    passes, updates = [], []
    start = time.perf_counter()
    for rows in cycle(batches):
        passes.append(bench.run(rows))
        updates.append(bench.update())
        if len(passes) > LEAST and time.perf_counter() - start > SECONDS:
            break
    per_token = statistics.median(one.seconds / one.tokens for one in passes[1:])
    return Pace(Line(0.0, per_token), share(passes), statistics.median(updates[1:]), bench.load)


def time_layers(bench: Bench, batches: Sequence[Sequence[Row]], spec: ModelSpec) -> Pace:
    """One layer and two, with few tokens and with more; what lies around the layers is what one layer does not explain.

    The straight lines are drawn on to all layers and to any number of tokens.
    """
    first = timed(bench, shorten(batches[0], FEW))
    affordable = int(FEW * max(2.0, SECONDS / 2 / first[1].seconds))
    many = shorten(batches[0], affordable)
    few = shorten(many, max(FEW, sum(len(row.ids) for row in many) // 4))
    measured = [timed(bench, rows) for rows in (few, many)]
    layers = spec.shape.num_hidden_layers
    whole, forward = (draw_on(measured, layers, attrgetter(name)) for name in ("seconds", "forward"))
    most, grown = measured[1][0].tokens, layers / 2
    return Pace(whole, min(1.0, forward.at(most) / whole.at(most)), bench.update() * grown, bench.load * grown)


def draw_on(measured: Sequence[tuple[Pass, Pass]], layers: int, seconds: Callable[[Pass], float]) -> Line:
    """From one layer and two, at two lengths, to all layers at any length."""
    layer = line([(two.tokens, seconds(two) - seconds(one)) for one, two in measured])
    around = line([(two.tokens, 2 * seconds(one) - seconds(two)) for one, two in measured])
    return Line(around.fixed + layers * layer.fixed, around.per_token + layers * layer.per_token)


def timed(bench: Bench, rows: Sequence[Row], times: int = 3) -> tuple[Pass, Pass]:
    """With one layer and with two, in turn; of each the median."""
    pairs = []
    for _ in range(times):
        for layers in (1, 2):
            bench.use(layers)
            pairs.append(bench.run(rows))
    one, two = (sorted(passes, key=attrgetter("seconds"))[times // 2] for passes in (pairs[::2], pairs[1::2]))
    return one, two


def line(points: Sequence[tuple[int, float]]) -> Line:
    """Through two points, neither falling nor beginning below zero."""
    (few, low), (many, high) = points
    per_token = (high - low) / (many - few) if many > few else high / many
    per_token = min(max(per_token, 0.0), max(high, 0.0) / many)
    return Line(max(high, 0.0) - per_token * many, per_token)


def share(passes: Sequence[Pass]) -> float:
    return sum(one.forward for one in passes) / sum(one.seconds for one in passes)


def cut(row: Row, tokens: int) -> Row:
    """Its end, which is what is learnt."""
    return replace(row, ids=row.ids[-tokens:], labels=row.labels[-tokens:])


def shorten(rows: Sequence[Row], tokens: int) -> list[Row]:
    """To that many tokens in all, each to its share: as many documents, or threads that share them out stand idle."""
    total = sum(len(row.ids) for row in rows)
    return [cut(row, max(2, len(row.ids) * tokens // total)) for row in rows] if total > tokens else list(rows)
