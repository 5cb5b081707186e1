"""How often each label, or each place among the options, is the right answer; four bytes a row."""

from array import array

from medmind.data.quality.finding import SHOWN, Tally
from medmind.data.quality.view import View

MOST = 12
"""More different answers are no labels."""
RARE = 0.5
"""A label with less than this share of an equal share is rare."""


class Labels:
    def __init__(self) -> None:
        self._rows: dict[str, array[int]] = {}

    def add(self, index: int, view: View) -> None:
        example = view.example
        if example.task == "choice":
            label = example.target
        elif example.task == "multiple_choice":
            label = place_of(example.target, example.options)
        else:
            return
        if label in self._rows or len(self._rows) <= MOST:
            self._rows.setdefault(label, array("I")).append(index)

    @property
    def counts(self) -> dict[str, int]:
        """Label → rows, the most frequent first; nothing where answers are no labels."""
        if len(self._rows) > MOST:
            return {}
        return {label: len(self._rows[label]) for label in sorted(self._rows, key=lambda one: -len(self._rows[one]))}

    def imbalance(self) -> Tally:
        """The rows of rare labels."""
        tally = Tally()
        counts = self.counts
        equal = sum(counts.values()) / max(len(counts), 1)
        rare = [label for label, count in counts.items() if count < RARE * equal]
        tally.rows.extend(sorted(index for label in rare for index in self._rows[label]))
        if rare:
            tally.kinds.update(counts)
            tally.examples = [(index, "", ", ".join(rare)) for index in tally.rows[:SHOWN]]
        return tally


def place_of(target: str, options: tuple[str, ...]) -> str:
    """The letter of the right option, whether the answer is that letter or its text."""
    return chr(ord("A") + options.index(target)) if target in options else target
