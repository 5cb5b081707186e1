"""A conversation in a file: only where the user says, and readable by nobody else."""

import os
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from medmind.core.errors import DataError, UsageError
from medmind.core.jsonl import read_json, write_json
from medmind.core.types import Message, Record


class Saved(Record):
    """What each speaker was told and said, by name."""

    medmind_chat: int = 1
    system: dict[str, str]
    turns: dict[str, tuple[Message, ...]]


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
        raise UsageError("no such file", where=str(path))
    try:
        saved = Saved.model_validate(read_json(path))
    except ValidationError:
        saved = None
    if saved is None or not all(map(in_turn, saved.turns.values())):
        raise DataError("not a conversation that medmind chat saved", where=str(path))
    return saved


def in_turn(turns: Sequence[Message]) -> bool:
    """Question and answer, and again."""
    roles = [message.role for message in turns]
    return roles == ["user", "assistant"] * (len(roles) // 2)
