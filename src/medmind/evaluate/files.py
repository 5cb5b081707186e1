"""What evaluation reads and writes once: records checked row by row, and files made only when they must be."""

from collections.abc import Callable, Iterator
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from medmind.core.errors import DataError
from medmind.core.jsonl import read_jsonl, write_jsonl
from medmind.core.log import progress_bar, say
from medmind.core.protocols import Progress
from medmind.core.rundir import RunDir
from medmind.core.types import Record

R = TypeVar("R", bound=Record)


def read_records(path: Path, kind: type[R]) -> list[R]:
    """Every row whole, every number one to reckon with."""
    found: list[R] = []
    todo = "make the file again"
    for number, row in enumerate(with_todo(read_jsonl(path), todo), start=1):
        where = f"{path}, row {number}"
        try:
            found.append(kind.model_validate(row))
        except ValidationError as error:
            fault = error.errors()[0]
            what = f"not a {kind.__name__}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}"
            raise DataError(what, where=where, todo=todo) from None
        if (odd := next(not_numbers(row), None)) is not None:
            raise DataError(f"{odd} is no number to reckon with", where=where, todo=todo)
    return found


def with_todo(rows: Iterator[Any], todo: str) -> Iterator[Any]:
    """What the rows' reader complains of, with what to do."""
    try:
        yield from rows
    except DataError as error:
        raise DataError(error.what, where=error.where, todo=error.todo or todo) from None


def read_items(path: Path, kind: type[R]) -> list[R]:
    """Rows of which each stands for a question of its own."""
    found = read_records(path, kind)
    rows: dict[str, int] = {}
    for number, one in enumerate(found, start=1):
        name = str(getattr(one, "id", number))
        if name in rows:
            what = f'id "{name}" stands twice, first in row {rows[name]}'
            raise DataError(what, where=f"{path}, row {number}", todo="make the file again")
        rows[name] = number
    return found


def not_numbers(value: Any) -> Iterator[float]:
    """NaN and infinity, which JSON does not have and Python reads all the same."""
    if isinstance(value, float) and not isfinite(value):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from not_numbers(one)


def make_once(
    rundir: RunDir, path: Path, key: str, kind: type[R], title: str, make: Callable[[Progress], list[R]]
) -> list[R]:
    """Reads the file if it was made with this key and is as it was; makes, writes and records it otherwise."""
    if rundir.is_made(path, key):
        say(f"{title}: up to date")
        return read_records(path, kind)
    with progress_bar(title) as bar:
        records = make(bar)
    write_jsonl(path, records)
    rundir.note_made(path, key)
    return records
