"""Settings of evaluation."""

from typing import Literal

from pydantic import Field

from medmind.core.config import StageConfig


class EvaluateConfig(StageConfig):
    suites: tuple[str, ...] = ()
    """Names of files the data stage wrote to data/suites/; empty: all of them."""
    max_new_tokens: int = Field(default=512, ge=1)
    batch_size: int = Field(default=16, ge=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto: float32 for a model under a billion parameters on a CPU, else as training's auto."""
    load_in_4bit: bool = False
    """NF4, base and tuned alike: for a GPU that cannot hold the whole model."""
    max_items: int | None = Field(default=None, ge=1)
    """A seeded sample of each suite, never a prefix."""
    protocols: tuple[Literal["lm-eval", "helm", "biomistral", "chat", "yes-no-100"], ...] = ("lm-eval",)
    """How suites of choices are asked beside generation; of the first are choice_accuracy and the likelihoods."""
    margin: float = Field(default=0.02, gt=0)
    """A loss up to this, in the figure's own unit, is called no worse: 0.02 is two points, or 0.02 nats a token."""
    samples: int = Field(default=0, ge=0)
    """How often each question is answered once more, by chance, to see how far the model agrees with itself."""
    temperature: float = Field(default=0.7, gt=0)
    """Of these further replies; all else is answered without chance."""
    support_model: str = ""
    """A classifier of natural language inference (a folder, or org/name of the Hub) to hold sentences of free answers
    against their texts; unsaid, the rules alone do."""
    allow_missing: bool = False
    """With predictions from elsewhere: a question without one is counted as wrong instead of refused."""

    def conflicts(self) -> list[str]:
        found = []
        if len(set(self.protocols)) < len(self.protocols):
            found.append("evaluate.protocols names one twice")
        if self.protocols[:1] == ("yes-no-100",):
            found.append('evaluate.protocols: "yes-no-100" gives no likelihoods and cannot stand first')
        if self.samples == 1:
            found.append("evaluate.samples: 1 reply agrees with nothing; at least two")
        return found
