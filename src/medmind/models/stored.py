"""The tensors of a checkpoint, each read when it is asked for: a model is never in memory a second time."""

from dataclasses import dataclass
from pathlib import Path
from types import EllipsisType

import torch

from medmind.models.weights import list_weights, open_weights

PIECE = 2**22
"""Numbers widened at a time."""


@dataclass(frozen=True)
class StoredTensor:
    file: Path
    name: str

    def __getitem__(self, whole: EllipsisType) -> torch.Tensor:
        """A view of the file of its own: its pages go with this tensor, not with the last of the file."""
        with open_weights(self.file) as file:
            tensor: torch.Tensor = file.get_tensor(self.name)
        return tensor

    @property
    def dtype(self) -> torch.dtype:
        return self[...].dtype

    def widen(self) -> torch.Tensor:
        """A copy in float32; the file's own numbers are in memory only a piece at a time."""
        shape = self[...].shape
        wide, step = torch.empty(shape), max(1, PIECE * shape[0] // shape.numel())
        for start in range(0, shape[0], step):
            wide[start : start + step] = self[...][start : start + step]
        return wide


def open_tensors(folder: Path) -> dict[str, StoredTensor]:
    found: dict[str, StoredTensor] = {}
    for path in list_weights(folder):
        with open_weights(path) as file:
            found |= {name: StoredTensor(path, name) for name in file.keys()}  # noqa: SIM118
    return found
