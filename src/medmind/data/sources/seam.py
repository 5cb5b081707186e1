"""What an adapter is, and the two things it yields: a row with its example, or a row dropped with the reason."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from medmind.core.errors import DataError
from medmind.core.types import Example, Record
from medmind.data.config import DataConfig

Part = Literal["train", "validation", "test", "pretrain"]


class Fault(StrEnum):
    """Why a row cannot be used; the report counts by these."""

    NOT_JSON = "not JSON"
    CUT = "cut or damaged record"
    COLUMNS = "too many columns"
    NOT_TEXT = "not text"
    NO_QUESTION = "empty question"
    NO_ANSWER = "empty answer"
    NO_GROUP = "no group"
    ENCODING = "damaged encoding"
    FORM = "answer not in the task's form"
    DUPLICATE = "duplicate"
    SAME_ID = "id used twice"
    LEAK = "question also in test"
    VALIDATION_LEAK = "question also in validation"
    TEST_TERM = "term of the test rows"


class Dropped(Record):
    """One line of dropped.jsonl: `row` counts from 1 in its file, a CSV's header being row 1."""

    row: int
    id: str = ""
    source: str
    file: str
    fault: Fault
    reason: str
    raw: Any


@dataclass(frozen=True)
class Row:
    """A usable row: `raw` is what the file says, `part` is set where the source decides it, not the split."""

    number: int
    file: str
    raw: Any
    example: Example
    part: Part | None = None

    def drop(self, fault: Fault, reason: str) -> Dropped:
        return Dropped(
            row=self.number,
            id=self.example.id,
            source=self.example.source,
            file=self.file,
            fault=fault,
            reason=reason,
            raw=self.raw,
        )


@dataclass(frozen=True)
class Origin:
    """A file a source reads, and under which licence."""

    path: Path
    licence: str


@dataclass(frozen=True)
class Source:
    """An adapter. `read` yields rows in file order and raises DataError for a fault of the whole file.

    `suite` names the test rows in data/suites/; empty where there is nothing to evaluate.
    """

    name: str
    suite: str
    read: Callable[[DataConfig], Iterator[Row | Dropped]]
    origins: Callable[[DataConfig], list[Origin]]


def input_file(config: DataConfig) -> Path:
    """data.path of a source that reads one file."""
    if not config.path:
        raise DataError(
            f'data.source "{config.source}" reads a file and data.path is empty', todo="set data.path to the file"
        )
    path = Path(config.path)
    if path.is_dir():
        raise DataError("a folder where a file is needed", where=str(path), todo="set data.path to the file")
    if not path.exists():
        raise DataError("no such file", where=str(path), todo="check data.path")
    return path


def fold(text: str) -> str:
    """Every run of blanks and line breaks becomes one blank."""
    return " ".join(text.split())
