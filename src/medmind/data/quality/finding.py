"""What a check found in a whole source, and the compact notes it is made from: four bytes a row that was hit."""

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from medmind.core.types import Record
from medmind.data.sources.seam import Row
from medmind.privacy.redact import scrub

SHOWN = 5
"""Examples of a finding."""
NAMED = 100
"""Row ids of a finding in report.json; findings.jsonl has them all."""
KINDS = 40


class Sample(Record):
    """One row of a finding; identifiers in the quoted text are masked."""

    file: str
    row: int
    id: str
    kind: str
    text: str


class Finding(Record):
    """`rows` is how many rows it concerns, `kinds` how many of them by place or form (a row can have several), `mended`
    how many only the file has, because reading puts them right. `drop` says whether the recipe takes such rows out.
    """

    name: str
    title: str
    rows: int
    mended: int = 0
    kinds: dict[str, int] = {}
    drop: bool = False
    examples: tuple[Sample, ...] = ()
    ids: tuple[str, ...] = ()


class Ledger:
    """Number, file and id of every row, about 40 bytes each."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._numbers, self._files = array("I"), array("I")
        self._ids, self._ends = bytearray(), array("Q")

    def __len__(self) -> int:
        return len(self._numbers)

    def add(self, row: Row) -> int:
        self._numbers.append(row.number)
        self._files.append(self._known.setdefault(row.file, len(self._known)))
        self._ids += row.example.id.encode()
        self._ends.append(len(self._ids))
        return len(self._numbers) - 1

    def id(self, index: int) -> str:
        return self._ids[self._ends[index - 1] if index else 0 : self._ends[index]].decode()

    def places(self, indexes: Iterable[int]) -> Iterator[dict[str, Any]]:
        files = list(self._known)
        for index in indexes:
            yield {"file": files[self._files[index]], "row": self._numbers[index], "id": self.id(index)}

    def number(self, index: int) -> int:
        return self._numbers[index]


class Tally:
    """The rows one check hit."""

    def __init__(self) -> None:
        self.rows, self.mended, self.kinds = array("I"), 0, Counter[str]()
        self.examples: list[tuple[int, str, str]] = []

    def hit(self, index: int, kinds: Iterable[str], text: str, mended: bool = False) -> None:
        self.rows.append(index)
        self.mended += mended
        names = list(kinds)
        self.kinds.update(names)
        if len(self.examples) < SHOWN:
            self.examples.append((index, names[0] if names else "", text))

    def finding(self, name: str, title: str, ledger: Ledger, drop: bool) -> Finding:
        return Finding(
            name=name,
            title=title,
            rows=len(self.rows),
            mended=self.mended,
            kinds=dict(self.kinds.most_common(KINDS)),
            drop=drop,
            examples=tuple(
                Sample(**place, kind=kind, text=scrub(text))
                for place, (_, kind, text) in zip(
                    ledger.places(index for index, _, _ in self.examples), self.examples, strict=True
                )
            ),
            ids=tuple(ledger.id(index) for index in self.rows[:NAMED]),
        )

    def lines(self, name: str, ledger: Ledger) -> Iterator[dict[str, Any]]:
        """One line of findings.jsonl a row."""
        for place in ledger.places(self.rows):
            yield {"finding": name} | place
