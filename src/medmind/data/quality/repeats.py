"""What several rows say at once: repeats, conflicts, boilerplate, near duplicates; seventeen bytes a row."""

from array import array
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from medmind.core.types import Example
from medmind.data.checks import asked_key, text_key
from medmind.data.quality.answers import IN_WORDS
from medmind.data.quality.finding import SHOWN, Tally
from medmind.data.quality.view import View, quote

BOILERPLATE = 10
"""Questions with one and the same answer, from which on it is boilerplate."""
TEXTS = 1000
"""Repeated texts kept to be quoted."""
LONGEST = 80
"""Characters of them."""
FILTER_BITS = 1 << 25
"""Of the Bloom filter; a million rows set 3 % of them."""
ASKS, WORDED, SETTLED, LEARNT, TEST = 1, 2, 4, 8, 16
"""Flags of a row: it has a question; its answer is a text of its own; the question alone settles the answer (the
options do not differ); it stays so far; its source makes it a test row."""
Indexes = NDArray[np.int64]
Keys = NDArray[np.uint64]


def near_text(example: Example) -> str:
    """What near duplicates compare: question, options and answer."""
    return "\n".join((*(turn.text for turn in example.turns), *example.options, example.target))


class Seen:
    """Texts that very likely came before (a Bloom filter of 4 MB), kept to be quoted."""

    def __init__(self) -> None:
        self._bits = bytearray(FILTER_BITS // 8)
        self.texts: dict[int, str] = {}

    def note(self, key: int, text: str) -> None:
        place, bit = divmod(key % FILTER_BITS, 8)
        if not self._bits[place] >> bit & 1:
            self._bits[place] |= 1 << bit
        elif len(self.texts) < TEXTS:
            self.texts.setdefault(key, quote(text[:LONGEST], 0, LONGEST))


class Repeats:
    """`add` takes every row in order; the rest is asked for after the last."""

    def __init__(self) -> None:
        self._questions, self._answers, self._flags = array("Q"), array("Q"), array("B")
        self._asked, self._answered = Seen(), Seen()
        self._near = array("I"), array("I"), array("f")

    def add(self, view: View, learnt: bool) -> None:
        example = view.example
        answer = next((words for part, _, words in view.words if part == "answer"), "").strip()
        flags = ASKS * bool(view.question.strip()) + WORDED * (example.task in IN_WORDS and bool(answer))
        flags += SETTLED * (example.task != "multiple_choice") + LEARNT * learnt + TEST * (view.row.part == "test")
        question, key = asked_key(example), text_key(answer)
        self._questions.append(question)
        self._answers.append(key)
        self._flags.append(flags)
        if flags & ASKS:
            self._asked.note(question, view.question)
        if flags & WORDED:
            self._answered.note(key, view.answer)

    def note_near(self, pairs: Iterable[tuple[int, int, float]]) -> None:
        kept, later, likeness = self._near
        for pair in pairs:
            kept.append(pair[0])
            later.append(pair[1])
            likeness.append(pair[2])

    def near(self) -> Iterator[tuple[int, int, float]]:
        yield from zip(*self._near, strict=True)

    def with_flags(self, flags: int) -> Indexes:
        return np.flatnonzero(np.frombuffer(self._flags, np.uint8) & flags == flags)

    @property
    def questions(self) -> Keys:
        return np.frombuffer(self._questions, np.uint64)

    @property
    def answers(self) -> Keys:
        return np.frombuffer(self._answers, np.uint64)

    def tallies(self) -> Iterator[tuple[str, Tally]]:
        asked, worded = self.with_flags(ASKS), self.with_flags(WORDED)
        settled = self.with_flags(ASKS | SETTLED)
        both = self.with_flags(ASKS | WORDED)
        pairs = self.questions[both] * np.uint64(3) + self.answers[both]
        yield "exact_duplicates", self._again(both, pairs, self._asked, self.questions)
        yield "repeated_questions", self._again(asked, self.questions[asked], self._asked, self.questions)
        yield "conflicting_answers", self._conflicts(settled)
        yield "repeated_answers", self._again(worded, self.answers[worded], self._answered, self.answers)
        yield "boilerplate_answers", self._boilerplate(both)
        yield "near_duplicates", self._alike()

    def _again(self, rows: Indexes, keys: Keys, seen: Seen, shown: Keys) -> Tally:
        """Rows whose key an earlier one has; the most frequent are shown."""
        tally = Tally()
        _, firsts, group, counts = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        later = rows[firsts[group] != np.arange(len(keys))]
        tally.rows.extend(later.tolist())
        often = np.argsort(-counts, kind="stable")[:SHOWN]
        for place in often[counts[often] > 1]:
            first = int(rows[firsts[place]])
            tally.examples.append((first, f"{counts[place]} times", seen.texts.get(int(shown[first]), "")))
        if len(often) and counts[often[0]] > 1:
            tally.kinds["the most frequent, times"] = int(counts[often[0]])
        return tally

    def _conflicts(self, rows: Indexes) -> Tally:
        """Every row of a question that has several answers."""
        tally = Tally()
        chosen, different = several(self.questions[rows], self.answers[rows])
        tally.rows.extend(rows[chosen].tolist())
        keys = self.questions[rows[chosen]]
        tally.kinds["questions"] = len(np.unique(keys))
        _, firsts = np.unique(keys, return_index=True)
        for place in np.sort(firsts)[:SHOWN]:
            text = self._asked.texts.get(int(keys[place]), "")
            tally.examples.append((int(rows[chosen][place]), f"{different[chosen][place]} answers", text))
        return tally

    def _boilerplate(self, rows: Indexes) -> Tally:
        tally = Tally()
        _, different = several(self.answers[rows], self.questions[rows])
        chosen = different >= BOILERPLATE
        tally.rows.extend(rows[chosen].tolist())
        keys = self.answers[rows[chosen]]
        tally.kinds["answers"] = len(np.unique(keys))
        _, firsts = np.unique(keys, return_index=True)
        for place in sorted(firsts, key=lambda place: -different[chosen][place])[:SHOWN]:
            text = self._answered.texts.get(int(keys[place]), "")
            tally.examples.append((int(rows[chosen][place]), f"under {different[chosen][place]} questions", text))
        return tally

    def _alike(self) -> Tally:
        tally = Tally()
        for _, later, likeness in self.near():
            text = self._asked.texts.get(int(self.questions[later]), "")
            tally.hit(later, ("identical" if likeness == 1 else "similar",), f"{likeness:.0%} alike {text}".strip())
        return tally


def several(keys: Keys, values: Keys) -> tuple[NDArray[np.bool_], Indexes]:
    """For each row: whether its key has more than one value, and how many."""
    _, group = np.unique(keys, return_inverse=True)
    pairs = np.unique(np.stack([group.astype(np.uint64), values], axis=1), axis=0)
    counts = np.bincount(pairs[:, 0].astype(np.int64), minlength=int(group.max(initial=-1)) + 1)
    different: Indexes = counts[group]
    return different > 1, different
