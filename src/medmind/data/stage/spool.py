"""Rows on disk while the stage decides about them: memory holds a few numbers a row, a nameless file the texts."""

import json
import os
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar, overload

import numpy as np
import numpy.typing as npt
from pydantic_core import to_json

from medmind.core.types import Example
from medmind.data.checks import pair_key, question_key, text_key
from medmind.data.sources.seam import Dropped, Fault, Part, Row
from medmind.data.split import normalise_name, stratum

T = TypeVar("T")
Indexes = npt.NDArray[np.int64]
PARTS: tuple[Part, ...] = ("train", "validation", "test", "pretrain")
FAULTS = tuple(Fault)
OPEN = -1
"""In `part`: the source leaves it to the split. In `fault`: none."""
FACTS = np.dtype(
    [
        ("file", "i4"),
        ("number", "i8"),
        ("part", "i1"),
        ("fault", "i1"),
        ("other", "i8"),  # the row it clashes with
        ("asks", "?"),  # has a question
        ("question", "u8"),
        ("pair", "u8"),
        ("id", "u8"),
        ("group", "u8"),
        ("stratum", "i4"),
    ]
)
CHUNK = 4096


class Names:
    """Strings as small numbers, and back."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        return self.numbers.setdefault(name, len(self.numbers))

    def __iter__(self) -> Iterator[str]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)


class Spool:
    """What a source gave, in its order. The file has no name, so it vanishes with the process however that ends."""

    def __init__(self, folder: Path | None = None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        weakref.finalize(self, close, self._file)
        self._ends = array("Q", [0])
        self._recent: list[tuple[Any, ...]] = []
        self._chunks = [np.empty(0, FACTS)]
        self.files, self.strata = Names(), Names()
        self.groups: dict[int, str] = {}
        """Names of groups by their key; a row without one is a group by its question."""

    def __len__(self) -> int:
        return len(self._ends) // 2

    def keep(self, row: Row) -> None:
        example = row.example
        asked = question_key(example)
        name = normalise_name(example.group)
        group = text_key(name) if name else asked
        if name:
            self.groups[group] = name
        keys = (asked, pair_key(example, asked), text_key(example.id), group, self.strata.number(stratum(example)))
        part = PARTS.index(row.part) if row.part else OPEN
        facts = (self.files.number(row.file), row.number, part, OPEN, OPEN, bool(example.turns), *keys)
        self._add(facts, example.model_dump_json().encode(), to_json(row.raw))

    def keep_dropped(self, one: Dropped) -> None:
        facts = (self.files.number(one.file), one.row, OPEN, FAULTS.index(one.fault), OPEN, False, 0, 0, 0, 0, 0)
        self._add(facts, b"", one.model_dump_json().encode())

    def pass_over(self, row: Row) -> None:
        """A row for another use, pre-training: counted and not kept."""
        part = PARTS.index("pretrain")
        self._add((self.files.number(row.file), row.number, part, OPEN, OPEN, False, 0, 0, 0, 0, 0), b"", b"")

    def _add(self, facts: tuple[Any, ...], *texts: bytes) -> None:
        for text in texts:
            self._file.write(text)
            self._ends.append(self._ends[-1] + len(text))
        self._recent.append(facts)
        if len(self._recent) == CHUNK:
            self._flush()

    def _flush(self) -> None:
        self._chunks.append(np.array(self._recent, FACTS))
        self._recent.clear()

    def finish(self) -> npt.NDArray[Any]:
        """The facts of all rows, one FACTS record each; from here on the texts can be read."""
        self._flush()
        self._file.flush()
        facts = np.concatenate(self._chunks)
        self._chunks.clear()
        return facts

    def example(self, index: int) -> Example:
        return Example.model_validate_json(self._text(2 * index))

    def raw(self, index: int) -> Any:
        """What the file says of the row."""
        return json.loads(self._text(2 * index + 1))

    def dropped(self, index: int) -> Dropped | None:
        """The row as it was dropped while reading, if it was."""
        if self._text(2 * index):
            return None
        return Dropped.model_validate_json(self._text(2 * index + 1))

    def _text(self, place: int) -> bytes:
        start, end = self._ends[place], self._ends[place + 1]
        return os.pread(self._file.fileno(), end - start, start)


def close(file: IO[bytes]) -> None:
    """On a full disk closing fails once more; the error that counts is on its way already."""
    with suppress(OSError):
        file.close()


class OnDisk(Sequence[T]):
    """Rows by their indexes in a spool, each read when it is asked for."""

    def __init__(self, indexes: Indexes, read: Callable[[int], T]) -> None:
        self.indexes, self.read = indexes, read

    def __len__(self) -> int:
        return len(self.indexes)

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice | npt.NDArray[np.bool_]) -> "OnDisk[T]": ...
    def __getitem__(self, place: int | slice | npt.NDArray[np.bool_]) -> "T | OnDisk[T]":
        if isinstance(place, int):
            return self.read(int(self.indexes[place]))
        return OnDisk(self.indexes[place], self.read)


def rows_of(path: Path) -> OnDisk[Example]:
    """The rows of a file of the run directory, each read when it is asked for."""
    with open(path, "rb") as file:
        starts = np.cumsum([0, *map(len, file)])

    def read(index: int) -> Example:
        with open(path, "rb") as file:
            file.seek(starts[index])
            return Example.model_validate_json(file.readline())

    return OnDisk(np.arange(len(starts) - 1), read)
