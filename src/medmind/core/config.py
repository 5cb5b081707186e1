"""Base of every stage's config: closed, frozen, and able to say which of its settings contradict each other."""

from pydantic import BaseModel, ConfigDict


class StageConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def conflicts(self) -> list[str]:
        """Settings that are each valid and together are not; all of them, in words."""
        return []
