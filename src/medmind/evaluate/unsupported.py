"""Whether a model says less that nothing supports: only at equal length and equal refusal rate, or it is no finding.

Questions both models answered are compared (so neither gains by refusing), and of each pair the longer reply is cut to
the whole sentences whose words come closest to the shorter's.
"""

from collections.abc import Sequence

from medmind.core.types import Comparison, Example, Outcome, Prediction
from medmind.evaluate.differences import Ratio, compare_ratios
from medmind.evaluate.metrics.grounded import Evidence, sentences, unsupported
from medmind.evaluate.texts import evidence

MOST_APART = 0.1
"""Share by which the mean lengths may still differ; beyond it the verdict is "cannot tell"."""
Pair = tuple[list[str], list[str]]
Flags = Sequence[Sequence[bool]]
"""Of each reply, one for each of its sentences: whether nothing supports it."""


def by_rule(examples: Sequence[Example], predictions: Sequence[Prediction]) -> Flags:
    return [
        unsupported(said.text, Evidence(tuple(evidence(example))))
        for example, said in zip(examples, predictions, strict=True)
    ]


def compare_unsupported(
    suite: str,
    base: Sequence[Prediction],
    tuned: Sequence[Prediction],
    flags: tuple[Flags, Flags],
    margin: float,
    seed: int,
    metric: str = "unsupported",
) -> Comparison | None:
    """None where no question was answered by both."""
    counts: list[tuple[int, int, int, int]] = []
    words = [0, 0]
    for old, new, old_flags, new_flags in zip(base, tuned, *flags, strict=True):
        if old.outcome is not Outcome.ANSWERED or new.outcome is not Outcome.ANSWERED:
            continue
        pair = equal_length(sentences(old.text), sentences(new.text))
        if not all(pair):
            continue
        kept = len(pair[0]), len(pair[1])
        counts.append((sum(old_flags[: kept[0]]), kept[0], sum(new_flags[: kept[1]]), kept[1]))
        words = [total + length(side) for total, side in zip(words, pair, strict=True)]
    if not counts:
        return None
    one, of_one, other, of_other = (list(column) for column in zip(*counts, strict=True))
    found = compare_ratios(
        suite, metric, Ratio(one, of_one), Ratio(other, of_other), margin, seed, lower_is_better=True
    )
    means = [total / len(counts) for total in words]
    apart = abs(means[0] - means[1]) > MOST_APART * max(means)
    note = (
        f"{len(counts)} of {len(base)} questions, answered by both, the longer reply cut: "
        f"{means[0]:.1f} and {means[1]:.1f} words on average"
    )
    return found.model_copy(update={"note": note} | ({"verdict": "cannot tell"} if apart else {}))


def equal_length(one: list[str], other: list[str]) -> Pair:
    """The longer loses sentences from its end until more would take it further from the shorter's words."""
    shorter = min(length(one), length(other))
    return cut(one, shorter), cut(other, shorter)


def cut(parts: list[str], words: int) -> list[str]:
    return min(
        (parts[:count] for count in range(1, len(parts) + 1)), key=lambda kept: abs(length(kept) - words), default=[]
    )


def length(parts: Sequence[str]) -> int:
    return sum(len(part.split()) for part in parts)
