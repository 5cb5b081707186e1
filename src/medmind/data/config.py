"""Settings of the data stage and their defaults."""

import re
from typing import Any, Literal

from pydantic import Field, PositiveInt

from medmind.core.config import StageConfig
from medmind.core.registry import did_you_mean
from medmind.data.filters import FILTERS
from medmind.data.kinds import KINDS, MAPPED_ROLES, Kind
from medmind.privacy.spans import Category

SUITE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
RESERVED = ("test", "canary")
COLUMN_ROLES = (*MAPPED_ROLES, "messages")


def _usual_task(fields: dict[str, Any]) -> Any:
    return KINDS.get(fields.get("source", ""), Kind(("qa",))).tasks[0]


class CanaryConfig(StageConfig):
    count: int = Field(default=0, ge=0, le=1000)
    """Synthetic patients to plant among the training rows; 0: none."""
    repeats: tuple[PositiveInt, ...] = Field(default=(1, 2, 4, 8), min_length=1)
    """How often a patient is planted, one patient after the other."""
    candidates: int = Field(default=255, ge=1)
    """How many other secrets each is ranked among: 255 can show 8 bits, at a cost in proportion."""


class PhiConfig(StageConfig):
    action: Literal["off", "report", "block", "redact", "pseudonym"] = "report"
    """What becomes of a row with a patient identifier: counted, left out, or kept with the identifier replaced by its
    kind or by a stand-in that is the same throughout the run."""
    require: tuple[Category, ...] = ()
    """Kinds that must be looked for. Names and places need medmind[ner], without which the stage stops."""

    def conflicts(self) -> list[str]:
        idle = self.require and self.action == "off"
        return ['data.phi.require has no effect with data.phi.action "off"'] if idle else []


class SourceConfig(StageConfig):
    source: str = "terms"
    """One of KINDS."""
    path: str = ""
    """The file, the folder or the Hub data set (org/name or org/name@revision) the source reads; empty for data that
    ships with the package."""
    files: tuple[str, ...] = ()
    """Which files of a folder or a Hub data set: patterns such as train*.parquet. Unsaid, all the source can read."""
    licence: str = ""
    """What may be done with these rows, where you know it: CC BY 4.0. Unsaid, a data set of the Hub says it in its
    card, and a published schema is taken at its authors' word, with a flag that nobody checked the file."""
    columns: dict[str, str] = {}
    """For files of the user's own: a role of COLUMN_ROLES → the file's own column. Unsaid, question and answer are
    columns of these names, and so is what holds a conversation."""
    setting: Literal["reasoning-required", "reasoning-free", "question-only"] = "reasoning-required"
    """PubMedQA: asked with the abstract without its conclusion, with the conclusion alone, or with nothing."""
    labels: Literal["yes/no/maybe", "yes/no"] = "yes/no/maybe"
    """PubMedQA: with yes/no, the questions decided by maybe are left out."""
    first_option: Literal[0, 1] | None = None
    """The number of the first option where right answers are numbers; unsaid, the numbers themselves must tell."""
    own_system_prompt: Literal["drop", "ignore"] = "drop"
    """A conversation with another system message than data.system_prompt: left out, or learnt without that message."""


class SuiteConfig(SourceConfig):
    """A set to evaluate on, read through its own source; only its test rows where the source says which they are."""

    source: str
    max_items: int | None = Field(default=None, ge=1)
    """A sample of its rows, the same for every run, every answer in its share; never a prefix."""

    def as_data(self) -> "DataConfig":
        return DataConfig(**self.model_dump(exclude={"max_items"}))


class DataConfig(SourceConfig):
    task: Literal["terms", "qa", "choice", "multiple_choice", "reasoned", "text"] = Field(default_factory=_usual_task)
    """Unsaid: what the source's rows ask."""
    system_prompt: str = ""
    """Put before every question, the same in training, evaluation, chat and export."""
    validation_fraction: float = Field(default=0.1, ge=0, lt=1)
    test_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Used where the source does not fix its own test rows."""
    max_validation_rows: int = Field(default=200, ge=1)
    """Enough to watch the loss by; more would cost time at every measurement and rows to learn from."""
    max_train_rows: int | None = Field(default=None, ge=1)
    """A seeded sample of the training rows, never a prefix; validation shrinks in proportion."""
    max_test_rows: int | None = Field(default=None, ge=1)
    phi: PhiConfig = PhiConfig()
    filters: dict[str, Literal["keep", "drop"]] = {}
    """Rows to take out beyond those that cannot be used, by the name of a finding: urls: drop. Unsaid: keep."""
    canaries: CanaryConfig = CanaryConfig()
    suites: dict[str, SuiteConfig] = {}
    """More sets to evaluate on, by name; training rows that stand in one of them stop the stage."""
    allow_leaks: str = ""
    """Why to train all the same; the report and the model card repeat it."""

    def conflicts(self) -> list[str]:
        found = []
        if self.validation_fraction + self.test_fraction >= 1:
            found.append("data.validation_fraction and data.test_fraction leave nothing to train on")
        if self.source not in KINDS:
            hint, known = did_you_mean(self.source, KINDS), ", ".join(KINDS)
            found.append(f'data.source "{self.source}" is not known{hint}: {known}')
        else:
            found += self._unfit(KINDS[self.source])
        found += self.phi.conflicts()
        if self.allow_leaks and not self.allow_leaks.strip():
            found.append("data.allow_leaks is blank; say why, or leave it out")
        if self.canaries.count and self.task == "text":
            found.append('data.canaries.count needs questions and answers: it has no effect with data.task "text"')
        if self.licence and not self.path:
            found.append("data.licence is for data of your own: it has no effect without data.path")
        roles = KINDS[self.source].roles if self.source in KINDS else ()
        for role in self.columns:
            if role not in COLUMN_ROLES:
                known = ", ".join(COLUMN_ROLES)
                found.append(f"data.columns.{role} is no role{did_you_mean(role, COLUMN_ROLES)}: {known}")
            elif roles and role not in roles:
                used = ", ".join(roles)
                found.append(f'data.columns.{role} has no effect with data.source "{self.source}", which uses {used}')
        for name in self.filters:
            if name not in FILTERS:
                found.append(f"data.filters.{name} is no check{did_you_mean(name, FILTERS)}: {', '.join(FILTERS)}")
        for name, suite in self.suites.items():
            if name in RESERVED:
                found.append(f"data.suites.{name} is the name of rows the stage writes itself; give the suite another")
            if not SUITE_NAME.fullmatch(name):
                found.append(f'data.suites: "{name}" cannot name a file; use small letters, digits, - and _')
            found += [fault.replace("data.", f"data.suites.{name}.", 1) for fault in suite.as_data().conflicts()]
        return found

    def _unfit(self, kind: Kind) -> list[str]:
        """What the source cannot do."""
        found = []
        if self.task not in kind.tasks:
            tasks = " or ".join(f'"{task}"' for task in kind.tasks)
            found.append(f'data.task "{self.task}" does not fit data.source "{self.source}", whose task is {tasks}')
        for key in sorted({key for one in KINDS.values() for key in one.keys} - {*kind.keys}):
            if getattr(self, key) != DataConfig.model_fields[key].default:
                users = ", ".join(name for name, one in KINDS.items() if key in one.keys)
                found.append(f'data.{key} has no effect with data.source "{self.source}"; it is for {users}')
        return found
