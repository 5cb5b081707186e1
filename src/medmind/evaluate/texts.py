"""What is known of the wording of one free reply, and the figures many of them fold into."""

from collections.abc import Sequence
from dataclasses import dataclass

from medmind.core.types import Example, Metric, Outcome, Prediction
from medmind.evaluate.metrics.grounded import unsupported_counts
from medmind.evaluate.metrics.intervals import mean, ratio, share
from medmind.evaluate.metrics.text import BleuCounts, bleu, bleu_counts, chrf, repeats, rouge_l
from medmind.prompts.tasks.known import TASKS

FREE = ("terms", "qa", "reasoned")
"""Tasks answered in sentences."""


@dataclass(frozen=True)
class Wording:
    """`unsupported`: how many of how many sentences; of a reply that is no answer, none of none."""

    chrf: float
    rouge_l: float
    bleu: BleuCounts
    repeats: bool
    unsupported: tuple[int, int]


def wording(example: Example, prediction: Prediction) -> Wording:
    """Held against the gold reply."""
    text, reference = prediction.text, TASKS.get(example.task).reply(example)
    answered = prediction.outcome is Outcome.ANSWERED
    return Wording(
        chrf=chrf(text, reference),
        rouge_l=rouge_l(text, reference),
        bleu=bleu_counts(text, reference),
        repeats=repeats(text),
        unsupported=unsupported_counts(text, evidence(example)) if answered else (0, 0),
    )


def evidence(example: Example) -> list[str]:
    """All a reply may draw on: the reference, the passages, the question."""
    reference = TASKS.get(example.task).reply(example)
    return [reference, *(passage.text for passage in example.passages), *(turn.text for turn in example.turns)]


def text_metrics(wordings: Sequence[Wording], seed: int) -> dict[str, Metric]:
    found = {
        "chrf": mean([one.chrf for one in wordings], seed),
        "rouge_l": mean([one.rouge_l for one in wordings], seed),
        "bleu": bleu([one.bleu for one in wordings], seed),
        "repetition": share([one.repeats for one in wordings]),
    }
    counted = [one.unsupported for one in wordings if one.unsupported[1]]
    if counted:
        bad, sentences = zip(*counted, strict=True)
        found["unsupported"] = ratio(bad, sentences, seed)
    return found
