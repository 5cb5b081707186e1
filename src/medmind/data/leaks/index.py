"""What training rows give away of the evaluation sets: these are held in memory, the training rows stream past.

Found by id, by normalised pair, question and answer, by shared 13-grams, and by MinHash where words were exchanged.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medmind.core.errors import GateError
from medmind.core.types import Example
from medmind.data.leaks.families import Families, fits, names
from medmind.data.leaks.overlap import STOCK, Overlap, OverlapIndex
from medmind.data.leaks.report import ASKED, Leak, LeakReport, Method, describe
from medmind.data.leaks.texts import Asked, keys_of, parts_of, whole_text

ORDERED = 0.55
"""Share of a text's telling words that the training row must have in their order; with 30 % exchanged it has 70 %, give
or take what chance does to a short text."""
COVERED = 0.5
"""Share of them within shared 13-grams. One alone says little: half of MedQuAD's test answers share one with train."""
VERBATIM = 0.9
"""The same, of an answer to the same template about another group: such answers are formulaic."""
LEAST = 8
"""Different telling words that must be shared; a shorter text is only compared as a whole."""
CHARACTERS = 1_500_000
"""Training text compared at once."""
CROWD = 10 * STOCK
"""Training questions by which a text's stock phrases are learnt."""


@dataclass(frozen=True)
class Held:
    """An evaluation row as far as the comparison needs it; `template` is its question without the group's name."""

    suite: str
    asked: Asked
    template: str


@dataclass(frozen=True)
class Sighting:
    """A training row that has a good part of an evaluation text."""

    asked: Asked
    overlap: Overlap


@dataclass
class Part:
    """A text of an evaluation row."""

    row: int
    name: str
    seen: list[Sighting] = field(default_factory=list)
    questions: set[str] = field(default_factory=set)
    """Of training rows that have a good part of it."""
    crowd: NDArray[np.int64] | int = 0
    """Of each word: in how many of their rows it stands within a shared 13-gram."""


def compare(train: Iterable[Example], suites: Mapping[str, Iterable[Example]], allow: str = "") -> LeakReport:
    """Raises GateError above the bound unless `allow` says why to train all the same."""
    index = LeakIndex(suites)
    for example in train:
        index.add(example)
    report = index.report().model_copy(update={"allowed": allow})
    if report.above_bound and not allow:
        raise GateError(report.why(), todo="take these rows out, or say why they may stay: data.allow_leaks")
    return report


class LeakIndex:
    """The evaluation rows by everything a training row can have of them; memory is in proportion to them alone."""

    def __init__(self, suites: Mapping[str, Iterable[Example]], strict: bool = False) -> None:
        """`strict`: what many training rows share is no excuse, so that of the rows that are no leak any sample is
        clean; for taking rows out, not for judging them.
        """
        self._strict = strict
        self._names = list(suites)
        self._held: list[Held] = []
        self._parts: list[Part] = []
        self._families = Families()
        self._known: dict[Method, dict[str | int, list[int]]] = defaultdict(lambda: defaultdict(list))
        self._equal: dict[tuple[int, Method, str], str] = {}
        self._waiting: list[Asked] = []
        self._texts: list[str] = []
        self._size = self._rows = 0
        texts = [text for suite, examples in suites.items() for one in examples for text in self._hold(suite, one)]
        rows = [part.row for part in self._parts]
        suite_of = [self._names.index(self._held[row].suite) for row in rows]
        self._overlaps = OverlapIndex(texts, rows, suite_of)

    def _hold(self, suite: str, example: Example) -> list[str]:
        row, asked = len(self._held), Asked.by(example)
        self._held.append(Held(suite, asked, self._families.watch(asked.question, asked.group)))
        for method, keys in keys_of(example, asked.question).items():
            for key in keys:
                self._known[method][key].append(row)
        parts = parts_of(example)
        self._parts += [Part(row, name) for name, _ in parts]
        return [text for _, text in parts]

    def add(self, example: Example) -> None:
        """One training row."""
        self._rows += 1
        asked, text = Asked.by(example), whole_text(example)
        if not self._strict:
            self._families.count(asked.question, asked.group)
        for method, keys in keys_of(example, asked.question).items():
            for row in {row for key in keys for row in self._known[method].get(key, ())}:
                if method not in ASKED or not asked.is_of_another_matter(self._held[row].asked):
                    self._equal[row, method, example.id] = asked.question
        self._waiting.append(asked)
        self._texts.append(text)
        self._size += len(text)
        if self._size > CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        for overlap in self._overlaps.find(self._texts):
            part = self._parts[overlap.text]
            sighting = Sighting(self._waiting[overlap.other], overlap)
            self._learn(part, overlap, sighting.asked.question)
            if self._judge(part, sighting):
                part.seen.append(sighting)
        self._waiting, self._texts, self._size = [], [], 0

    def _learn(self, part: Part, overlap: Overlap, question: str) -> None:
        """13-grams in the rows of many different training questions are stock: they tell nothing any more."""
        if self._strict or question in part.questions or len(part.questions) >= CROWD:
            return
        part.questions.add(question)
        part.crowd = part.crowd + overlap.runs
        self._overlaps.tell(overlap.text)[part.crowd >= STOCK] = False

    def _judge(self, part: Part, sighting: Sighting) -> list[tuple[Method, float]]:
        """The methods by which a sighting is a leak, with the share of the telling words it has."""
        overlap, least = sighting.overlap, self._least(part, sighting)
        tells, words = self._overlaps.tell(overlap.text), self._overlaps.words[overlap.text]
        found = []
        for method, mask in ((Method.NGRAM, overlap.runs), (Method.MINHASH, overlap.equal)):
            share = float((mask & tells).sum() / max(int(tells.sum()), 1))
            if share >= least[method] and len(np.unique(words[mask & tells])) >= LEAST:
                found.append((method, round(share, 3)))
        return found

    def _least(self, part: Part, sighting: Sighting) -> dict[Method, float]:
        """The shares that make a leak. A question about another context is another one; in a family it is the same
        only with the same slot, and of a question about another group the answer must be the same word for word.
        """
        held, usual = self._held[part.row], {Method.NGRAM: COVERED, Method.MINHASH: ORDERED}
        mine, theirs = held.asked, sighting.asked
        same_slot = theirs.group == mine.group or names(theirs.question, mine.group)
        other_slot = self._families.is_family(held.template) and not same_slot
        if part.name == "question":
            return dict.fromkeys(usual, np.inf) if other_slot or theirs.is_of_another_matter(mine) else usual
        formulaic = other_slot and theirs.group and fits(theirs.question, held.template)
        return dict.fromkeys(usual, VERBATIM) if formulaic else usual

    def _forget_stock_answers(self) -> None:
        """An answer to many different questions, here or in training, tells nothing about any one of them."""
        questions: dict[int, set[str]] = defaultdict(set)
        for (row, method, _), question in self._equal.items():
            if method is Method.ANSWER:
                questions[row].add(question)
        crowded = {row for rows in self._known[Method.ANSWER].values() if len(rows) >= STOCK for row in rows}
        stock = crowded | {row for row, asked in questions.items() if len(asked) >= STOCK and not self._strict}
        for key in [key for key in self._equal if key[1] is Method.ANSWER and key[0] in stock]:
            del self._equal[key]

    def report(self) -> LeakReport:
        """Of all rows added so far."""
        self._flush()
        leaks: dict[str, list[tuple[int, Leak]]] = {name: [] for name in self._names}
        self._forget_stock_answers()
        for row, method, train in self._equal:
            held = self._held[row]
            leaks[held.suite].append((row, Leak(train=train, test=held.asked.id, method=method, part=method.value)))
        long: set[int] = set()
        for place, part in enumerate(self._parts):
            held = self._held[part.row]
            for one in part.seen:
                for method, share in self._judge(part, one):
                    leak = Leak(train=one.asked.id, test=held.asked.id, method=method, part=part.name, share=share)
                    leaks[held.suite].append((part.row, leak))
            if len(np.unique(self._overlaps.words[place][self._overlaps.tell(place)])) >= LEAST:
                long.add(part.row)
        rows = {name: [row for row, held in enumerate(self._held) if held.suite == name] for name in self._names}
        suites = {name: describe(leaks[name], len(rows[name]), len({*rows[name]} - long)) for name in self._names}
        return LeakReport(train_rows=self._rows, suites=suites)
