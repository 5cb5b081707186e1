"""Settings of the report."""

from pydantic import Field

from medmind.core.config import StageConfig


class ReportConfig(StageConfig):
    price_per_hour: float = Field(default=0.0, ge=0)
    """What an hour of this machine costs, for the cost line; the currency is the reader's own."""
    examples: int = Field(default=5, ge=0)
    """How many answers stand side by side, a seeded sample."""
