"""What the data stage did, as report.json and as a few lines on the console."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from medmind.core.log import say
from medmind.core.types import Example
from medmind.data.canaries import tell_canaries
from medmind.data.config import DataConfig
from medmind.data.phi.screen import tell_phi
from medmind.data.quality.story import tell_quality
from medmind.data.sources.seam import Dropped

SHARED = 0.05
"""Share of test rows about a thing that is trained on too, above which a person is told."""
NAMED = 5
"""Rows named for each fault; dropped.jsonl has them all."""


class Tally:
    """Counts the rows of a part on their way to the disk."""

    def __init__(self) -> None:
        self.rows, self._categories, self._ids = 0, Counter[str](), hashlib.sha256()

    def count(self, rows: Iterable[Example]) -> Iterator[Example]:
        for row in rows:
            self.rows += 1
            self._categories[str(row.metadata.get("category") or row.source)] += 1
            self._ids.update(f"{row.id}\n".encode())
            yield row

    @property
    def ids_sha256(self) -> str:
        return self._ids.hexdigest()

    @property
    def categories(self) -> dict[str, int]:
        """Rows by category, the most frequent first; rows without one are counted under their source."""
        return dict(self._categories.most_common())


def describe(
    config: DataConfig,
    seed: int,
    parts: dict[str, Tally],
    dropped: Sequence[Dropped],
    rows_read: dict[str, int],
) -> dict[str, Any]:
    return {
        "source": config.source,
        "task": config.task,
        "path": config.path,
        "seed": seed,
        "rows_read": sum(rows_read.values()),
        "rows_by_file": rows_read,
        "parts": {name: part.rows for name, part in parts.items()},
        "ids_sha256": {name: part.ids_sha256 for name, part in parts.items()},
        "categories": {name: part.categories for name, part in parts.items()},
        "dropped": {"total": len(dropped), "by_reason": count_faults(dropped)},
    }


def count_faults(dropped: Iterable[Dropped]) -> dict[str, Any]:
    """By fault, the most frequent first: how many rows, and the first of them."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[dict[str, Any]]] = {}
    for one in dropped:
        counts[one.fault.value] += 1
        named = examples.setdefault(one.fault.value, [])
        if len(named) < NAMED:
            named.append(one.model_dump(include={"file", "row", "id", "reason"}))
    return {fault: {"count": count, "examples": examples[fault]} for fault, count in counts.most_common()}


def tell(report: dict[str, Any], dropped_file: Path) -> None:
    """The story for a person: read, kept, left, dropped, what else there is to know."""
    for file, count in report["rows_by_file"].items():
        say(f"read {count:,} rows of {file}")
    if report["left_to_pretraining"]:
        say(f"left to pre-training, by their group: {report['left_to_pretraining']:,}")
    say("kept " + ", ".join(f"{name} {count:,}" for name, count in report["parts"].items()))
    unused = {name: count for name, count in report["not_sampled"].items() if count}
    if unused:
        named = ", ".join(f"{name} {count:,}" for name, count in unused.items())
        say(f"not in the sample data.max_train_rows and data.max_test_rows ask for: {named}")
    for name, size in report["uneven"].items():
        asked = f"{size['asked_for']:,} were asked for"
        say(f"{name} was cut to {size['rows']:,} rows, {asked}: groups are kept whole", style="yellow")
    faults = report["dropped"]["by_reason"]
    if faults:
        total = report["dropped"]["total"]
        say(f"dropped {total:,} row{'s' * (total > 1)}, reasons in {dropped_file}:", style="yellow")
    for fault, found in faults.items():
        first = found["examples"][0]
        say(f"  {found['count']:,} × {fault}: first {first['file']}, row {first['row']}, {first['reason']}")
    for name, suite in report["suites"].items():
        left_out = f", {suite['dropped']['total']:,} dropped" if suite["dropped"]["total"] else ""
        say(f"suite {name}: {suite['rows']:,} rows{left_out}")
    tell_quality(report["quality"])
    tell_topics(report["shared_topics"])
    tell_leaks(report["leaks"])
    tell_phi(report["phi"])
    tell_canaries(report["canaries"])
    if not report["parts"]["test"] and not report["suites"]:
        say("no test rows: there is nothing to evaluate")


def tell_topics(topics: dict[str, Any]) -> None:
    if topics["shared"] > SHARED * topics["test_rows"]:
        say(
            f"{topics['shared']:,} of {topics['test_rows']:,} test rows ask about a thing that training rows ask about "
            f"too ({', '.join(topics['examples'][:2])}); if rows belong together, set data.columns.group",
            style="yellow",
        )


def tell_leaks(leaks: dict[str, Any]) -> None:
    """How many rows of each suite the training rows give away; above the bound only what the recipe allows."""
    for name, suite in leaks["suites"].items():
        counts = ", ".join(
            f"{found['count']:,} by {method}" for method, found in suite["methods"].items() if found["count"]
        )
        excused = f"; {suite['excused']:,} more only by stock phrases" if suite["excused"] else ""
        said = f"given away of {name}, {suite['rows']:,} rows: {counts or 'none'}{excused}"
        say(said, style="yellow" if counts else None)
    if leaks["allowed"]:
        say(f"leaks are allowed by the recipe: {leaks['allowed']}", style="yellow")
