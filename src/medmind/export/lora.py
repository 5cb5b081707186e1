"""A plain LoRA adapter read beside its base: what each matrix gains, one at a time, the model never in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from medmind.core.errors import DataError
from medmind.export.shards import is_finite
from medmind.models import adapters
from medmind.models.load import load_random
from medmind.models.spec import ModelSpec
from medmind.models.stored import StoredTensor
from medmind.models.weights import open_weights

PLAIN = {
    *("r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("task_type", "base_model_name_or_path", "revision", "inference_mode", "peft_version"),
}
"""Settings of PEFT under which a matrix gains scale * B @ A and nothing else; any other that is set is not plain."""
PLAIN_STARTS = (True, False, "gaussian", "orthogonal")
"""How A and B began; other starts change the base as well."""
PREFIX = "base_model.model."
ONE_ADAPTER = "default"


@dataclass(frozen=True)
class Update:
    """What one matrix gains."""

    a: StoredTensor
    b: StoredTensor
    scale: float

    @property
    def rank(self) -> int:
        return int(self.a[...].shape[0])

    def delta(self) -> torch.Tensor:
        """In float32, in the order PEFT computes it: the same bits."""
        return (self.b[...].float() @ self.a[...].float()) * self.scale


@dataclass(frozen=True)
class PlainLora:
    """Both by the name of the base's weight; `replaced` are the modules trained whole."""

    updates: dict[str, Update]
    replaced: dict[str, StoredTensor]

    @property
    def names(self) -> set[str]:
        return {*self.updates, *self.replaced}

    def apply(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        """The trained weight in the dtype of the base; one that nothing trained is returned as it is."""
        if name in self.replaced:
            new = self.replaced[name][...].float()
        elif name in self.updates:
            new = weight.float()
            new += self.updates[name].delta()
        else:
            return weight
        if not is_finite(new):
            raise DataError(
                f"the adapter cannot be merged: {name} would hold a value that is not a number",
                todo="train again with a lower learning rate",
            )
        return new.to(weight.dtype)


def read_plain(spec: ModelSpec, trained: Path) -> PlainLora | None:
    """None for a kind that only PEFT knows how to merge. Refused: one that does not fit the base, weight by weight."""
    from peft import LoraConfig, PeftConfig
    from peft.tuners.lora import LoraLayer

    adapters.check_base(spec, trained)
    config: Any = PeftConfig.from_pretrained(str(trained))
    if not isinstance(config, LoraConfig) or not is_plain(config):
        return None
    names, file = adapters.read_names(trained), trained / adapters.WEIGHTS
    if any(".lora_embedding_" in name for name in names):
        return None
    model = put_on_shapes(config, spec, trained)
    check_fit(model, spec, file, names)
    scales = {
        f"{path.removeprefix(PREFIX)}.weight": module.scaling[ONE_ADAPTER]
        for path, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }
    stored = {name: StoredTensor(file, name) for name in names}
    updates = {
        name: Update(stored.pop(of(name, "lora_A")), stored.pop(of(name, "lora_B")), scale)
        for name, scale in scales.items()
    }
    return PlainLora(updates, {name.removeprefix(PREFIX): tensor for name, tensor in stored.items()})


def is_plain(config: Any) -> bool:
    said, usual = config.to_dict(), type(config)().to_dict()
    different = {key for key, value in said.items() if key not in usual or value != usual[key]}
    return different <= PLAIN | {"init_lora_weights"} and config.init_lora_weights in PLAIN_STARTS


def of(weight: str, part: str) -> str:
    return f"{PREFIX}{weight.removesuffix('weight')}{part}.weight"


def put_on_shapes(config: Any, spec: ModelSpec, trained: Path) -> Any:
    """The adapted model without a number in it: PEFT itself says which weights it has, and how they are scaled."""
    from peft import get_peft_model

    try:
        with torch.device("meta"):
            base = load_random(spec, seed=0)
            base.name_or_path = config.base_model_name_or_path or ""
            return get_peft_model(base, config)
    except ValueError as error:
        todo = "name the base it was trained on"
        raise DataError(f"the adapter does not fit {spec.id}: {error}", where=str(trained), todo=todo) from None


def check_fit(model: Any, spec: ModelSpec, file: Path, names: set[str]) -> None:
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
    try:
        with open_weights(file) as weights:
            found = {name: tuple(weights.get_slice(name).get_shape()) for name in names}
    except SafetensorError as error:
        raise DataError(f"not a safetensors file: {error}", where=str(file), todo="run the train stage again") from None
    if expected != found:
        odd = min(name for name in expected.keys() | found if expected.get(name) != found.get(name))
        raise DataError(
            f"the adapter does not fit {spec.id}: {len(expected.keys() - found)} weights missing, "
            f"{len(found.keys() - expected)} without a place; {odd} is {found.get(odd, 'absent')}, "
            f"expected {expected.get(odd, 'absent')}",
            where=str(file),
            todo="name the base it was trained on",
        )
