"""A recipe: the sections are the stages, each defined where its stage lives."""

from typing import Literal, get_args

from pydantic import Field

from medmind.core.config import StageConfig
from medmind.data.config import DataConfig
from medmind.evaluate.config import EvaluateConfig
from medmind.export.config import ExportConfig
from medmind.report.config import ReportConfig
from medmind.serve.config import ServeConfig
from medmind.train.config import TrainConfig

StageName = Literal["data", "train", "evaluate", "export", "report"]
"""In the order they run."""


class Recipe(StageConfig):
    name: str = "run"
    """Names the run directory, runs/<name>, unless --out does."""
    description: str = ""
    model: str = "nano"
    """A catalogue name, a Hub id of one, or a checkpoint folder."""
    trust_remote_code: bool = False
    """Whether a checkpoint may run Python code of its own."""
    seed: int = Field(default=0, ge=0)
    stages: tuple[StageName, ...] = get_args(StageName)
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    export: ExportConfig = ExportConfig()
    serve: ServeConfig = ServeConfig()
    report: ReportConfig = ReportConfig()

    def conflicts(self) -> list[str]:
        sections = (self.data, self.train, self.evaluate, self.export, self.serve, self.report)
        found = [fault for section in sections for fault in section.conflicts()]
        if self.stages != tuple(stage for stage in get_args(StageName) if stage in self.stages):
            found.append(f"stages must keep the order {', '.join(get_args(StageName))}, each at most once")
        if not self.stages:
            found.append("stages is empty: there is nothing to run")
        if (self.train.format == "text") != (self.data.task == "text"):
            found.append('train.format "text" and data.task "text" go together')
        if self.data.task == "text" and {"evaluate", "export"} & set(self.stages):
            found.append('data.task "text" has nothing to evaluate or export: set stages to [data, train, report]')
        return found
