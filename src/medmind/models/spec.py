"""What a base model is: one row of facts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelSpec:
    """`source` is a folder or a Hub id; `renderer` names the chat format; `licence` is an SPDX name."""

    id: str
    source: str
    family: str
    renderer: str
    context: int
    licence: str
    lora_targets: tuple[str, ...]
    local: bool = False
