"""One pass over a source: every row screened, checked and laid on disk, repeats marked."""

import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medmind.core.errors import DataError
from medmind.core.log import console
from medmind.core.types import Example
from medmind.data.checks import check_row
from medmind.data.config import DataConfig
from medmind.data.filters import FILTERS
from medmind.data.near import near_duplicates
from medmind.data.phi.screen import Screen
from medmind.data.quality.inspect import Inspector
from medmind.data.quality.repeats import near_text
from medmind.data.sources.known import SOURCES
from medmind.data.sources.seam import EXPECTED, Dropped, Fault, Row
from medmind.data.stage.decide import PRETRAIN, REPEATS, alive, drop_repeats
from medmind.data.stage.spool import FAULTS, OPEN, Indexes, OnDisk, Spool

SHOWN_EVERY = 0.1
"""Seconds between two steps of the progress line."""
WANTED_OUT = [
    FAULTS.index(Fault(name)) for name in (*EXPECTED, *FILTERS.values(), Fault.PHI, Fault.GIVES_AWAY, Fault.DUPLICATE)
]
"""Faults that say nothing against a file."""
CLASHES = {
    Fault.DUPLICATE: "same question and answer as {}",
    Fault.SAME_ID: "id of {}",
    Fault.LEAK: "asked in {}",
    Fault.VALIDATION_LEAK: "asked in {}",
}


class Intake:
    """What a source gave: texts on disk, `rows` the facts of each, among them why it was dropped."""

    def __init__(
        self, config: DataConfig, folder: Path | None, inspector: Inspector | None = None, whole: bool = False
    ) -> None:
        """With an inspector near duplicates are looked for, and its filters are obeyed. A `whole` set is a published
        one: what it asks twice, it asks twice.
        """
        self.screen = Screen(config.phi)
        self._spool = Spool(folder)
        self._reasons: dict[int, str] = {}
        self._inspected = array("q")
        texts = self._read(config, inspector.add if inspector else check_row)
        if inspector:
            inspector.note_near(near_duplicates(texts, workdir=folder))
        deque(texts, maxlen=0)  # where nobody has read to the end
        self.rows = self._spool.finish()
        self.groups = self._spool.groups
        drop_repeats(self.rows, REPEATS[1:] if whole else REPEATS)
        for index, (fault, reason) in inspector.late_drops().items() if inspector else ():
            self.drop(self._inspected[index], fault, reason)

    def _read(self, config: DataConfig, check: Callable[[Row], Dropped | None]) -> Iterator[str]:
        """Lays every row on disk; yields what near duplicates are found by, of each row the source could read."""
        source = SOURCES.get(config.source)
        for row in self.screen.rows(with_progress(source.read(config), f"reading {source.name}")):
            if isinstance(row, Dropped):
                self._spool.keep_dropped(row)
                continue
            self._inspected.append(len(self._spool))
            fault = check(row)
            if row.part == "pretrain":
                self._spool.pass_over(row)
            elif fault:
                self._spool.keep_dropped(fault)
            else:
                self._spool.keep(row)
            yield near_text(row.example)

    @property
    def rows_read(self) -> dict[str, int]:
        """By file."""
        return {file: int((self.rows["file"] == number).sum()) for number, file in enumerate(self._spool.files)}

    @property
    def left_to_pretraining(self) -> int:
        return int((self.rows["part"] == PRETRAIN).sum())

    @property
    def dropped(self) -> OnDisk[Dropped]:
        """In the order of the files."""
        order = np.lexsort((self.rows["number"], self.rows["file"]))
        return OnDisk(order[self.rows["fault"][order] != OPEN], self._describe_drop)

    def examples(self, indexes: Indexes) -> OnDisk[Example]:
        return OnDisk(indexes, self._spool.example)

    def raw(self, index: int) -> Any:
        """What the file says of a row."""
        return self._spool.raw(index)

    def drop(self, index: int, fault: Fault, reason: str) -> None:
        """Unless the row is out already."""
        if alive(self.rows[index]):
            self.rows["fault"][index] = FAULTS.index(fault)
            self._reasons[index] = reason

    def _describe_drop(self, index: int) -> Dropped:
        found = self._spool.dropped(index)
        if found:
            return found
        row, files = self.rows[index], list(self._spool.files)
        example = self._spool.example(index)
        return Dropped(
            row=int(row["number"]),
            id=example.id,
            source=example.source,
            file=files[row["file"]],
            fault=FAULTS[row["fault"]],
            reason=self._reasons.get(index) or self._clash(index),
            raw=self._spool.raw(index),
        )

    def _clash(self, index: int) -> str:
        """What a row was dropped for that says the same as another."""
        row, files = self.rows[index], list(self._spool.files)
        other = self.rows[row["other"]]
        place = f"row {other['number']}" + ("" if other["file"] == row["file"] else f" of {files[other['file']]}")
        return CLASHES[FAULTS[row["fault"]]].format(place)

    def refuse_mostly_bad(self) -> None:
        """A file that loses more than half its rows is the wrong file or wrongly described."""
        dropped = self.dropped
        dropped = dropped[~np.isin(self.rows["fault"][dropped.indexes], WANTED_OUT)]
        for number, (file, count) in enumerate(self.rows_read.items()):
            lost = dropped[self.rows["file"][dropped.indexes] == number]
            if 2 * len(lost) <= count:
                continue
            faults = self.rows["fault"][lost.indexes]
            _, firsts, counts = np.unique(faults, return_index=True, return_counts=True)
            found = [(lost[int(firsts[place])], counts[place]) for place in np.argsort(firsts)]
            named = "; ".join(f"{many} × {one.fault}, first in row {one.row} ({one.reason})" for one, many in found)
            todo = f"check data.source, data.path and data.columns, or repair the file: {named}"
            raise DataError(f"{len(lost)} of {count} rows would be dropped", where=file, todo=todo)


def with_progress(rows: Iterable[Row | Dropped], what: str) -> Iterator[Row | Dropped]:
    """A line that counts rows while they are read, on a terminal only."""
    if not console().is_terminal:
        yield from rows
        return
    with console().status(what) as status:
        shown = time.monotonic()
        for number, row in enumerate(rows, start=1):
            yield row
            if time.monotonic() - shown > SHOWN_EVERY:
                shown = time.monotonic()
                status.update(f"{what}: {number:,} rows")
