"""The PHI screen of the data stage: every row passes it before it is checked, split or written anywhere."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from medmind.core.log import say
from medmind.core.types import Example
from medmind.data.config import PhiConfig
from medmind.data.sources.seam import Dropped, Fault, Row, make_id
from medmind.privacy.ner import open_ner
from medmind.privacy.redact import Pseudonyms, redact
from medmind.privacy.screen import find
from medmind.privacy.spans import BY_NER, Span, merge

NOT_TEXT = {"source", "task", "language"}
CELL = 64
"""A text so short may be all number, and only its column's name say of what."""
LONG_ENOUGH = 6
"""Characters of an identifier that is looked for in the other texts of its row."""
PLAIN_NAME = re.compile(r"[a-zA-Z_]+")
Change = Callable[[str, str], str]
"""(text, name of its field) → text."""


def change_texts(value: Any, change: Change, label: str = "") -> Any:
    """The same value, every text and field name in it changed; a number that is an identifier becomes a text."""
    if isinstance(value, str):
        return change(value, label)
    if isinstance(value, dict):
        return change_names({key: change_texts(one, change, str(key)) for key, one in value.items()}, change)
    if isinstance(value, list | tuple):
        return type(value)(change_texts(one, change, label) for one in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = str(value)
        changed = change(text, label)
        return value if changed == text else changed
    return value


def change_names(fields: dict[Any, Any], change: Change) -> dict[Any, Any]:
    """No field is lost: where two names become one, the later is numbered."""
    changed: dict[Any, Any] = {}
    for key, value in fields.items():
        name = change(key, "") if isinstance(key, str) and not PLAIN_NAME.fullmatch(key) else key
        again = 2
        while name in changed:
            name, again = f"{change(key, '')} {again}", again + 1
        changed[name] = value
    return changed


def labelled(value: Any, label: str = "") -> Iterator[tuple[str, str]]:
    """(name of the field, what it holds) of every text and number, however deep."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from labelled(one, str(key))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from labelled(one, label)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield label, str(value).strip()


def change_example(example: Example, change: Change, change_group: Change) -> Example:
    """An id that is an identifier becomes one of the changed texts; groups that differ go on to differ."""
    fields = example.model_dump(exclude=NOT_TEXT | {"id", "group"})
    changed = example.model_dump(include=NOT_TEXT) | change_texts(fields, change)
    changed["group"] = change_group(example.group, "")
    name = change(example.id, "")
    if name != example.id:
        name = make_id(example.source, *(turn["text"] for turn in changed["turns"]), changed["target"])
    return Example(id=name, **changed)


@dataclass
class Count:
    found: int = 0
    rows: int = 0
    first_row: int = 0


@dataclass
class Tally:
    """How many identifiers of each kind, in how many rows, the first of them; never what they say."""

    rows: int = 0
    rows_with: int = 0
    by_category: dict[str, Count] = field(default_factory=dict)

    def add(self, number: int, spans: Iterable[Span]) -> None:
        found = [span.category.value for span in spans]
        self.rows += 1
        self.rows_with += bool(found)
        for name in dict.fromkeys(found):
            count = self.by_category.setdefault(name, Count(first_row=number))
            count.found += found.count(name)
            count.rows += 1

    def as_json(self) -> dict[str, Any]:
        by_category = {name: vars(count) for name, count in sorted(self.by_category.items())}
        return {"rows": self.rows, "rows_with": self.rows_with, "by_category": by_category}


@dataclass(frozen=True)
class Cells:
    """The short values of a row that are identifiers, some only by the name of their field; other texts repeat them."""

    spans: dict[str, list[Span]]
    long_ones: re.Pattern[str]

    @classmethod
    def of(cls, raw: Any, find: Callable[[str, str], list[Span]]) -> "Cells":
        spans: dict[str, list[Span]] = {}
        for label, text in labelled(raw):
            if text and len(text) <= CELL and (found := find(text, label)):
                spans[text] = merge([*spans.get(text, ()), *found])
        long_ones = sorted((text for text in spans if len(text) >= LONG_ENOUGH), key=len, reverse=True)
        return cls(spans, re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, long_ones)) or '(?!)'})(?!\w)"))

    def within(self, text: str) -> Iterator[Span]:
        """Where the text is one of them, or holds one that is too long to stand there by chance."""
        places = [(len(text) - len(text.lstrip()), text.strip())] if self.spans else []
        places += [(match.start(), match[0]) for match in self.long_ones.finditer(text)] if self.spans else []
        for start, cell in places:
            yield from (Span(start + one.start, start + one.end, one.category) for one in self.spans.get(cell, ()))


class Screen:
    """One pass of the screen. Raises EnvironmentFault when a kind the recipe requires cannot be seen."""

    def __init__(self, config: PhiConfig) -> None:
        self._config = config
        self._ner = open_ner(config.require)
        self._pseudonyms = Pseudonyms()
        self.replace = self._pseudonyms.replace if config.action == "pseudonym" else redact
        self.tally = Tally()

    def find(self, text: str, label: str = "") -> list[Span]:
        return find(text, label, self._ner)

    def change(self, text: str, label: str = "") -> str:
        """The text without its identifiers."""
        return self.replace(text, self.find(text, label))

    def rows(self, rows: Iterable[Row | Dropped]) -> Iterator[Row | Dropped]:
        """In order, one by one; what a row says is changed as data.phi.action has it."""
        if self._config.action == "off":
            yield from rows
            return
        for row in rows:
            yield self.row(row) if isinstance(row, Row) else self._dropped(row)

    def row(self, row: Row) -> Row | Dropped:
        cells = Cells.of(row.raw, self.find)
        learnt: dict[str, list[Span]] = {}
        find_once = cache(self.find)

        def see(text: str, label: str) -> list[Span]:
            return merge([*find_once(text, label if len(text) <= CELL else ""), *cells.within(text)])

        def look(text: str, label: str) -> str:
            learnt[text] = merge([*learnt.get(text, ()), *see(text, label)])
            return text

        def take_out(text: str, label: str) -> str:
            return self.replace(text, see(text, label))

        def take_out_of_group(text: str, label: str) -> str:
            return self._pseudonyms.replace(text, see(text, label))

        change_texts(row.example.model_dump(exclude=NOT_TEXT), look)
        found = [span for spans in learnt.values() for span in spans]
        self.tally.add(row.number, found)
        if self._config.action == "report":
            return row
        row = replace(row, raw=change_texts(row.raw, take_out))
        if not found:
            return row
        row = replace(row, example=change_example(row.example, take_out, take_out_of_group))
        if self._config.action == "block":
            kinds = ", ".join(sorted({span.category.value for span in found}))
            return row.drop(Fault.PHI, f"{kinds}; shown without")
        return row

    def _dropped(self, one: Dropped) -> Dropped:
        """A row the source could not read: what it holds is changed too, because it is written to dropped.jsonl."""
        if self._config.action == "report":
            return one
        changed = {
            "raw": change_texts(one.raw, self.change),
            "reason": self.change(one.reason),
            "id": self.change(one.id),
        }
        return one.model_copy(update=changed)

    def summary(self) -> dict[str, Any]:
        """What report.json says: counts and row numbers."""
        if self._config.action == "off":
            return {"action": "off"}
        not_seen = [] if self._ner else [category.value for category in BY_NER]
        return {"action": self._config.action, **self.tally.as_json(), "not_seen": not_seen}


DONE = {
    "report": "left as they are",
    "block": "rows left out",
    "redact": "replaced by their kind",
    "pseudonym": "replaced",
}


def tell_phi(summary: dict[str, Any]) -> None:
    """The lines for a person."""
    if summary["action"] == "off":
        say("patient identifiers: not looked for (data.phi.action: off)", style="yellow")
        return
    unseen = (
        f"; {' and '.join(f'{name}s' for name in summary['not_seen'])} cannot be seen" if summary["not_seen"] else ""
    )
    if not summary["rows_with"]:
        say(f"patient identifiers: none found in {summary['rows']:,} rows{unseen}")
        return
    counts = ", ".join(f"{count['found']:,} {name}" for name, count in summary["by_category"].items())
    done = DONE[summary["action"]]
    say(
        f"patient identifiers in {summary['rows_with']:,} of {summary['rows']:,} rows, {done}: {counts}{unseen}",
        style="yellow",
    )
