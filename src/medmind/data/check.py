"""`medmind data check`: everything the checks find in a file, without a run directory and without changing a row."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from medmind.core.log import console
from medmind.data.config import DataConfig
from medmind.data.filters import FILTERS
from medmind.data.near import near_duplicates
from medmind.data.quality.inspect import Inspector
from medmind.data.quality.lengths import Lengths
from medmind.data.quality.repeats import near_text
from medmind.data.sources.known import SOURCES
from medmind.data.sources.seam import EXPECTED, Dropped, Row

FILTERED = frozenset(FILTERS.values())
SHOWN_EVERY = 500
"""Rows between two steps of the progress line."""


def check(config: DataConfig, lengths: Lengths | None) -> dict[str, Any]:
    """The report: what could be read, what cannot be used, what was found. Reads the file twice, keeps none of it."""
    source = SOURCES.get(config.source)
    inspector = Inspector(config, lengths)
    unusable: Counter[str] = Counter()
    firsts: dict[str, Dropped] = {}
    filtered = rows = 0
    for row in counted(source.read(config), "looking at each row"):
        rows += 1
        dropped = row if isinstance(row, Dropped) else inspector.add(row)
        if dropped and dropped.fault not in FILTERED:
            unusable[dropped.fault] += 1
            firsts.setdefault(dropped.fault, dropped)
        elif dropped:
            filtered += 1
    again = (row for row in counted(source.read(config), "comparing rows") if isinstance(row, Row))
    inspector.note_near(near_duplicates(near_text(row.example) for row in again))
    expected = sum(unusable[fault] for fault in EXPECTED)
    return {
        "source": config.source,
        "path": config.path,
        "rows": rows,
        "unusable": {
            fault: {"rows": count, "first": firsts[fault].model_dump(include={"file", "row", "id", "reason"})}
            for fault, count in unusable.most_common()
        },
        "mostly_unusable": 2 * (unusable.total() - expected) > rows - expected,
        "would_filter": filtered + len(inspector.late_drops()),
        **inspector.report(),
    }


def counted(rows: Iterable[Row | Dropped], what: str) -> Iterator[Row | Dropped]:
    """A line that counts, on a terminal only."""
    with console().status(what) as status:
        for number, row in enumerate(rows, start=1):
            if number % SHOWN_EVERY == 0:
                status.update(f"{what}: {number:,}")
            yield row
