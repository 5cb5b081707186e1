"""Which sentences a model of natural language inference finds supported: what the rules ask too, asked of it."""

from collections.abc import Callable, Sequence

from medmind.core.protocols import Progress
from medmind.core.types import Example, Metric, Outcome, Prediction, Record
from medmind.evaluate.metrics.grounded import sentences
from medmind.evaluate.metrics.intervals import ratio
from medmind.evaluate.texts import evidence

ENOUGH = 0.5
"""The chance from which a sentence counts as supported."""
PIECE_WORDS = 200
"""Of a text that is held against a sentence at once: such models read 512 tokens."""
Entails = Callable[[Sequence[tuple[str, str]], Progress | None], list[float]]
"""The chance that the second text of each pair follows from the first."""


class Support(Record):
    """One line of support.jsonl: of each sentence of a reply, the chance by the text that supports it best."""

    id: str
    chances: tuple[float, ...]

    @property
    def unsupported(self) -> list[bool]:
        return [chance < ENOUGH for chance in self.chances]


def judge_support(
    entails: Entails, examples: Sequence[Example], predictions: Sequence[Prediction], progress: Progress | None = None
) -> list[Support]:
    """Of a reply that is no answer, no sentence."""
    held = [
        (sentences(said.text) if said.outcome is Outcome.ANSWERED else [], pieces(evidence(example)))
        for example, said in zip(examples, predictions, strict=True)
    ]
    found = best_chances(entails, held, progress)
    return [Support(id=said.id, chances=chances) for said, chances in zip(predictions, found, strict=True)]


def best_chances(
    entails: Entails, held: Sequence[tuple[Sequence[str], Sequence[str]]], progress: Progress | None = None
) -> list[tuple[float, ...]]:
    """Of each (sentences, texts): each sentence's, by the text that supports it best."""
    pairs = [(text, part) for parts, texts in held for part in parts for text in texts]
    chances = iter(entails(pairs, progress) if pairs else [])
    return [tuple(max((next(chances) for _ in texts), default=0.0) for _ in parts) for parts, texts in held]


def pieces(texts: Sequence[str]) -> list[str]:
    """Whole sentences up to PIECE_WORDS."""
    found: list[str] = []
    for text in texts:
        start = len(found)
        for part in sentences(text):
            if len(found) > start and len(f"{found[-1]} {part}".split()) <= PIECE_WORDS:
                found[-1] += f" {part}"
            else:
                found.append(part)
    return found


def support_metrics(rows: Sequence[Support], seed: int) -> dict[str, Metric]:
    counted = [row.unsupported for row in rows if row.chances]
    if not counted:
        return {}
    return {"unsupported_nli": ratio([sum(flags) for flags in counted], [len(flags) for flags in counted], seed)}
