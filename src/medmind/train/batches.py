"""Examples → token rows, and rows → batches; nothing is cut that was not allowed to be, and every cut is counted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from medmind.core.errors import DataError
from medmind.core.types import Example
from medmind.prompts.chat import Rendered, Renderer
from medmind.prompts.tasks.known import TASKS
from medmind.train.config import TrainConfig

IGNORED = -100


@dataclass(frozen=True)
class Row:
    """Token ids, and for each position the id to be predicted there (IGNORED where the loss does not look).

    Labels are shifted already, so a row laid beside another can never be asked for its neighbour's first token.
    """

    source: str
    ids: tuple[int, ...]
    labels: tuple[int, ...]
    bytes: int
    """UTF-8 bytes of the supervised text, for bits per byte."""

    @property
    def supervised(self) -> int:
        return sum(label != IGNORED for label in self.labels)


@dataclass
class Counts:
    """What tokenising did to the rows; goes to plan.json."""

    rows: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    rows_over_limit: int = 0
    rows_dropped: int = 0
    tokens_lost: int = 0
    answers_hit: int = 0
    ids_over_limit: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)


def tokenise(
    examples: Iterable[Example], renderer: Renderer, system_prompt: str, config: TrainConfig
) -> tuple[list[Row], Counts]:
    """One row an example (several where a passage is chunked), each with something to learn."""
    rows: list[Row] = []
    counts = Counts()
    for example in examples:
        rendered = render(example, renderer, system_prompt, config)
        whole = make_row(example.source, rendered, renderer)
        if not whole.supervised:
            raise DataError("a row has no supervised token", where=f'id "{example.id}"', todo="check its answer")
        last_learnt = next(label for label in reversed(whole.labels) if label != IGNORED)
        if config.format == "chat" and last_learnt not in renderer.stop_ids:
            raise DataError("the end of the reply is not supervised", where=f'id "{example.id}"')
        rows += fit(example.id, whole, renderer, config, counts)
    counts.rows = len(rows)
    counts.lengths = [len(row.ids) for row in rows]
    counts.tokens = sum(counts.lengths)
    counts.supervised_tokens = sum(row.supervised for row in rows)
    return rows, counts


def render(example: Example, renderer: Renderer, system_prompt: str, config: TrainConfig) -> Rendered:
    if config.format == "text":
        return renderer.passage(example.target)
    return renderer.render(TASKS.get(example.task).learn(example, system_prompt))


def make_row(source: str, rendered: Rendered, renderer: Renderer) -> Row:
    nexts = zip(rendered.ids[1:], rendered.loss_mask[1:], strict=True)
    labels = (*(token if learn else IGNORED for token, learn in nexts), IGNORED)
    text = renderer.tokenizer.decode([label for label in labels if label != IGNORED])
    return Row(source, rendered.ids, labels, len(text.encode()))


def fit(name: str, row: Row, renderer: Renderer, config: TrainConfig, counts: Counts) -> list[Row]:
    """The row within the length limit, by the rule the recipe names."""
    limit = config.max_length
    if len(row.ids) <= limit:
        return [row]
    counts.rows_over_limit += 1
    counts.ids_over_limit.append(name)
    if config.overflow == "error":
        raise DataError(
            f"a row has {len(row.ids)} tokens, more than train.max_length {limit}",
            where=f'id "{name}"',
            todo="raise train.max_length, or allow it: train.overflow truncate or drop",
        )
    if config.overflow == "chunk":
        return [cut(row, start, start + limit, renderer) for start in range(0, len(row.ids), limit)]
    short = cut(row, 0, limit, renderer)
    counts.answers_hit += short.supervised < row.supervised
    if config.overflow == "drop" or not short.supervised:
        counts.rows_dropped += 1
        counts.tokens_lost += len(row.ids)
        return []
    counts.tokens_lost += len(row.ids) - limit
    return [short]


def cut(row: Row, start: int, end: int, renderer: Renderer) -> Row:
    ids, labels = row.ids[start:end], (*row.labels[start : end - 1], IGNORED)[: len(row.ids[start:end])]
    text = renderer.tokenizer.decode([label for label in labels if label != IGNORED])
    return Row(row.source, ids, labels, len(text.encode()))


def pack(rows: Sequence[Row]) -> dict[str, Any]:
    """Rows side by side in one line, positions restarting at each; `segments` holds their lengths."""
    return {
        "input_ids": torch.tensor([[token for row in rows for token in row.ids]]),
        "labels": torch.tensor([[label for row in rows for label in row.labels]]),
        "position_ids": torch.cat([torch.arange(len(row.ids)) for row in rows])[None],
        "segments": torch.tensor([len(row.ids) for row in rows]),
    }


def pad(rows: Sequence[Row]) -> dict[str, Any]:
    """The slow twin: one row a line, filled up on the right and masked."""
    longest = max(len(row.ids) for row in rows)
    return {
        "input_ids": torch.tensor([row.ids + (0,) * (longest - len(row.ids)) for row in rows]),
        "labels": torch.tensor([row.labels + (IGNORED,) * (longest - len(row.ids)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row.ids) + [0] * (longest - len(row.ids)) for row in rows]),
    }
