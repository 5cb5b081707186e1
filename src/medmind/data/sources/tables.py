"""CSV and JSON-lines files, .gz too, read strictly: a fault of the file is an error, a fault of a row is kept as one.

Only a newline ends a line of JSON (U+2028 inside a text does not).
"""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmind.core.errors import DataError
from medmind.core.registry import did_you_mean
from medmind.data.sources.seam import Dropped, Fault


@dataclass(frozen=True)
class Entry:
    """A readable record of a file and its place there."""

    number: int
    values: dict[str, Any]


@dataclass(frozen=True)
class Table:
    path: Path
    columns: list[str]
    entries: list[Entry | Dropped]


def read_text(path: Path) -> str:
    """The whole file as UTF-8, unpacked if it is gzip, without a byte-order mark."""
    try:
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"the gzip file is damaged or cut: {error}", where=str(path), todo="fetch it again") from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        where = f"{path}, line {line}, byte {error.start}"
        todo = f"save it as UTF-8, for instance: iconv -f WINDOWS-1252 -t UTF-8 {path.name}"
        raise DataError("not UTF-8", where=where, todo=todo) from None
    if not text.strip():
        raise DataError("the file is empty", where=str(path), todo="check data.path, or fetch the file again")
    return text


class _Lines:
    """The lines a CSV reader takes, kept until the record they belong to is whole."""

    def __init__(self, text: str) -> None:
        self._lines = io.StringIO(text, newline="")
        self.taken: list[str] = []
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        self.taken.append(line)
        return line


def read_csv(path: Path, source: str) -> Table:
    """Comma-separated with a header; a record that breaks the quoting or lacks columns is a dropped row."""
    csv.field_size_limit(sys.maxsize)
    lines = _Lines(read_text(path))
    reader = csv.reader(lines, strict=True)
    try:
        columns = [name.strip() for name in next(reader)]
    except csv.Error as error:
        raise DataError(f"not a CSV file: {error}", where=f"{path}, row 1", todo="check data.path") from None
    entries: list[Entry | Dropped] = []
    number = 1
    while True:
        number += 1
        lines.taken.clear()
        try:
            values = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            entries.append(_broken(error, lines, number, len(columns), path, source, len(entries)))
            continue
        if len(values) == len(columns):
            entries.append(Entry(number, dict(zip(columns, values, strict=True))))
        elif values:
            fault = Fault.CUT if len(values) < len(columns) else Fault.COLUMNS
            reason = f"{len(values)} of {len(columns)} columns" if fault == Fault.CUT else f"{len(values)} columns"
            raw = "".join(lines.taken)
            entries.append(Dropped(row=number, source=source, file=str(path), fault=fault, reason=reason, raw=raw))
    return _whole(Table(path, columns, entries))


def _broken(error: csv.Error, lines: _Lines, number: int, width: int, path: Path, source: str, before: int) -> Dropped:
    """A record with a stray or unclosed quote; such a quote can swallow whole rows, and that is said or refused."""
    first = lines.number - len(lines.taken) + 1
    unclosed = "end of data" in str(error)
    reason = f"the file ends inside a quote opened at or after line {first}" if unclosed else f"broken quoting, {error}"
    swallowed = sum(line.count(",") >= width - 1 and _is_record(line, width) for line in lines.taken[1:])
    if swallowed > max(before, 1):
        todo = f"repair the quote; it swallows about {swallowed} rows up to line {lines.number}"
        raise DataError(reason, where=f"{path}, row {number}, line {first}", todo=todo)
    if swallowed:
        reason += f"; about {swallowed} rows up to line {lines.number} are lost in it"
    raw = "".join(lines.taken)
    return Dropped(row=number, source=source, file=str(path), fault=Fault.CUT, reason=reason, raw=raw)


def _is_record(line: str, width: int) -> bool:
    try:
        return [len(values) for values in csv.reader([line], strict=True)] == [width]
    except csv.Error:
        return False


def read_jsonl(path: Path, source: str) -> Table:
    """One object a line; a line that is not one is a dropped row."""
    text = read_text(path)
    if text.lstrip().startswith("["):
        todo = f"write one object a line, for instance: jq -c '.[]' {path.name}"
        raise DataError("a JSON array, not JSON lines", where=f"{path}, line 1", todo=todo)
    columns: dict[str, None] = {}
    entries: list[Entry | Dropped] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        values, reason = _parse(line)
        if values is None:
            fault = Fault.ENCODING if "surrogate" in reason else Fault.NOT_JSON
            entries.append(Dropped(row=number, source=source, file=str(path), fault=fault, reason=reason, raw=line))
        else:
            columns |= dict.fromkeys(values)
            entries.append(Entry(number, values))
    return _whole(Table(path, list(columns), entries))


def _parse(line: str) -> tuple[dict[str, Any] | None, str]:
    """The object of a line, or why it is none."""
    try:
        value = json.loads(line)
        if "\\u" in line:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        return None, f"not JSON: {error.msg} at column {error.colno}"
    except UnicodeEncodeError:
        return None, "half a character (a lone surrogate)"
    except (ValueError, RecursionError) as error:
        return None, f"not readable as JSON: {error}"
    if not isinstance(value, dict):
        return None, "not a JSON object"
    return value, ""


def _whole(table: Table) -> Table:
    if not table.entries:
        raise DataError("a header and no rows", where=str(table.path), todo="check data.path, or fetch the file again")
    return table


def require(table: Table, wanted: Mapping[str, str], setting: str = "") -> None:
    """Every wanted column stands in the file exactly once; `setting` is the recipe key that names them, if one does."""
    if not any(isinstance(entry, Entry) for entry in table.entries):
        return
    missing = [name for name in wanted.values() if name not in table.columns]
    twice = [name for name in wanted.values() if table.columns.count(name) > 1]
    if not missing and not twice:
        return
    faults = [f'no column "{name}"{did_you_mean(name, table.columns)}' for name in missing]
    faults += [f'column "{name}" stands twice' for name in twice]
    todo = f"the file has: {', '.join(table.columns)}"
    if len(table.columns) == 1 and any(mark in table.columns[0] for mark in ";\t"):
        todo += "; its columns must be separated by commas"
    elif setting:
        todo += f"; set {setting}.{next(role for role, name in wanted.items() if name in missing + twice)}"
    raise DataError("; ".join(faults), where=str(table.path), todo=todo)
