"""The base models medmind knows by name; a folder or a Hub id of a known family works too."""

from pathlib import Path

from medmind.core.errors import UsageError
from medmind.core.jsonl import read_json
from medmind.core.registry import did_you_mean
from medmind.models.spec import ModelSpec

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
LINEAR = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
NANO = Path(__file__).parent / "nano"

CATALOG = (
    ModelSpec("nano", str(NANO), "mistral", "mistral-v3", 1024, "Apache-2.0", LINEAR, local=True),
    ModelSpec("Mistral-7B-v0.3", "mistralai/Mistral-7B-v0.3", "mistral", "mistral-v3", 32768, "Apache-2.0", LINEAR),
    ModelSpec(
        "Mistral-7B-Instruct-v0.3",
        "mistralai/Mistral-7B-Instruct-v0.3",
        "mistral",
        "mistral-v3",
        32768,
        "Apache-2.0",
        LINEAR,
    ),
)
RENDERER_OF_FAMILY = {"mistral": "mistral-v3"}


def find_model(name: str) -> ModelSpec:
    """A catalogue name (case does not matter), a folder, or a Hub id of a catalogue row."""
    for spec in CATALOG:
        if name.lower() in (spec.id.lower(), spec.source.lower()):
            return spec
    if Path(name).is_dir():
        return describe_folder(Path(name))
    known = [spec.id for spec in CATALOG]
    raise UsageError(
        f'unknown model "{name}"{did_you_mean(name, known)}',
        todo=f"known: {', '.join(known)}; or the path of a Hugging Face checkpoint folder",
    )


def describe_folder(folder: Path) -> ModelSpec:
    """The facts of a checkpoint folder, read from its own config."""
    file = folder / "config.json"
    config = read_json(file)
    family = str(config.get("model_type", "")) if isinstance(config, dict) else ""
    if family not in RENDERER_OF_FAMILY:
        raise UsageError(
            f'model family "{family}" is not supported',
            where=str(file),
            todo=f"supported: {', '.join(RENDERER_OF_FAMILY)}",
        )
    context = config.get("max_position_embeddings")
    if not isinstance(context, int) or context < 1:
        raise UsageError(
            "max_position_embeddings is not a number of tokens", where=str(file), todo="fetch the checkpoint again"
        )
    return ModelSpec(
        folder.name, str(folder), family, RENDERER_OF_FAMILY[family], context, "unknown", LINEAR, local=True
    )
