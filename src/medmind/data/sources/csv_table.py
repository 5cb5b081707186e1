"""CSV read strictly and record by record: a broken record is a dropped row, a quote that swallows rows is said."""

import csv
import io
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from medmind.core.errors import DataError
from medmind.data.sources.files import LONGEST, read_lines
from medmind.data.sources.seam import Dropped, Entry, Fault


class _Lines:
    """The lines a CSV reader takes, kept until the record they belong to is whole; a lone CR ends a line too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = read_lines(path)
        self._waiting: deque[str] = deque()
        self.taken: list[str] = []
        self.number = 0
        self._size = 0

    def forget(self) -> None:
        self.taken.clear()
        self._size = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if not self._waiting:
            text = next(self._lines)[1]
            self._waiting.extend(io.StringIO(text, newline="") if "\r" in text[:-2] else (text,))
        line = self._waiting.popleft()
        self.number += 1
        self._size += len(line)
        if self._size > LONGEST:
            where = f"{self._path}, line {self.number - len(self.taken)}"
            raise DataError("a record of more than 64 MB", where=where, todo="close the quote opened there")
        self.taken.append(line)
        return line


class CsvRecords:
    """The records of a file as lists of texts, numbered from 1 with the header; the broken ones as dropped rows."""

    def __init__(self, path: Path, source: str) -> None:
        csv.field_size_limit(sys.maxsize)
        self.path, self.source = path, source
        self._lines = _Lines(path)
        self._reader = csv.reader(self._lines, strict=True)
        self.number = 0
        self._whole = 0

    def header(self) -> list[str]:
        """The first record that is not blank."""
        try:
            names = next(record for record in self._reader if any(map(str.strip, record)))
        except csv.Error as error:
            raise DataError(f"not a CSV file: {error}", where=f"{self.path}, row 1", todo="check data.path") from None
        except StopIteration:
            raise DataError("no header", where=str(self.path), todo="check data.path") from None
        self.number = 1
        return [name.strip() for name in names]

    def entries(self, columns: list[str]) -> Iterator[Entry | Dropped]:
        """The records below the header; a blank line is none."""
        while True:
            self.number += 1
            self._lines.forget()
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield self._broken(error, len(columns))
                continue
            if len(cells) == len(columns):
                self._whole += 1
                yield Entry(self.number, dict(zip(columns, cells, strict=True)), str(self.path), self.source)
            elif cells:
                yield self._misfit(len(cells), len(columns))

    def _misfit(self, count: int, width: int) -> Dropped:
        if count < width:
            return self._drop(Fault.CUT, f"{count} of {width} columns")
        return self._drop(Fault.COLUMNS, f"{count} columns")

    def _drop(self, fault: Fault, reason: str) -> Dropped:
        raw = "".join(self._lines.taken)
        return Dropped(row=self.number, source=self.source, file=str(self.path), fault=fault, reason=reason, raw=raw)

    def _broken(self, error: csv.Error, width: int) -> Dropped:
        """A record with a stray or unclosed quote; such a quote can swallow whole rows: that is said or refused."""
        lines = self._lines
        first = lines.number - len(lines.taken) + 1
        unclosed = "end of data" in str(error)
        reason = (
            f"the file ends inside a quote opened at or after line {first}" if unclosed else f"broken quoting, {error}"
        )
        swallowed = sum(line.count(",") >= width - 1 and _is_record(line, width) for line in lines.taken[1:])
        if swallowed > max(self._whole, 1):
            todo = f"repair the quote; it swallows about {swallowed} rows up to line {lines.number}"
            raise DataError(reason, where=f"{self.path}, row {self.number}, line {first}", todo=todo)
        if swallowed:
            reason += f"; about {swallowed} rows up to line {lines.number} are lost in it"
        return self._drop(Fault.CUT, reason)


def _is_record(line: str, width: int) -> bool:
    try:
        return [len(values) for values in csv.reader([line], strict=True)] == [width]
    except csv.Error:
        return False
