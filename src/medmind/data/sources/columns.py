"""JSON-lines and CSV files of any make: data.columns says which of them is the question, which the answer."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from medmind.core.types import Example, Message, Passage
from medmind.data.config import DataConfig
from medmind.data.sources.seam import Dropped, Fault, Origin, Row, input_file
from medmind.data.sources.tables import Entry, Table, require


def words(value: Any) -> str | None:
    """A text or a number in words, nothing for null; None for what is neither."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def make_id(source: str, *texts: str) -> str:
    """An id that depends on what the row says, not on where it stands."""
    return f"{source}-{hashlib.sha256(chr(0).join(texts).encode()).hexdigest()[:12]}"


def read_mapped(config: DataConfig, read: Callable[[Path, str], Table]) -> Iterator[Row | Dropped]:
    path = input_file(config)
    mapping = {"question": "question", "answer": "answer"} | config.columns
    table = read(path, config.source)
    require(table, mapping, setting="data.columns")
    for entry in table.entries:
        yield to_row(entry, mapping, config, path) if isinstance(entry, Entry) else entry


def to_row(entry: Entry, mapping: dict[str, str], config: DataConfig, path: Path) -> Row | Dropped:
    said = {role: words(entry.values.get(column)) for role, column in mapping.items()}
    odd = [role for role, text in said.items() if text is None]
    if odd:
        reason = f'column "{mapping[odd[0]]}" is neither a text nor a number'
        return Dropped(
            row=entry.number,
            source=config.source,
            file=str(path),
            fault=Fault.NOT_TEXT,
            reason=reason,
            raw=entry.values,
        )
    text = {role: value or "" for role, value in said.items()}
    name = text.get("id") or make_id(config.source, text["question"], text.get("context", ""), text["answer"])
    context = text.get("context", "")
    example = Example(
        id=name,
        source=config.source,
        task=config.task,
        turns=(Message(role="user", text=text["question"]),),
        passages=(Passage(id=f"{name}-context", text=context),) if context else (),
        target=text["answer"],
        group=text.get("group", ""),
    )
    return Row(entry.number, str(path), entry.values, example)


def origins(config: DataConfig) -> list[Origin]:
    return [Origin(input_file(config), "not stated")]
