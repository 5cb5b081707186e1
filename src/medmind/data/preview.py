"""Rows as the model will see them, token by token, with the tokens it learns from marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from medmind.core.protocols import Tokenizer
from medmind.core.sampling import sample
from medmind.core.types import Example
from medmind.prompts.chat import Rendered, Renderer
from medmind.prompts.tasks.known import TASKS

SUPERVISED = "bold green"
EDGE = "│"
"""Stands between two tokens."""
LOST = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Preview:
    """One row rendered: the text of its tokens, and which of them the loss sees."""

    id: str
    rendered: Rendered
    tokens: tuple[str, ...]

    @property
    def supervised(self) -> int:
        return sum(self.rendered.loss_mask)

    def as_json(self) -> dict[str, Any]:
        """The fields of `models render`, and the row's id."""
        text = "".join(self.tokens)
        ids, roles, mask = self.rendered.ids, self.rendered.roles, self.rendered.loss_mask
        return {"id": self.id, "text": text, "ids": ids, "roles": roles, "loss_mask": mask}


def render_row(example: Example, renderer: Renderer, system_prompt: str) -> Rendered:
    """Exactly what training learns from this row."""
    if example.task == "text":
        return renderer.passage(example.target)
    return renderer.render(TASKS.get(example.task).learn(example, system_prompt))


def preview(
    examples: Sequence[Example], renderer: Renderer, system_prompt: str, count: int, seed: int
) -> list[Preview]:
    """A seeded sample of `count` rows, in their order."""
    chosen = [examples[index] for index in sample(len(examples), count, seed)]
    rows = [(example.id, render_row(example, renderer, system_prompt)) for example in chosen]
    return [Preview(name, row, token_texts(row.ids, renderer.tokenizer)) for name, row in rows]


def token_texts(ids: Sequence[int], tokenizer: Tokenizer) -> tuple[str, ...]:
    """One text a token; where tokens only together make a character, the last of them carries it."""
    texts: list[str] = []
    waiting: list[int] = []
    for token in ids:
        text = tokenizer.token_text(token)
        if LOST not in text:
            waiting.clear()
            texts.append(text)
            continue
        waiting.append(token)
        whole = tokenizer.decode(waiting)
        complete = bool(whole) and LOST not in whole
        texts.append(whole if complete else "")
        if complete:
            waiting.clear()
    return tuple(texts)


def as_text(row: Preview, colour: bool) -> Text:
    """Tokens side by side; supervised ones coloured, or without colour in «…»."""
    out = Text()
    before = False
    pairs = list(zip(row.tokens, row.rendered.loss_mask, strict=True))
    for place, (token, learnt) in enumerate(pairs):
        if place and before == learnt:
            out.append(EDGE, style="dim")
        if learnt and not before and not colour:
            out.append("«")
        out.append(token.replace("\n", "⏎\n"), style=SUPERVISED if learnt else "")
        if learnt and not colour and (place + 1 == len(pairs) or not pairs[place + 1][1]):
            out.append("»")
        before = learnt
    return out


def show(rows: Sequence[Preview], total: int, where: str, console: Console) -> None:
    """A header with the counts, then the rows."""
    colour = console.is_terminal and not console.no_color
    mark = "coloured" if colour else "in «…»"
    tokens, supervised = sum(len(row.tokens) for row in rows), sum(row.supervised for row in rows)
    console.print(f"{where}: {len(rows)} of {total:,} rows, {tokens:,} tokens, {supervised:,} supervised ({mark})")
    for row in rows:
        console.print()
        console.print(Text(f"{row.id}: {len(row.tokens)} tokens, {row.supervised} supervised", style="bold"))
        console.print(as_text(row, colour), soft_wrap=True)
