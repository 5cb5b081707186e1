"""An adapter on its base: PEFT only warns when a weight finds no place, and never asks which base it was trained on."""

import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel

from medmind.core.errors import DataError
from medmind.core.jsonl import read_json
from medmind.models.catalog import is_hub_id
from medmind.models.spec import ModelSpec
from medmind.models.weights import open_weights

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FIRST = "default"
"""PEFT's own name for an adapter that has none."""
COPY = ".base_layer.weight"
"""Of an embedding or output layer that has an adapter PEFT saves the frozen weights too; the base has them."""
COMMIT = re.compile(r"[0-9a-f]{40}")


def check_base(spec: ModelSpec, trained: Path) -> None:
    """Two models of the Hub, or two commits of one, are not the same base; of a folder only the shape can tell."""
    config = read_json(trained / CONFIG)
    base, commit = config.get("base_model_name_or_path") or "", config.get("revision") or ""
    if spec.local or not is_hub_id(base):
        return
    pinned = f"{base}@{commit}" if COMMIT.fullmatch(commit) else base
    if base.lower() != spec.source.lower() or (pinned != base and commit != spec.revision):
        raise DataError(
            f"the adapter was trained on {pinned}, not on {spec.address}",
            where=str(trained / CONFIG),
            todo=f"model: {pinned}",
        )


def read_names(trained: Path) -> set[str]:
    file = trained / WEIGHTS
    if not file.is_file():
        raise DataError(f"no {WEIGHTS}", where=str(trained), todo="run the train stage again")
    try:
        with open_weights(file) as weights:
            return {name for name in weights.keys() if not name.endswith(COPY)}  # noqa: SIM118
    except SafetensorError as error:
        raise DataError(f"not a safetensors file: {error}", where=str(file), todo="run the train stage again") from None


def put_on(base: PreTrainedModel, spec: ModelSpec, trained: Path, name: str = FIRST) -> Any:
    """The adapted model, every weight of the file in its place; a further adapter gets a name of its own."""
    from peft import PeftModel, get_peft_model_state_dict

    names, todo = read_names(trained), "name the base it was trained on"
    try:
        if isinstance(base, PeftModel):
            model: Any = base
            model.load_adapter(str(trained), name, autocast_adapter_dtype=False)
        else:
            model = PeftModel.from_pretrained(base, str(trained), name, autocast_adapter_dtype=False)
    except (ValueError, RuntimeError, SafetensorError) as error:
        raise DataError(f"the adapter does not fit {spec.id}: {error}", where=str(trained), todo=todo) from None
    expected = set(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))
    if expected != names:
        raise DataError(
            f"the adapter does not fit {spec.id}: {len(expected - names)} weights missing, "
            f"{len(names - expected)} without a place, such as {min(expected ^ names)}",
            where=str(trained / WEIGHTS),
            todo=todo,
        )
    return model
