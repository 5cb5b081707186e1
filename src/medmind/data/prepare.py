"""The data stage: a source's rows, checked, split and written into the run directory."""

import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medmind.core.errors import DataError
from medmind.core.jsonl import write_json, write_jsonl
from medmind.core.log import console
from medmind.core.rundir import RunDir, sha256_file
from medmind.core.sampling import sample
from medmind.core.types import Example
from medmind.data.checks import check_row, drop_leaks, drop_repeats, question_key
from medmind.data.config import DataConfig
from medmind.data.report import describe, tell
from medmind.data.sources.known import SOURCES
from medmind.data.sources.seam import Dropped, Fault, Part, Row, Source
from medmind.data.split import carve, normalise_name

PARTS: tuple[Part, ...] = ("train", "validation", "test")
SHOWN_EVERY = 0.1
"""Seconds between two steps of the progress line."""


@dataclass(frozen=True)
class Prepared:
    """Everything the stage decided, before any of it is written."""

    parts: dict[str, list[Example]]
    dropped: list[Dropped]
    rows_read: dict[str, int]
    """By file."""
    left_to_pretraining: int
    not_sampled: dict[str, int]
    """By part: good rows that max_train_rows or max_test_rows left out."""


@dataclass
class Reading:
    """Rows and dropped rows as they come out of a source."""

    rows: list[Row] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    rows_read: dict[str, int] = field(default_factory=dict)
    left_to_pretraining: int = 0


def prepare(config: DataConfig, rundir: RunDir, seed: int) -> list[Path]:
    """Runs the stage; returns every path written. A fault of a whole file raises before anything is written."""
    source = SOURCES.get(config.source)
    prepared = assemble(config, seed)
    origins = [
        {"source": source.name, "file": str(one.path), "licence": one.licence, "sha256": sha256_file(one.path)}
        for one in source.origins(config)
    ]
    report = describe(config, seed, prepared.parts, prepared.dropped, prepared.rows_read) | {
        "left_to_pretraining": prepared.left_to_pretraining,
        "not_sampled": prepared.not_sampled,
    }
    shutil.rmtree(rundir.data, ignore_errors=True)  # only now: until the new rows are whole, the old ones stay
    written = write(source, prepared, rundir)
    write_json(rundir.licences, origins)
    write_json(rundir.data_report, report)
    tell(report, rundir.split("dropped"))
    return [*written, rundir.licences, rundir.data_report]


def assemble(config: DataConfig, seed: int) -> Prepared:
    """Reads, checks and splits; writes nothing."""
    reading = read_rows(SOURCES.get(config.source), config)
    rows, repeats = drop_repeats(reading.rows)
    parts, leaks = split_rows(rows, config, seed)
    dropped = [*reading.dropped, *repeats, *leaks]
    refuse_mostly_bad(reading.rows_read, dropped)
    if not parts["train"]:
        raise DataError(
            "no training rows are left",
            where=config.path or f'data.source "{config.source}"',
            todo="see that not all rows share one group, or lower data.validation_fraction and data.test_fraction",
        )
    parts, not_sampled = take_samples(parts, config, seed)
    return Prepared(
        parts={name: [row.example for row in rows] for name, rows in parts.items()},
        dropped=sorted(dropped, key=lambda one: (list(reading.rows_read).index(one.file), one.row)),
        rows_read=reading.rows_read,
        left_to_pretraining=reading.left_to_pretraining,
        not_sampled=not_sampled,
    )


def read_rows(source: Source, config: DataConfig) -> Reading:
    """One pass over the source; rows of pre-training groups are counted and left alone."""
    reading = Reading()
    for row in with_progress(source.read(config), f"reading {source.name}"):
        reading.rows_read[row.file] = reading.rows_read.get(row.file, 0) + 1
        if isinstance(row, Dropped):
            reading.dropped.append(row)
        elif row.part == "pretrain":
            reading.left_to_pretraining += 1
        elif fault := check_row(row):
            reading.dropped.append(fault)
        else:
            reading.rows.append(row)
    return reading


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


def split_rows(rows: Sequence[Row], config: DataConfig, seed: int) -> tuple[dict[str, list[Row]], list[Dropped]]:
    """Parts in file order. Test is carved out of rows the source left open, validation also out of its train rows;
    both fractions are of the rows before any carving.
    """
    placed = move(rows, "test", config.test_fraction, seed, out_of=(None,))
    if not any(row.part == "validation" for row in placed):
        before, left = (sum(row.part in (None, "train") for row in these) for these in (rows, placed))
        wanted = min(config.validation_fraction * before, config.max_validation_rows)
        fraction = wanted / max(left, 1)
        placed = move(placed, "validation", fraction, seed, out_of=(None, "train"))
    parts = {str(name): [row for row in placed if (row.part or "train") == name] for name in PARTS}
    parts["validation"], leaked = drop_leaks(parts["validation"], parts["test"], Fault.LEAK)
    parts["train"], leaks = drop_leaks(parts["train"], parts["test"], Fault.LEAK)
    parts["train"], shared = drop_leaks(parts["train"], parts["validation"], Fault.VALIDATION_LEAK)
    return parts, [*leaked, *leaks, *shared]


def move(rows: Sequence[Row], part: Part, fraction: float, seed: int, out_of: tuple[Part | None, ...]) -> list[Row]:
    """The same rows, about `fraction` of those `out_of` these parts now in `part`: whole groups, else questions."""
    open_rows = [index for index, row in enumerate(rows) if row.part in out_of]
    examples = [rows[index].example for index in open_rows]
    groups = [normalise_name(example.group) or question_key(example) for example in examples]
    chosen = {open_rows[place] for place in carve(groups, fraction, seed)}
    return [replace(row, part=part) if index in chosen else row for index, row in enumerate(rows)]


def take_samples(
    parts: dict[str, list[Row]], config: DataConfig, seed: int
) -> tuple[dict[str, list[Row]], dict[str, int]]:
    """Seeded samples as the recipe limits them; validation shrinks as training does, but keeps a row."""
    sizes: dict[str, int | None] = {"train": config.max_train_rows, "validation": None, "test": config.max_test_rows}
    count = len(parts["train"])
    if config.max_train_rows and config.max_train_rows < count and parts["validation"]:
        sizes["validation"] = max(1, round(len(parts["validation"]) * config.max_train_rows / count))
    taken = {name: [rows[index] for index in sample(len(rows), sizes[name], seed)] for name, rows in parts.items()}
    return taken, {name: len(parts[name]) - len(taken[name]) for name in PARTS}


def refuse_mostly_bad(rows_read: dict[str, int], dropped: Sequence[Dropped]) -> None:
    """A file that loses more than half its rows is the wrong file or wrongly described."""
    for file, count in rows_read.items():
        lost = [one for one in dropped if one.file == file]
        if 2 * len(lost) <= count:
            continue
        firsts = {one.fault: one for one in reversed(lost)}
        named = "; ".join(
            f"{sum(one.fault == fault for one in lost)} × {fault.value}, first in row {one.row} ({one.reason})"
            for fault, one in firsts.items()
        )
        todo = f"check data.source, data.path and data.columns, or repair the file: {named}"
        raise DataError(f"{len(lost)} of {count} rows would be dropped", where=file, todo=todo)


def write(source: Source, prepared: Prepared, rundir: RunDir) -> list[Path]:
    """The rows and the suite."""
    files = {rundir.split(name): list(rows) for name, rows in prepared.parts.items()}
    if prepared.parts["test"] and source.suite:
        files[rundir.suite(source.suite)] = prepared.parts["test"]
    for path, rows in files.items():
        write_jsonl(path, rows)
    write_jsonl(rundir.split("dropped"), prepared.dropped)
    return [*files, rundir.split("dropped")]
