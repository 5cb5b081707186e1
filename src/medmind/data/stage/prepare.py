"""The data stage: a source's rows, checked, split, compared with what they will be tested on, and written."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from medmind.core.errors import UsageError
from medmind.core.jsonl import write_json, write_jsonl
from medmind.core.rundir import RunDir
from medmind.core.types import Example
from medmind.data.canaries import canary_suite, describe_canaries, plant
from medmind.data.config import DataConfig
from medmind.data.leaks.index import LeakIndex
from medmind.data.leaks.report import refuse_leaks
from medmind.data.provenance import facts, origins
from medmind.data.quality.inspect import Inspector
from medmind.data.quality.lengths import Lengths
from medmind.data.sources.known import SOURCES
from medmind.data.sources.seam import Part
from medmind.data.stage.assemble import Prepared, assemble
from medmind.data.stage.report import Tally, describe, tell
from medmind.data.stage.suites import Suite, read_suites

TRAINED: tuple[Part | None, ...] = ("train", "validation", None)
"""Parts whose lengths count: what the source keeps for test or pre-training is not learnt."""
HALF_MADE = ".data.tmp"
BEFORE = "before"
"""Where the data of before lie until the new ones have their place."""


def prepare(config: DataConfig, rundir: RunDir, seed: int, lengths: Lengths | None = None) -> list[Path]:
    """Runs the stage; returns every path written. Whatever raises leaves the data of before as they were.

    With `lengths` the report says how long rows are in tokens.
    """
    refuse_own_name(config)
    with workshop(rundir) as new:
        inspector = Inspector(config, lengths, TRAINED)
        prepared, suites = assemble(config, seed, new.root, inspector), read_suites(config, new.root)
        report = write(prepared, suites, config, seed, new) | {"quality": inspector.report()}
        write_jsonl(new.findings, inspector.hits())
        read = origins(config)
        write_json(new.licences, read)
        write_json(new.data_report, report)
        written = [path.relative_to(new.root) for path in new.data.rglob("*") if path.is_file()]
        if rundir.data.exists():
            rundir.data.rename(new.root / BEFORE)
        new.data.rename(rundir.data)
    rundir.note(data=facts(config, report, read))
    tell(report, rundir.split("dropped"))
    return [rundir.root / path for path in sorted(written)]


def refuse_own_name(config: DataConfig) -> None:
    """A suite named as the source's own test rows would take their place, and its rows would be compared with none."""
    own = SOURCES.get(config.source).suite_of(config)
    if own in config.suites:
        what = f'data.suites.{own}: the test rows of data.source "{config.source}" have this name'
        raise UsageError(what, todo="give the suite another name")


def tidy(rundir: RunDir) -> None:
    """What a killed stage left: half-made data go, and those of before get their place back if they had lost it."""
    half = rundir.root / HALF_MADE
    if (half / BEFORE).exists() and not rundir.data.exists():
        (half / BEFORE).rename(rundir.data)
    if half.exists():
        shutil.rmtree(half)


@contextmanager
def workshop(rundir: RunDir) -> Iterator[RunDir]:
    """A run directory within the run directory, removed at the end; so is the outer one if nothing came into it."""
    new = RunDir(rundir.root / HALF_MADE)
    tidy(rundir)
    new.root.mkdir(parents=True)
    try:
        yield new
    finally:
        shutil.rmtree(new.root)
        with suppress(OSError):
            rundir.root.rmdir()


def write(prepared: Prepared, suites: dict[str, Suite], config: DataConfig, seed: int, new: RunDir) -> dict[str, Any]:
    """Writes the rows and returns the report; a leak above the bound raises before anything counts."""
    tallies = {name: Tally() for name in prepared.parts}
    own = SOURCES.get(config.source).suite_of(config)
    leaks = LeakIndex({name: suite.rows for name, suite in suites.items()})
    files: dict[str, Iterable[Example]] = {
        "train": plant(watched(prepared.parts["train"], leaks), config.canaries, seed),
        "validation": watched(prepared.parts["validation"], leaks),
        "test": prepared.parts["test"],
    }
    for name, rows in files.items():
        write_jsonl(new.split(name), tallies[name].count(rows))
    found = leaks.report()
    swept = {own or "test": prepared.swept.cleaned()} if prepared.swept else {}
    found = found.model_copy(update={"suites": swept | found.suites, "allowed": config.allow_leaks})
    refuse_leaks(found, "take these rows out, or say in the recipe why not: data.allow_leaks")
    for name, suite in suites.items():
        write_jsonl(new.suite(name), suite.rows)
    if own and prepared.parts["test"]:
        write_jsonl(new.suite(own), prepared.parts["test"])
    if config.canaries.count:
        write_jsonl(new.suite("canary"), canary_suite(config.canaries, seed))
    write_jsonl(new.split("dropped"), chain(prepared.dropped, *(suite.dropped for suite in suites.values())))
    return describe(config, seed, tallies, prepared.dropped, prepared.rows_read) | {
        "left_to_pretraining": prepared.left_to_pretraining,
        "not_sampled": prepared.not_sampled,
        "uneven": prepared.uneven,
        "phi": prepared.phi,
        "shared_topics": prepared.shared_topics,
        "suites": {name: suite.describe() for name, suite in suites.items()},
        "leaks": found.model_dump(mode="json"),
        "canaries": describe_canaries(config.canaries, seed),
    }


def watched(rows: Iterable[Example], leaks: LeakIndex) -> Iterator[Example]:
    for row in rows:
        leaks.add(row)
        yield row
