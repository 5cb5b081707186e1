"""What the data stage did, as report.json and as a few lines on the console."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medmind.core.log import say
from medmind.core.rundir import sha256_lines
from medmind.core.types import Example
from medmind.data.config import DataConfig
from medmind.data.sources.seam import Dropped

NAMED = 5
"""Rows named for each fault; dropped.jsonl has them all."""


def describe(
    config: DataConfig,
    seed: int,
    parts: dict[str, list[Example]],
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
        "parts": {name: len(rows) for name, rows in parts.items()},
        "ids_sha256": {name: sha256_lines(row.id for row in rows) for name, rows in parts.items()},
        "categories": {name: balance(rows) for name, rows in parts.items()},
        "dropped": {"total": len(dropped), "by_reason": count_faults(dropped)},
    }


def balance(rows: Sequence[Example]) -> dict[str, int]:
    """Rows by category, the most frequent first; rows without one are counted under their source."""
    return dict(Counter(str(row.metadata.get("category") or row.source) for row in rows).most_common())


def count_faults(dropped: Sequence[Dropped]) -> dict[str, Any]:
    by_fault: dict[str, list[Dropped]] = {}
    for one in dropped:
        by_fault.setdefault(one.fault.value, []).append(one)
    return {
        fault: {
            "count": len(rows),
            "examples": [one.model_dump(include={"file", "row", "id", "reason"}) for one in rows[:NAMED]],
        }
        for fault, rows in sorted(by_fault.items(), key=lambda item: -len(item[1]))
    }


def tell(report: dict[str, Any], dropped_file: Path) -> None:
    """The story for a person: read, kept, left, dropped."""
    for file, count in report["rows_by_file"].items():
        say(f"read {count:,} rows of {file}")
    if report["left_to_pretraining"]:
        say(f"left to pre-training, by their group: {report['left_to_pretraining']:,}")
    say("kept " + ", ".join(f"{name} {count:,}" for name, count in report["parts"].items()))
    unused = {name: count for name, count in report["not_sampled"].items() if count}
    if unused:
        named = ", ".join(f"{name} {count:,}" for name, count in unused.items())
        say(f"not in the sample data.max_train_rows and data.max_test_rows ask for: {named}")
    faults = report["dropped"]["by_reason"]
    if faults:
        total = report["dropped"]["total"]
        say(f"dropped {total:,} row{'s' * (total > 1)}, reasons in {dropped_file}:", style="yellow")
    for fault, found in faults.items():
        first = found["examples"][0]
        say(f"  {found['count']:,} × {fault}: first {first['file']}, row {first['row']}, {first['reason']}")
    if not report["parts"]["test"]:
        say("no test rows: there is nothing to evaluate")
