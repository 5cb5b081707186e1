"""The held-out loss: how surprised a model is by the gold replies, in nats, EOS included."""

from collections.abc import Sequence

from medmind.core.log import say
from medmind.core.protocols import Generator, Progress
from medmind.core.types import Example, Record
from medmind.prompts.chat import Renderer
from medmind.prompts.tasks.known import TASKS

CHUNK = 64
"""Rows handed over at once, so that progress can be told."""


class ItemLoss(Record):
    """One line of losses.jsonl: the nats of one gold reply and over how many tokens."""

    id: str
    nats: float
    tokens: int


def heldout_losses(
    generator: Generator,
    renderer: Renderer,
    examples: Sequence[Example],
    system_prompt: str,
    progress: Progress | None = None,
) -> list[ItemLoss]:
    """In the order of the examples; those longer than the model's context are left out, and said to be."""
    rows = [gold_row(renderer, example, system_prompt) for example in examples]
    fitting = [place for place, (context, reply) in enumerate(rows) if len(context) + len(reply) <= generator.context]
    if len(fitting) < len(rows):
        missing = len(rows) - len(fitting)
        say(f"held-out loss without {missing} of {len(rows)} items: longer than {generator.context} tokens")
    fitting.sort(key=lambda place: -len(rows[place][0]) - len(rows[place][1]))
    found: dict[int, ItemLoss] = {}
    for start in range(0, len(fitting), CHUNK):
        places = fitting[start : start + CHUNK]
        for place, logs in zip(places, generator.log_likelihoods([rows[place] for place in places]), strict=True):
            found[place] = ItemLoss(id=examples[place].id, nats=-sum(logs), tokens=len(logs))
        if progress:
            progress(len(found), len(fitting))
    return [found[place] for place in sorted(found)]


def gold_row(renderer: Renderer, example: Example, system_prompt: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(prompt ids, gold reply ids with EOS), exactly as training supervises them."""
    rendered = renderer.render(TASKS.get(example.task).learn(example, system_prompt))
    start = rendered.loss_mask.index(True)
    return rendered.ids[:start], rendered.ids[start:]
