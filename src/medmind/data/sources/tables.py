"""Any table as columns and a stream of entries: a fault of the file is an error, a fault of a row a dropped row."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from medmind.core.errors import DataError
from medmind.core.registry import did_you_mean
from medmind.data.sources.csv_table import CsvRecords
from medmind.data.sources.files import first_bytes
from medmind.data.sources.json_table import read_array, read_json_lines, shape_of
from medmind.data.sources.parquet_table import read_parquet
from medmind.data.sources.seam import Dropped, Entry

LOOKED_AT = 1000
"""Rows of JSON whose fields are taken for the columns."""


@dataclass(frozen=True)
class Table:
    """`columns` is empty where no row could be read; `entries` can be read once."""

    path: Path
    columns: list[str]
    entries: Iterator[Entry | Dropped]


def open_csv(path: Path, source: str) -> Table:
    records = CsvRecords(path, source)
    columns = records.header()
    return Table(path, columns, some(records.entries(columns), path, "a header and no rows"))


def open_json_lines(path: Path, source: str) -> Table:
    if first_bytes(path).startswith(b"["):
        todo = f"set data.source to json, or write one object a line: jq -c '.[]' {path.name}"
        raise DataError("a JSON array, not JSON lines", where=f"{path}, line 1", todo=todo)
    return _of_json(path, read_json_lines(path, source))


def open_json(path: Path, source: str) -> Table:
    shape = shape_of(path)
    if shape == "object":
        todo = f"write the rows as a list, for instance: jq '.data' {path.name}"
        raise DataError("one JSON object, not a list of rows", where=str(path), todo=todo)
    return _of_json(path, (read_array if shape == "array" else read_json_lines)(path, source))


def open_parquet(path: Path, source: str) -> Table:
    columns, entries = read_parquet(path, source)
    return Table(path, columns, some(entries, path, "no rows"))


OPEN: Mapping[str, Callable[[Path, str], Table]] = {
    "csv": open_csv,
    "json": open_json,
    "jsonl": open_json_lines,
    "parquet": open_parquet,
}


def open_table(path: Path, source: str) -> Table:
    """By what is in the file, whatever its name."""
    head = first_bytes(path)
    if head.startswith(b"PAR1"):
        return open_parquet(path, source)
    return (open_json if head[:1] in (b"[", b"{") else open_csv)(path, source)


def _of_json(path: Path, entries: Iterator[Entry | Dropped]) -> Table:
    first = list(islice(entries, LOOKED_AT))
    columns = dict.fromkeys(name for entry in first if isinstance(entry, Entry) for name in entry.values)
    return Table(path, list(columns), some(chain(first, entries), path, "no rows"))


def some(entries: Iterator[Entry | Dropped], path: Path, otherwise: str) -> Iterator[Entry | Dropped]:
    """The entries; none at all is a fault of the file."""
    none = True
    for entry in entries:
        none = False
        yield entry
    if none:
        raise DataError(otherwise, where=str(path), todo="check data.path, or fetch the file again")


def require(table: Table, wanted: Mapping[str, str], setting: str = "") -> None:
    """Every wanted column stands in the file exactly once; `setting` is the recipe key that names them, if one does."""
    if not table.columns:
        return
    missing = [name for name in wanted.values() if name not in table.columns]
    twice = [name for name in wanted.values() if table.columns.count(name) > 1]
    if not missing and not twice:
        return
    faults = [f'no column "{name}"{did_you_mean(name, table.columns)}' for name in missing]
    faults += [f'column "{name}" stands twice' for name in twice]
    todo = has(table)
    if setting:
        todo += f"; set {setting}.{next(role for role, name in wanted.items() if name in missing + twice)}"
    raise DataError("; ".join(faults), where=str(table.path), todo=todo)


def find_columns(table: Table, spellings: Mapping[str, Sequence[str]], optional: Sequence[str] = ()) -> dict[str, str]:
    """Role → the column that holds it: the first of its known spellings, in any case. An optional one may be absent."""
    if not table.columns:
        return {role: names[0] for role, names in spellings.items()}
    there = {name.casefold(): name for name in reversed(table.columns)}
    found = {
        role: next((there[name.casefold()] for name in names if name.casefold() in there), "")
        for role, names in spellings.items()
    }
    missing = [spellings[role][0] for role, name in found.items() if not name and role not in optional]
    if missing:
        faults = "; ".join(f'no column "{name}"{did_you_mean(name, table.columns)}' for name in missing)
        raise DataError(faults, where=str(table.path), todo=has(table))
    require(table, {role: name for role, name in found.items() if name})
    return {role: name for role, name in found.items() if name}


def has(table: Table) -> str:
    """What a person needs to see the mistake."""
    listed = f"the file has: {', '.join(table.columns)}"
    semicolons = len(table.columns) == 1 and any(mark in table.columns[0] for mark in ";\t")
    return listed + "; its columns must be separated by commas" * semicolons


def value_at(entry: Entry, columns: Mapping[str, str], role: str) -> Any:
    """What a row says in a role; nothing where the file has no such column."""
    return entry.values.get(columns[role]) if role in columns else None
