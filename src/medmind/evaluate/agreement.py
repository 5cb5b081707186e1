"""How often a model agrees with itself: the same questions answered several times, this once by chance.

A choice agrees where two replies give the same answer, a free answer as far as two texts share their words in order.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from medmind.core.protocols import Progress, Sampler
from medmind.core.types import Answer, Example, Metric, Outcome, Record
from medmind.evaluate.metrics.intervals import mean
from medmind.evaluate.metrics.text import rouge_l
from medmind.evaluate.predict import CHOICES, leaving_room
from medmind.prompts.chat import Renderer
from medmind.prompts.tasks.known import TASKS
from medmind.prompts.wording import read_reply


class Sampled(Record):
    """One line of samples.jsonl: the replies to one question and what was read of each ("" where nothing was)."""

    id: str
    texts: tuple[str, ...]
    answers: tuple[str, ...]
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Drawing:
    """How replies are drawn: so many to a question."""

    count: int
    temperature: float
    max_new_tokens: int
    seed: int


def sample_replies(
    generator: Sampler,
    renderer: Renderer,
    examples: Sequence[Example],
    prompts: Sequence[tuple[int, ...]],
    drawing: Drawing,
    progress: Progress | None = None,
) -> list[Sampled]:
    """A reply's chance hangs on its question and its turn alone, so neither batch nor order changes it. A prompt that
    leaves no room for a reply stays in the count, as truncated.
    """
    asked = leaving_room(prompts, generator.context)
    seeds = [seed_of(drawing.seed, examples[place].id, turn) for place in asked for turn in range(drawing.count)]
    rows = [prompts[place] for place in asked for _ in range(drawing.count)]
    replies = iter(generator.sample(rows, drawing.max_new_tokens, drawing.temperature, seeds, progress))
    none = ("", Answer(text="", outcome=Outcome.TRUNCATED))
    found = dict.fromkeys(range(len(prompts)), [none] * drawing.count)
    for place in asked:
        task, example = TASKS.get(examples[place].task), examples[place]
        own = [next(replies) for _ in range(drawing.count)]
        found[place] = [(reply.text, read_reply(task, reply.text, reply.stopped, example)) for reply in own]
    return [
        Sampled(
            id=examples[place].id,
            texts=tuple(text for text, _ in said),
            answers=tuple(answer.text for _, answer in said),
            outcomes=tuple(answer.outcome for _, answer in said),
        )
        for place, said in found.items()
    ]


def seed_of(seed: int, name: str, turn: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {turn} {name}".encode()).digest()[:8])


def agreement(row: Sampled, task: str) -> float:
    """Over all pairs of replies: the share that agree. What could not be read agrees with nothing."""
    if task in CHOICES:
        pairs = [float(one == other != "") for one, other in combinations(row.answers, 2)]
    else:
        pairs = [rouge_l(one, other) for one, other in combinations(row.texts, 2)]
    return sum(pairs) / len(pairs)


def agreement_metrics(rows: Sequence[Sampled], task: str, seed: int) -> dict[str, Metric]:
    return {"self_agreement": mean([agreement(row, task) for row in rows], seed)} if rows else {}
