"""The base models medmind knows by name; a folder or a Hub id of a known family works too, from its own config."""

import functools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from medmind.core.errors import UsageError
from medmind.core.jsonl import read_json
from medmind.core.registry import did_you_mean
from medmind.models.files import CONFIG, fetch, find_file, find_snapshot
from medmind.models.spec import NETWORK, ModelSpec, Shape

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
LINEAR = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
NANO = Path(__file__).parent / "nano"

MISTRAL_7B = Shape(4096, 14336, 32, 32, 8, 128, 32768, rope_theta=1e6, tie_word_embeddings=False)
LLAMA_ROPE = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LLAMA_1B = Shape(2048, 8192, 16, 32, 8, 64, 128256, 5e5, tie_word_embeddings=True, rope_scaling=LLAMA_ROPE)
LLAMA_3B = Shape(3072, 8192, 28, 24, 8, 128, 128256, 5e5, tie_word_embeddings=True, rope_scaling=LLAMA_ROPE)
SMOLLM2_135M = Shape(576, 1536, 30, 9, 3, 64, 49152, 1e5, tie_word_embeddings=True)
SMOLLM2_360M = Shape(960, 2560, 32, 15, 5, 64, 49152, 1e5, tie_word_embeddings=True)
NANO_SHAPE = Shape(256, 1024, 8, 4, 2, 64, 8192, 1e4, tie_word_embeddings=True)


def mistral(source: str, renderer: str, licence: str = "Apache-2.0", unverified: tuple[str, ...] = ()) -> ModelSpec:
    name = source.rpartition("/")[2]
    return ModelSpec(name, source, "mistral", renderer, 32768, licence, LINEAR, MISTRAL_7B, unverified=unverified)


def llama(name: str, renderer: str, shape: Shape) -> ModelSpec:
    licence, source = "LicenseRef-Llama-3.2", f"meta-llama/{name}"
    return ModelSpec(name, source, "llama", renderer, 131072, licence, LINEAR, shape, gated=True)


def smollm2(name: str, shape: Shape) -> ModelSpec:
    return ModelSpec(name, f"HuggingFaceTB/{name}", "llama", "chatml", 8192, "Apache-2.0", LINEAR, shape)


CATALOG = (
    ModelSpec("nano", str(NANO), "mistral", "mistral-v3", 1024, "Apache-2.0", LINEAR, NANO_SHAPE, local=True),
    mistral("mistralai/Mistral-7B-v0.3", "instruction-response"),
    mistral("mistralai/Mistral-7B-Instruct-v0.3", "mistral-v3"),
    mistral("alecocc/mistral-7B-SFT-medqa-graph-cot", "question-answer", "unknown", ("licence", "context", "shape")),
    llama("Llama-3.2-1B", "instruction-response", LLAMA_1B),
    llama("Llama-3.2-1B-Instruct", "llama-3", LLAMA_1B),
    llama("Llama-3.2-3B", "instruction-response", LLAMA_3B),
    llama("Llama-3.2-3B-Instruct", "llama-3", LLAMA_3B),
    smollm2("SmolLM2-135M-Instruct", SMOLLM2_135M),
    smollm2("SmolLM2-360M-Instruct", SMOLLM2_360M),
)
FAMILIES = ("mistral", "llama")
"""What config.json calls them: `model_type`."""
SIGNS = {
    "### Instruction:": "instruction-response",
    "### Question:": "question-answer",
    "[INST]": "mistral-v3",
    "<|start_header_id|>": "llama-3",
    "<|im_start|>": "chatml",
}
"""By what a chat template, or the control tokens, are known."""
BASE_RENDERER = "instruction-response"
HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
REVISION = re.compile(r"[\w./-]{1,200}")
FILES = (".yaml", ".yml", ".json", ".jsonl", ".gguf", ".safetensors")
TODO = "fetch the checkpoint again"


def find_model(name: str) -> ModelSpec:
    """A catalogue name (case does not matter), a folder, or a Hub id; of the last, the config is fetched.

    `@` and a branch, tag or commit may follow a name or an id.
    """
    if known := find_row(name):
        return known
    if Path(name).is_dir():
        return describe_folder(Path(name))
    if is_hub_id(name):
        return describe_hub(name)
    known_ids = [spec.id for spec in CATALOG]
    raise UsageError(
        f'unknown model "{name}"{did_you_mean(name, known_ids)}',
        todo=f"known: {', '.join(known_ids)}; or a Hub id, or the path of a Hugging Face checkpoint folder",
    )


def find_row(name: str) -> ModelSpec | None:
    name, at, revision = name.partition("@")
    row = next((spec for spec in CATALOG if name.lower() in (spec.id.lower(), spec.source.lower())), None)
    if row is None or not at:
        return row
    return replace(row, revision=revision) if not row.local and REVISION.fullmatch(revision) else None


def names_a_model(name: str) -> bool:
    """Whether a TARGET is a base model rather than a recipe or a run; asks the disk, never the Hub."""
    return find_row(name) is not None or (Path(name) / "config.json").is_file() or is_hub_id(name)


def is_hub_id(name: str) -> bool:
    """A misspelt file name must not be sent anywhere."""
    source, at, revision = name.partition("@")
    is_file = Path(source).suffix in FILES or Path(source).parent.exists() or source.startswith("runs/")
    return bool(HUB_ID.fullmatch(source)) and not is_file and (not at or bool(REVISION.fullmatch(revision)))


def check_facts(spec: ModelSpec) -> ModelSpec:
    """The commit for the revision; and for facts that no one could look up, what the model's own config says."""
    if spec.local:
        return spec
    spec = replace(spec, revision=find_snapshot(spec.source, spec.revision, spec.how_to_get).name)
    if "shape" not in spec.unverified:
        return spec
    file = find_file(spec, CONFIG)
    context, shape = read_shape(read_config(file), file)
    unverified = tuple(name for name in spec.unverified if name not in ("context", "shape"))
    return replace(spec, context=context, shape=shape, unverified=unverified)


def describe_folder(folder: Path) -> ModelSpec:
    """The facts of a checkpoint folder, read from its own files."""

    def find(name: str) -> Path | None:
        return folder / name if (folder / name).is_file() else None

    return replace(describe(str(folder), folder / CONFIG, find), local=True)


@functools.cache
def describe_hub(name: str) -> ModelSpec:
    """The facts of a Hub model, likewise."""
    source, _, revision = name.partition("@")
    revision = revision or "main"
    folder = find_snapshot(source, revision, NETWORK)
    spec = describe(source, folder / CONFIG, lambda file: fetch(source, file, revision))
    return replace(spec, revision=folder.name)


def describe(source: str, file: Path, find: Callable[[str], Path | None]) -> ModelSpec:
    """What config.json and its neighbours say; they do not say the licence."""
    config = read_config(file)
    family = config.get("model_type")
    if family not in FAMILIES:
        raise UsageError(
            f'model family "{family or ""}" is not supported', where=str(file), todo=f"supported: {', '.join(FAMILIES)}"
        )
    if config.get("quantization_config"):
        todo = "name the unquantised model: train.method qlora or lora8 quantises it"
        raise UsageError("its weights are quantised already", where=str(file), todo=todo)
    context, shape = read_shape(config, file)
    name, renderer = Path(source).name, find_renderer(find, file)
    return ModelSpec(name, source, family, renderer, context, "unknown", LINEAR, shape, unverified=("licence",))


def read_config(file: Path) -> dict[str, Any]:
    config = read_json(file)
    return config if isinstance(config, dict) else {}


def read_shape(config: dict[str, Any], file: Path) -> tuple[int, Shape]:
    """The context and the shape; older files say `rope_theta`, newer ones `rope_parameters`."""

    def number(name: str, default: int | None = None) -> int:
        value = config.get(name, default)
        value = default if value is None else value
        if not isinstance(value, int) or value < 1:
            raise UsageError(f"{name} is not a positive number", where=str(file), todo=TODO)
        return value

    def real(name: str, value: Any) -> float:
        if not isinstance(value, int | float) or value <= 0:
            raise UsageError(f"{name} is not a positive number", where=str(file), todo=TODO)
        return float(value)

    def mapping(name: str) -> dict[str, Any]:
        value = config.get(name) or {}
        if not isinstance(value, dict):
            raise UsageError(f"{name} is not a mapping", where=str(file), todo=TODO)
        return value

    heads, hidden = number("num_attention_heads"), number("hidden_size")
    rope = mapping("rope_scaling") | mapping("rope_parameters")
    theta = rope.pop("rope_theta", None) or config.get("rope_theta") or 10000.0
    scaled = rope.get("rope_type", rope.get("type", "default")) != "default"
    shape = Shape(
        hidden_size=hidden,
        intermediate_size=number("intermediate_size"),
        num_hidden_layers=number("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=number("num_key_value_heads", heads),
        head_dim=number("head_dim", hidden // heads),
        vocab_size=number("vocab_size"),
        rope_theta=real("rope_theta", theta),
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
        rope_scaling=rope if scaled else None,
        rms_norm_eps=real("rms_norm_eps", config.get("rms_norm_eps", 1e-6)),
    )
    return number("max_position_embeddings"), shape


def find_renderer(find: Callable[[str], Path | None], config: Path) -> str:
    """By the chat template. Who publishes none is a base model; a bare tokenizer is known by its control tokens."""
    settings = find("tokenizer_config.json")
    if settings is None:
        tokens = read_config(find("tokenizer.json") or config.with_name("tokenizer.json"))
        said = json.dumps(tokens.get("added_tokens", []), ensure_ascii=False)
    elif template := read_config(settings).get("chat_template"):
        said = json.dumps(template, ensure_ascii=False)
    elif file := find("chat_template.jinja"):
        said = file.read_text(encoding="utf-8", errors="replace")
    else:
        return BASE_RENDERER
    for sign, renderer in SIGNS.items():
        if sign in said:
            return renderer
    raise UsageError(
        "its chat format is not known", where=str(config.parent), todo=f"known formats have one of: {', '.join(SIGNS)}"
    )
