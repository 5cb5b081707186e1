"""What training on a recipe's rows amounts to: their lengths in tokens, and the batches and steps they make."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from medmind.core.jsonl import write_json
from medmind.core.rundir import RunDir
from medmind.core.sampling import sample
from medmind.core.types import Example
from medmind.data.stage.assemble import assemble
from medmind.data.stage.spool import rows_of
from medmind.estimate.activations import Batch
from medmind.models.files import is_here
from medmind.models.spec import ModelSpec
from medmind.models.tokenizer import JsonTokenizer, open_tokenizer
from medmind.prompts.chat import Renderer
from medmind.prompts.families import open_renderer
from medmind.recipe.schema import Recipe
from medmind.recipe.stages import stage_key
from medmind.train.batches import Counts, Row, stream
from medmind.train.config import TrainConfig
from medmind.train.lanes import count_lanes, divide

SAMPLE = 10_000
"""Rows tokenised; of more a seeded sample."""
BATCHES = 2_000
"""Laid out to find how large they are; of more a seeded sample."""


@dataclass(frozen=True)
class Work:
    """`rows` are those tokenised, `share` how many that is of all; `validation` counts rows, held out of training."""

    rows: list[Row]
    share: float
    validation: int
    counts: Counts
    tokenizer: str
    """Whose tokens these are."""
    source: str
    """Where the rows come from, in words."""
    examples: Sequence[Example]

    @property
    def row_count(self) -> int:
        return round(len(self.rows) / self.share)

    @property
    def tokens(self) -> int:
        return round(self.counts.tokens / self.share)


@dataclass(frozen=True)
class Steps:
    """Of the whole run, without early stopping."""

    epochs: float
    steps: int
    batches: int
    """Forward and backward passes of an epoch."""
    examples_per_step: int


def read_work(recipe: Recipe, rundir: RunDir, renderer: Renderer, tokenizer: str) -> Work:
    """The rows the run has, if its data stage is up to date; else those it would make, which writes nothing."""
    if rundir.is_done("data", stage_key(recipe, rundir, "data")):
        parts: dict[str, Sequence[Example]] = {name: rows_of(rundir.split(name)) for name in ("train", "validation")}
        source = str(rundir.split("train"))
    else:
        parts, source = dict(assemble(recipe.data, recipe.seed).parts), f"training rows of {recipe.data.source}"
    examples = parts["train"]
    chosen = sample(len(examples), SAMPLE, recipe.seed)
    counts = Counts()
    some = (examples[place] for place in chosen)
    rows = list(stream(some, renderer, recipe.data.system_prompt, recipe.train, counts))
    share = len(chosen) / len(examples)
    return Work(rows, share, len(parts["validation"]), counts, tokenizer, source, examples)


def open_words(spec: ModelSpec) -> tuple[Renderer, str]:
    """The model's renderer; without its files, over the tokenizer that `medmind models make` would give its shape."""
    if is_here(spec, "tokenizer.json"):
        return open_renderer(spec.renderer, open_tokenizer(spec)), "its own tokenizer"
    from medmind.models.vocabulary import find_tokenizer

    whole, origin = find_tokenizer(spec)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.json"
        write_json(file, whole)
        return open_renderer(spec.renderer, JsonTokenizer(file)), origin


def count_steps(work: Work, config: TrainConfig) -> Steps:
    """As the Trainer counts them."""
    batches = math.ceil(work.row_count / config.per_device_train_batch_size)
    per_epoch = math.ceil(batches / config.gradient_accumulation_steps)
    steps = config.max_steps or math.ceil(per_epoch * config.num_train_epochs)
    size = config.per_device_train_batch_size * config.gradient_accumulation_steps
    return Steps(steps / per_epoch, steps, batches, size)


def lay_out(work: Work, config: TrainConfig, seed: int) -> Iterator[list[Row]]:
    """Batches in a seeded order, as many as an epoch has but not above BATCHES."""
    size = config.per_device_train_batch_size
    order = np.random.default_rng(seed).permutation(len(work.rows))
    for start in range(0, min(len(order), size * BATCHES), size):
        yield [work.rows[place] for place in order[start : start + size].tolist()]


def shape_of(rows: Sequence[Row], config: TrainConfig) -> Batch:
    return Batch(tuple(len(row.ids) for row in rows), sum(row.supervised for row in rows), config.packing)


def held_at_once(rows: Sequence[Row], config: TrainConfig, width: int) -> list[Row]:
    """Of a batch those whose tensors are there at the same time: all, or a pass of each lane."""
    if (lanes := count_lanes(config)) == 1:
        return list(rows)
    lengths = [len(row.ids) for row in rows]
    divided = divide(lengths, lanes, config.per_device_train_batch_size // lanes, width)
    moments = ([place for one in passes for place in one] for passes in zip_longest(*divided, fillvalue=[]))
    return [rows[place] for place in max(moments, key=lambda places: sum(lengths[place] for place in places))]


def within(work: Work, length: int) -> Work:
    """Without the rows that are longer."""
    return replace(work, rows=[row for row in work.rows if len(row.ids) <= length])
