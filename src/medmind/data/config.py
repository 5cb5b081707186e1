"""Settings of the data stage and their defaults."""

from typing import Literal

from pydantic import Field

from medmind.core.config import StageConfig


class DataConfig(StageConfig):
    source: str = "terms"
    """An adapter: terms, four_part, medquad, pubmedqa, jsonl, csv, nano_corpus."""
    path: str = ""
    """The file or folder the adapter reads; empty for data that ships with the package."""
    task: Literal["terms", "qa", "choice", "text"] = "qa"
    columns: dict[str, str] = {}
    """For jsonl and csv: question, answer and, if there is one, group, context, id → the file's own column."""
    system_prompt: str = ""
    """Put before every question, the same in training, evaluation, chat and export."""
    validation_fraction: float = Field(default=0.1, ge=0, lt=1)
    test_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Used where the source does not fix its own test rows."""
    max_train_rows: int | None = Field(default=None, ge=1)
    """A seeded sample of the training rows, never a prefix."""
    max_test_rows: int | None = Field(default=None, ge=1)

    def conflicts(self) -> list[str]:
        found = []
        if self.validation_fraction + self.test_fraction >= 1:
            found.append("data.validation_fraction and data.test_fraction leave nothing to train on")
        if self.columns and self.source not in ("jsonl", "csv"):
            found.append(f'data.columns has no effect with data.source "{self.source}"; it is for jsonl and csv')
        return found
