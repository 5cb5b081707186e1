"""Settings of evaluation."""

from pydantic import Field

from medmind.core.config import StageConfig


class EvaluateConfig(StageConfig):
    suites: tuple[str, ...] = ()
    """Names of files the data stage wrote to data/suites/; empty: all of them."""
    max_new_tokens: int = Field(default=512, ge=1)
    batch_size: int = Field(default=16, ge=1)
    max_items: int | None = Field(default=None, ge=1)
    """A seeded sample of each suite, never a prefix."""
