"""What becomes of every row: repeats, parts, questions asked twice, samples; arrays of facts in, arrays out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medmind.core.sampling import sample
from medmind.data.config import DataConfig
from medmind.data.sources.seam import Fault, Part
from medmind.data.split import carve
from medmind.data.stage.spool import FAULTS, OPEN, PARTS, Indexes

Rows = npt.NDArray[Any]
"""One FACTS record a row."""
USED: tuple[Part, ...] = PARTS[:3]
TRAIN, VALIDATION, TEST, PRETRAIN = range(len(PARTS))
Open = tuple[int, ...]
UNEVEN = 0.2
"""Share of what was asked for by which a part may miss it before a person is told."""


def alive(rows: Rows) -> npt.NDArray[np.bool_]:
    """Rows that are still in."""
    used: npt.NDArray[np.bool_] = (rows["fault"] == OPEN) & (rows["part"] != PRETRAIN)
    return used


def drop(rows: Rows, indexes: Indexes, fault: Fault, others: Indexes) -> None:
    rows["fault"][indexes] = FAULTS.index(fault)
    rows["other"][indexes] = others


REPEATS = (("pair", Fault.DUPLICATE), ("id", Fault.SAME_ID))


def drop_repeats(rows: Rows, kinds: Sequence[tuple[str, Fault]] = REPEATS) -> None:
    """Keeps every question with the same answer once and every id once; test rows before all others."""
    strength = np.array([2, 1, 0, 2, 2])[rows["part"]]  # the last stands for OPEN, -1
    for name, fault in kinds:
        order = np.flatnonzero(alive(rows))
        order = order[np.argsort(strength[order], kind="stable")]
        _, first, places = np.unique(rows[name][order], return_index=True, return_inverse=True)
        firsts = order[first[places]]
        again = firsts != order
        drop(rows, order[again], fault, firsts[again])


def assign_parts(rows: Rows, groups: dict[int, str], config: DataConfig, seed: int) -> dict[str, dict[str, int]]:
    """Test is carved out of rows the source left open, validation also out of its train rows; both fractions are of
    the rows before any carving. Returns the parts that whole groups made larger or smaller than asked for.
    """
    uneven = {}
    used = alive(rows)
    before = np.isin(rows["part"][used], (OPEN, TRAIN)).sum()
    asked, taken = move(rows, groups, TEST, config.test_fraction, seed, (OPEN,))
    if abs(asked - taken) > UNEVEN * asked:
        uneven["test"] = {"asked_for": asked, "rows": taken}
    if not (used & (rows["part"] == VALIDATION)).any():
        left = np.isin(rows["part"][used], (OPEN, TRAIN)).sum()
        wanted = min(config.validation_fraction * before, config.max_validation_rows)
        asked, taken = move(rows, groups, VALIDATION, wanted / max(left, 1), seed, (OPEN, TRAIN))
        if abs(asked - taken) > UNEVEN * asked:
            uneven["validation"] = {"asked_for": asked, "rows": taken}
    rows["part"][used & (rows["part"] == OPEN)] = TRAIN
    return uneven


def move(rows: Rows, groups: dict[int, str], part: int, fraction: float, seed: int, out_of: Open) -> tuple[int, int]:
    """Puts about `fraction` of the rows of these parts into `part`: whole groups, else whole questions. Returns how
    many were asked for, and how many it are.
    """
    indexes = np.flatnonzero(alive(rows) & np.isin(rows["part"], out_of))
    chosen = carve(rows["group"][indexes], rows["stratum"][indexes], groups, fraction, seed)
    rows["part"][indexes[chosen]] = part
    return round(fraction * len(indexes)), int(chosen.sum())


def drop_leaks(rows: Rows) -> None:
    """No question stands in two parts: test keeps it before validation, validation before train."""
    for part, held_out, fault in (
        (VALIDATION, TEST, Fault.LEAK),
        (TRAIN, TEST, Fault.LEAK),
        (TRAIN, VALIDATION, Fault.VALIDATION_LEAK),
    ):
        asks = alive(rows) & rows["asks"]
        held = np.flatnonzero(asks & (rows["part"] == held_out))[::-1]
        asked, last = np.unique(rows["question"][held], return_index=True)
        indexes = np.flatnonzero(asks & (rows["part"] == part))
        leaks = indexes[np.isin(rows["question"][indexes], asked)]
        drop(rows, leaks, fault, held[last[np.searchsorted(asked, rows["question"][leaks])]])


def take_samples(rows: Rows, config: DataConfig, seed: int) -> tuple[dict[str, Indexes], dict[str, int]]:
    """The rows of each part and how many good ones were left out, as the recipe limits them; validation shrinks as
    training does, but keeps a row.
    """
    used = alive(rows)
    parts = {str(name): np.flatnonzero(used & (rows["part"] == part)) for part, name in enumerate(USED)}
    sizes: dict[str, int | None] = {"train": config.max_train_rows, "validation": None, "test": config.max_test_rows}
    count = len(parts["train"])
    if config.max_train_rows and config.max_train_rows < count and len(parts["validation"]):
        sizes["validation"] = max(1, round(len(parts["validation"]) * config.max_train_rows / count))
    taken = {name: part[sample(len(part), sizes[name], seed)] for name, part in parts.items()}
    return taken, {name: len(parts[name]) - len(taken[name]) for name in parts}
