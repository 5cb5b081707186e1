"""The sets of data.suites: each read through its own source, its rows checked like any, what is to be asked taken."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medmind.core.errors import DataError
from medmind.core.sampling import stratified
from medmind.core.types import Example
from medmind.data.config import DataConfig
from medmind.data.sources.seam import Dropped
from medmind.data.stage.decide import TEST, VALIDATION, alive
from medmind.data.stage.intake import Intake
from medmind.data.stage.report import count_faults
from medmind.data.stage.spool import OPEN, OnDisk

SEED = 0
"""Of max_items: not the recipe's, so that runs of different seeds are asked the same."""


@dataclass(frozen=True)
class Suite:
    rows: OnDisk[Example]
    dropped: OnDisk[Dropped]
    rows_read: dict[str, int]
    """By file."""
    phi: dict[str, Any]

    def describe(self) -> dict[str, Any]:
        """What report.json says of it."""
        dropped = {"total": len(self.dropped), "by_reason": count_faults(self.dropped)}
        return {"rows_by_file": self.rows_read, "rows": len(self.rows), "dropped": dropped, "phi": self.phi}


def read_suites(config: DataConfig, folder: Path) -> dict[str, Suite]:
    """By the recipe's name for each."""
    return {
        name: read_suite(one.as_data().model_copy(update={"phi": config.phi}), folder, one.max_items)
        for name, one in config.suites.items()
    }


def read_suite(config: DataConfig, folder: Path, max_items: int | None) -> Suite:
    """The test rows where the source says which they are, else those it leaves open, else validation."""
    intake = Intake(config, folder, whole=True)
    intake.refuse_mostly_bad()
    used = alive(intake.rows)
    for part in (TEST, OPEN, VALIDATION):
        indexes = np.flatnonzero(used & (intake.rows["part"] == part))
        if len(indexes):
            if max_items:
                answers = [one.target if one.options else "" for one in intake.examples(indexes)]
                indexes = indexes[stratified(answers, max_items, SEED)]
            return Suite(intake.examples(indexes), intake.dropped, intake.rows_read, intake.screen.summary())
    raise DataError("no row of it is for evaluation", where=config.path, todo="check data.suites")
