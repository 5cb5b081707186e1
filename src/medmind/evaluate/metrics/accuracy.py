"""Choosing among options: what is not an option is wrong, and never a class of its own."""

from collections.abc import Sequence

import numpy as np

from medmind.core.types import Metric
from medmind.evaluate.metrics.intervals import Numbers, counted, share


def accuracy(targets: Sequence[str], answers: Sequence[str]) -> Metric:
    return share([target == answer for target, answer in zip(targets, answers, strict=True)])


def recalls(targets: Sequence[str], answers: Sequence[str]) -> dict[str, Metric]:
    """For each class, the share of its items that were given it."""
    pairs = list(zip(targets, answers, strict=True))
    return {
        name: share([answer == name for target, answer in pairs if target == name]) for name in sorted(set(targets))
    }


def macro_f1(targets: Sequence[str], answers: Sequence[str], seed: int) -> Metric:
    """The plain mean of the F1 of every class that is a target or an answer; "" is an unread reply, no class."""
    names = sorted({*targets, *answers} - {""})
    cells = np.zeros((len(names), len(names) + 1))
    for target, answer in zip(targets, answers, strict=True):
        cells[names.index(target), names.index(answer) if answer else len(names)] += 1
    return counted(cells, mean_f1, seed)


def mean_f1(cells: Numbers) -> Numbers:
    """Counts (…, target, answer) with unread replies in the last column; a class absent from both is left out."""
    classes = cells.shape[-2]
    right = np.einsum("...ii->...i", cells[..., :classes])
    both = cells.sum(-1) + cells[..., :classes].sum(-2)
    f1 = np.divide(2 * right, both, out=np.zeros_like(right), where=both > 0)
    result: Numbers = f1.sum(-1) / np.maximum((both > 0).sum(-1), 1)
    return result
