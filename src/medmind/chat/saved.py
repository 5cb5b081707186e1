"""A conversation in a file: only where the user says, and readable by nobody else."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from medmind.core.errors import DataError, UsageError
from medmind.core.jsonl import read_json, write_json
from medmind.core.types import Message, Record

FORMAT = 1
LARGEST = 64 * 2**20
"""Bytes: far more than any context takes."""
SURROGATE = re.compile("[\ud800-\udfff]")


class Saved(Record):
    """What each speaker was told and said, by name."""

    medmind_chat: int = FORMAT
    system: dict[str, str]
    turns: dict[str, tuple[Message, ...]]

    @property
    def texts(self) -> list[str]:
        return [*self.system.values(), *(message.text for turns in self.turns.values() for message in turns)]


def save(path: Path, saved: Saved) -> None:
    """Over an older conversation, but over no other file."""
    if path.exists():
        load(path)
    before = os.umask(0o077)  # from its first moment on
    try:
        write_json(path, saved.model_dump(mode="json"))
    finally:
        os.umask(before)


def load(path: Path) -> Saved:
    if not path.is_file():
        raise UsageError("not a file" if path.exists() else "no such file", where=str(path))
    value = read_json(path) if path.stat().st_size <= LARGEST else None
    version = value.get("medmind_chat") if isinstance(value, dict) else None
    if isinstance(version, int) and version > FORMAT:
        what = f"saved by a newer medmind, in format {version}; this one reads format {FORMAT}"
        raise DataError(what, where=str(path), todo="load it with that one")
    try:
        saved = Saved.model_validate(value)
    except ValidationError:
        saved = None
    if saved is None or saved.medmind_chat != FORMAT or not all(map(in_turn, saved.turns.values())):
        raise DataError("not a conversation that medmind chat saved", where=str(path))
    if not all(map(is_text, saved.texts)):
        raise DataError("half a character (a lone surrogate) in a text", where=str(path))
    return saved


def in_turn(turns: Sequence[Message]) -> bool:
    """Question and answer, and again."""
    roles = [message.role for message in turns]
    return roles == ["user", "assistant"] * (len(roles) // 2)


def is_text(text: str) -> bool:
    """False with half a character, or a byte that was no UTF-8: no tokenizer and no file takes it."""
    return not SURROGATE.search(text)
