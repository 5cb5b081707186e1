"""Decides about every row of the recipe's source; what is decided stays on disk until someone asks for a row."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medmind.core.errors import DataError
from medmind.core.sampling import sample
from medmind.core.types import Example
from medmind.data.checks import text_key
from medmind.data.config import DataConfig
from medmind.data.leaks.index import LeakIndex
from medmind.data.leaks.report import SuiteLeaks
from medmind.data.quality.inspect import Inspector
from medmind.data.sources.seam import Dropped, Fault
from medmind.data.split import refuse_random_split
from medmind.data.stage.decide import TEST, TRAIN, VALIDATION, alive, assign_parts, drop_leaks, take_samples
from medmind.data.stage.intake import Intake
from medmind.data.stage.report import count_faults
from medmind.data.stage.spool import OPEN, Indexes, OnDisk
from medmind.data.stage.topics import shared_topics

TOPICS_IN = 100_000
"""Rows looked at for topics; of more a seeded sample."""


@dataclass(frozen=True)
class Prepared:
    """Everything the stage decided, before any of it is written."""

    parts: dict[str, OnDisk[Example]]
    dropped: OnDisk[Dropped]
    rows_read: dict[str, int]
    """By file."""
    left_to_pretraining: int
    not_sampled: dict[str, int]
    """By part: good rows that max_train_rows or max_test_rows left out."""
    uneven: dict[str, dict[str, int]]
    """By part that is not of the size asked for, as groups are kept whole."""
    phi: dict[str, Any]
    swept: SuiteLeaks | None
    """What training rows gave away of the source's own test rows, before they were taken out."""
    shared_topics: dict[str, Any]
    """Of test rows cut at random: how many ask about a thing that training rows ask about in other words."""


def assemble(config: DataConfig, seed: int, folder: Path | None = None, inspector: Inspector | None = None) -> Prepared:
    """Reads, checks and splits; the rows wait in a nameless file in `folder` (default: the system's for such).

    The inspector sees every row; without one, rows are inspected only if filters of the recipe ask for it.
    """
    intake = Intake(config, folder, inspector or (Inspector(config) if config.filters else None))
    cut_at_random = ungrouped(intake)
    refuse_random_medquad(intake, cut_at_random, config)
    uneven = assign_parts(intake.rows, intake.groups, config, seed)
    if uneven.get("test", {}).get("rows") == 0:
        raise one_group(config)
    drop_leaks(intake.rows)
    swept = sweep(intake)
    intake.refuse_mostly_bad()
    chosen, not_sampled = take_samples(intake.rows, config, seed)
    if not len(chosen["train"]):
        raise no_training_rows(intake, config)
    parts = {name: intake.examples(indexes) for name, indexes in chosen.items()}
    left, phi = intake.left_to_pretraining, intake.screen.summary()
    topics = look_for_topics(intake, cut_at_random, seed)
    return Prepared(parts, intake.dropped, intake.rows_read, left, not_sampled, uneven, phi, swept, topics)


def one_group(config: DataConfig) -> DataError:
    return DataError(
        "no training rows beside test rows: all rows share one group",
        where=config.path,
        todo="check data.columns.group, or set data.test_fraction to 0 and evaluate on data.suites",
    )


def no_training_rows(intake: Intake, config: DataConfig) -> DataError:
    """Says where they went."""
    lost = "; ".join(f"{found['count']:,} × {fault}" for fault, found in count_faults(intake.dropped).items())
    held_out = int((alive(intake.rows) & np.isin(intake.rows["part"], (TEST, VALIDATION))).sum())
    return DataError(
        f"no training rows are left: {held_out:,} are for test or validation, {lost or 'none was dropped'}",
        where=config.path or f'data.source "{config.source}"',
        todo="give more rows, or lower data.validation_fraction and data.test_fraction",
    )


def ungrouped(intake: Intake) -> Indexes:
    """Rows the split has to place and that belong to no group."""
    rows = intake.rows
    grouped = np.isin(rows["group"], np.array([*intake.groups], "u8"))
    return np.flatnonzero(alive(rows) & (rows["part"] == OPEN) & ~grouped)


def refuse_random_medquad(intake: Intake, cut_at_random: Indexes, config: DataConfig) -> None:
    if len(cut_at_random) and (config.test_fraction or config.validation_fraction):
        raw = intake.raw(int(cut_at_random[0]))
        refuse_random_split(raw if isinstance(raw, dict) else (), config.path)


def look_for_topics(intake: Intake, cut_at_random: Indexes, seed: int) -> dict[str, Any]:
    some = cut_at_random[sample(len(cut_at_random), TOPICS_IN, seed)]
    used, part = alive(intake.rows)[some], intake.rows["part"][some]
    held_out, learnt = (intake.examples(some[used & (part == which)]) for which in (TEST, TRAIN))
    found = shared_topics(held_out, learnt)
    return {"test_rows": len(held_out), "shared": len(found), "examples": list(dict.fromkeys(found))[:5]}


def sweep(intake: Intake) -> SuiteLeaks | None:
    """Takes out the rows that give the source's own test rows away in other words than the question's."""
    rows, used = intake.rows, alive(intake.rows)
    test = np.flatnonzero(used & (rows["part"] == TEST))
    if not len(test):
        return None
    index = LeakIndex({"test": intake.examples(test)}, strict=True)
    learnt = np.flatnonzero(used & np.isin(rows["part"], (TRAIN, VALIDATION)))
    for example in intake.examples(learnt):
        index.add(example)
    report = index.report()
    reasons = {text_key(name): why for name, why in report.leaking("test").items()}
    for place in learnt[np.isin(rows["id"][learnt], np.array([*reasons], "u8"))].tolist():
        intake.drop(place, Fault.GIVES_AWAY, reasons[int(rows["id"][place])])
    return report.suites["test"]
