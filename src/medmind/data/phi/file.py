"""The PHI screen over one file of any kind that medmind reads, and the same file without its identifiers."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from medmind.core.errors import DataError
from medmind.core.jsonl import atomic
from medmind.data.phi.screen import Screen, change_texts
from medmind.data.sources.files import first_bytes, read_lines
from medmind.data.sources.json_table import shape_of
from medmind.data.sources.seam import Dropped, Entry
from medmind.data.sources.tables import Table, open_csv, open_json, open_parquet
from medmind.privacy.spans import Category, Span

LONGEST_PARAGRAPH = 1000
"""Lines of plain text that are screened together, at most."""
TEXT_ENDINGS = (".txt", ".text", ".md")


@dataclass(frozen=True)
class Hit:
    """One identifier, for whoever asks to see it."""

    row: int
    category: Category
    text: str


def kind_of(path: Path) -> str:
    """text, csv, json, jsonl or parquet: text by its name, the others by what is in the file."""
    if not path.is_file():
        raise DataError("no such file", where=str(path))
    if path.name.removesuffix(".gz").endswith(TEXT_ENDINGS):
        return "text"
    head = first_bytes(path)
    if head.startswith(b"PAR1"):
        return "parquet"
    if head[:1] not in (b"[", b"{"):
        return "csv"
    return "json" if shape_of(path) == "array" else "jsonl"


def refuse_names(names: Iterable[str], path: Path, screen: Screen) -> None:
    """A file whose first line is a row already would be written with that row in clear."""
    for number, name in enumerate(names, start=1):
        if found := screen.find(name):
            fault = f"the name of column {number} is a patient identifier ({found[0].category})"
            todo = "begin the file with a line that names its columns"
            raise DataError(fault, where=str(path), todo=todo)


def open_rows(path: Path, kind: str) -> Table:
    return {"csv": open_csv, "parquet": open_parquet}.get(kind, open_json)(path, "phi")


class FilePass:
    """One pass over a file: `screen.tally` counts, `see` is told of every identifier, `unreadable` counts rows."""

    def __init__(self, path: Path, screen: Screen, see: Callable[[Hit], None] = lambda hit: None) -> None:
        self.path, self.screen, self._see = path, screen, see
        self.kind = kind_of(path)
        self.unreadable = 0

    def _open(self) -> Table:
        """Raises DataError where what should be names of columns is a patient's."""
        table = open_rows(self.path, self.kind)
        refuse_names(table.columns if self.kind in ("csv", "parquet") else (), self.path, self.screen)
        return table

    def look(self) -> None:
        """Counts."""
        for _ in self.changed_text() if self.kind == "text" else self.changed_rows(self._open()):
            pass

    def write(self, out: Path) -> None:
        """The file without its identifiers: as many rows, in the same order, with the same fields, in the same format.

        Raises DataError for a row that cannot be read, which could not be kept.
        """
        if self.kind == "parquet":
            from medmind.data.phi.parquet import write_parquet

            pairs = self.changed_rows(self._open(), strict=True)
            write_parquet(self.path, out, pairs, self.screen.change)
            return
        with atomic(out) as file:
            {"text": self._write_text, "csv": self._write_csv}.get(self.kind, self._write_json)(file)

    def _write_text(self, file: IO[str]) -> None:
        file.writelines(self.changed_text())

    def _write_csv(self, file: IO[str]) -> None:
        table = self._open()
        if len(set(table.columns)) < len(table.columns):
            raise DataError("two columns have the same name", where=str(self.path), todo="rename one of them")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.columns)
        writer.writerows(list(row.values()) for _, row in self.changed_rows(table, strict=True))

    def _write_json(self, file: IO[str]) -> None:
        rows = (self._as_json(row) for _, row in self.changed_rows(self._open(), strict=True))
        if self.kind == "jsonl":
            file.writelines(f"{row}\n" for row in rows)
            return
        file.write("[")
        file.writelines(f"{',' if number else ''}\n{row}" for number, row in enumerate(rows))
        file.write("\n]\n")

    def _as_json(self, row: dict[str, Any]) -> str:
        try:
            return json.dumps(row, ensure_ascii=False, allow_nan=False)
        except ValueError:
            where = f"{self.path}, row {self.screen.tally.rows}"
            raise DataError("a number JSON cannot hold", where=where, todo="write it as a text") from None

    def changed_rows(self, table: Table, strict: bool = False) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """(as it was, without identifiers) of every row; an unreadable one is counted, or an error when strict."""
        for entry in table.entries:
            found: list[Span] = []
            number, content = (entry.number, entry.values) if isinstance(entry, Entry) else (entry.row, entry.raw)
            if isinstance(entry, Dropped) and strict:
                where = f"{self.path}, row {number}"
                raise DataError(f"a row that cannot be read: {entry.reason}", where=where, todo="repair or remove it")
            changed = change_texts(content, self._changer(number, found))
            self.screen.tally.add(number, found)
            self.unreadable += isinstance(entry, Dropped)
            if isinstance(entry, Entry):
                yield entry.values, changed

    def _changer(self, number: int, found: list[Span]) -> Callable[[str, str], str]:
        def change(text: str, label: str) -> str:
            spans = self.screen.find(text, label)
            found.extend(spans)
            for span in spans:
                self._see(Hit(number, span.category, text[span.start : span.end]))
            return self.screen.replace(text, spans)

        return change

    def changed_text(self) -> Iterator[str]:
        """Plain text, a paragraph at a time, because an identifier may run over a line's end; a row is a line."""
        for first, lines in paragraphs(self.path):
            text = "".join(lines)
            by_line: list[list[Span]] = [[] for _ in lines]
            spans = self.screen.find(text)
            for span in spans:
                place = text.count("\n", 0, span.start)
                by_line[place].append(span)
                self._see(Hit(first + place, span.category, text[span.start : span.end]))
            for number, here in enumerate(by_line, start=first):
                self.screen.tally.add(number, here)
            yield self.screen.replace(text, spans)


def paragraphs(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of the first line, lines with their ends), up to and with the next blank line."""
    lines: list[str] = []
    first = 1
    for number, line in read_lines(path):
        lines.append(line)
        if not line.strip() or len(lines) == LONGEST_PARAGRAPH:
            yield first, lines
            lines, first = [], number + 1
    if lines:
        yield first, lines
