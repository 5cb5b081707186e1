"""Settings of the data stage and their defaults."""

from typing import Any, Literal

from pydantic import Field

from medmind.core.config import StageConfig
from medmind.core.registry import did_you_mean

TASKS_OF_SOURCE: dict[str, tuple[str, ...]] = {
    "terms": ("terms",),
    "four_part": ("terms",),
    "medquad": ("qa",),
    "pubmedqa": ("choice",),
    "jsonl": ("qa", "terms"),
    "csv": ("qa", "terms"),
    "nano_corpus": ("text",),
}
"""What each source's rows can ask; the first is what data.task is when the recipe does not say."""
MAPPED = ("jsonl", "csv")
COLUMN_ROLES = ("question", "answer", "group", "context", "id")


def _usual_task(fields: dict[str, Any]) -> Any:
    return TASKS_OF_SOURCE.get(fields.get("source", ""), ("qa",))[0]


class DataConfig(StageConfig):
    source: str = "terms"
    """An adapter: terms, four_part, medquad, pubmedqa, jsonl, csv, nano_corpus."""
    path: str = ""
    """The file or folder the adapter reads; empty for data that ships with the package."""
    task: Literal["terms", "qa", "choice", "text"] = Field(default_factory=_usual_task)
    """Unsaid: what the source's rows ask."""
    columns: dict[str, str] = {}
    """For jsonl and csv: question, answer and, if there is one, group, context, id → the file's own column.
    Unsaid, the first two are columns of these names."""
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

    def conflicts(self) -> list[str]:
        found = []
        if self.validation_fraction + self.test_fraction >= 1:
            found.append("data.validation_fraction and data.test_fraction leave nothing to train on")
        if self.source not in TASKS_OF_SOURCE:
            hint, known = did_you_mean(self.source, TASKS_OF_SOURCE), ", ".join(TASKS_OF_SOURCE)
            found.append(f'data.source "{self.source}" is not known{hint}: {known}')
        elif self.task not in TASKS_OF_SOURCE[self.source]:
            tasks = " or ".join(f'"{task}"' for task in TASKS_OF_SOURCE[self.source])
            found.append(f'data.task "{self.task}" does not fit data.source "{self.source}", whose task is {tasks}')
        if self.columns and self.source not in MAPPED:
            found.append(f'data.columns has no effect with data.source "{self.source}"; it is for jsonl and csv')
        for role in self.columns:
            if role not in COLUMN_ROLES:
                known = ", ".join(COLUMN_ROLES)
                found.append(f'data.columns has no role "{role}"{did_you_mean(role, COLUMN_ROLES)}: {known}')
        return found
