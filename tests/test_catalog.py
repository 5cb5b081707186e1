"""The catalogue: rows that add up, checkpoints of the same families by their own config, what the Hub may refuse."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medmind.core.errors import DataError, EnvironmentFault, UsageError
from medmind.core.jsonl import write_json
from medmind.models import catalog, files
from medmind.models.catalog import CATALOG, NANO, check_facts, describe_folder, find_model, names_a_model
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import RENDERERS

PARAMETERS = {
    "Mistral-7B-v0.3": 7_248_023_552,
    "Llama-3.2-1B-Instruct": 1_235_814_400,
    "Llama-3.2-3B": 3_212_749_824,
    "SmolLM2-135M-Instruct": 134_515_008,
    "SmolLM2-360M-Instruct": 361_821_120,
}
"""As their publishers count them."""
LLAMA_CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "max_position_embeddings": 2048,
    "rope_theta": 500000.0,
    "rope_scaling": {"type": "llama3", "factor": 32.0},
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint's small files: a Llama without a chat template."""
    write_json(tmp_path / "config.json", LLAMA_CONFIG)
    write_json(tmp_path / "tokenizer_config.json", {"bos_token": "<s>"})
    return tmp_path


@pytest.mark.parametrize("spec", CATALOG, ids=lambda spec: spec.id)
def test_every_row_stands_on_what_exists(spec: catalog.ModelSpec) -> None:
    assert find_model(spec.source.upper()) == spec == find_model(spec.id.lower())
    assert spec.renderer in RENDERERS and spec.family in catalog.FAMILIES
    assert set(spec.lora_targets) == set(catalog.LINEAR)
    assert spec.gated == spec.source.startswith("meta-llama/")
    shape = spec.shape
    assert shape.num_attention_heads % shape.num_key_value_heads == 0
    assert shape.parameters == PARAMETERS.get(spec.id, shape.parameters)


@pytest.mark.parametrize("name", ["nano", *PARAMETERS])
def test_the_count_is_that_of_the_model_itself(name: str) -> None:
    """On the meta device: the shape, no weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    spec = find_model(name)
    shape = {key: getattr(spec.shape, key) for key in spec.shape.__dataclass_fields__}
    rope = {"rope_type": "default"} | dict(shape.pop("rope_scaling") or {}) | {"rope_theta": shape.pop("rope_theta")}
    config = AutoConfig.for_model(spec.family, **shape, rope_parameters=rope)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    assert sum(one.numel() for one in model.parameters()) == spec.shape.parameters


def test_nanos_row_is_what_its_own_config_says() -> None:
    spec = find_model("nano")
    context, shape = catalog.read_shape(json.loads((NANO / "config.json").read_text()), NANO)
    assert (context, shape) == (spec.context, spec.shape)


def test_a_checkpoint_is_described_by_its_own_config(folder: Path) -> None:
    spec = find_model(str(folder))
    assert (spec.id, spec.family, spec.context, spec.local) == (folder.name, "llama", 2048, True)
    assert (spec.licence, spec.unverified) == ("unknown", ("licence",))
    shape = spec.shape
    assert (shape.num_key_value_heads, shape.head_dim, shape.rope_theta) == (4, 16, 5e5)
    assert shape.rope_scaling == {"type": "llama3", "factor": 32.0}
    newer = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "rope_scaling": None, "head_dim": None}
    write_json(folder / "config.json", LLAMA_CONFIG | newer)
    shape = find_model(str(folder)).shape
    assert (shape.rope_theta, shape.rope_scaling, shape.head_dim) == (1e6, None, 16)


@pytest.mark.parametrize(
    ("template", "renderer"),
    [
        ("{{ '[INST] ' }}", "mistral-v3"),
        ("{{ '<|start_header_id|>' }}", "llama-3"),
        ([{"name": "default", "template": "<|im_start|>"}], "chatml"),
        ("### Question:\n{{ x }}", "question-answer"),
        (None, "instruction-response"),
    ],
)
def test_the_chat_template_tells_the_format_and_a_base_model_has_none(
    folder: Path, template: Any, renderer: str
) -> None:
    write_json(folder / "tokenizer_config.json", {"chat_template": template} if template else {})
    assert describe_folder(folder).renderer == renderer
    if isinstance(template, str):
        write_json(folder / "tokenizer_config.json", {})
        (folder / "chat_template.jinja").write_text(template)
        assert describe_folder(folder).renderer == renderer


def test_a_format_or_family_that_is_not_known_names_those_that_are(folder: Path) -> None:
    write_json(folder / "tokenizer_config.json", {"chat_template": "<start_of_turn>"})
    with pytest.raises(UsageError, match=r"chat format is not known.*\[INST\], <\|start_header_id\|>"):
        find_model(str(folder))
    write_json(folder / "config.json", LLAMA_CONFIG | {"model_type": "gemma"})
    with pytest.raises(UsageError, match=r'"gemma" is not supported.*supported: mistral, llama'):
        find_model(str(folder))
    write_json(folder / "config.json", LLAMA_CONFIG | {"num_hidden_layers": "two"})
    with pytest.raises(UsageError, match="num_hidden_layers is not a positive number"):
        find_model(str(folder))


def test_a_misspelt_file_is_not_sent_to_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "fetch", lambda *_: pytest.fail("asked the Hub"))
    monkeypatch.chdir(folder)
    (folder / "tests").mkdir()
    for name in ("recipes/mine.yaml", f"{folder}/absent", "tests/absent", "runs/demo", "a/b/c", "Mistral-7B"):
        with pytest.raises(UsageError, match="unknown model"):
            find_model(name)
        assert not names_a_model(name)
    assert names_a_model("nano") and names_a_model(str(folder)) and names_a_model("some/thing")


def serve(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], Path]) -> list[str]:
    """A Hub that answers as told; returns what it was asked for."""
    import huggingface_hub

    asked = []

    def download(source: str, name: str, revision: str) -> str:
        asked.append(f"{source}/{name}")
        return str(answer(name))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    catalog.describe_hub.cache_clear()
    files.find_snapshot.cache_clear()
    return asked


def test_a_hub_id_is_described_by_its_own_config(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import EntryNotFoundError

    def answer(name: str) -> Path:
        if not (folder / name).is_file():
            raise EntryNotFoundError(name)
        return folder / name

    asked = serve(monkeypatch, answer)
    spec = find_model("some/thing")
    assert (spec.id, spec.source, spec.local) == ("thing", "some/thing", False)
    assert spec.renderer == "instruction-response"
    assert find_model("some/thing") is spec
    assert asked == ["some/thing/config.json", "some/thing/chat_template.jinja"], "what lies beside config.json is here"
    with pytest.raises(DataError, match=r"no tokenizer\.json, some/thing"):
        open_tokenizer(spec)


def test_without_a_network_the_cache_remembers_what_the_model_lacks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def answer(name: str) -> Path:
        if name == "chat_template.jinja":
            raise LocalEntryNotFoundError("offline")
        return folder / name

    serve(monkeypatch, answer)
    with pytest.raises(EnvironmentFault, match=r"cannot fetch chat_template\.jinja"):
        find_model("some/thing")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: huggingface_hub._CACHED_NO_EXIST)
    assert find_model("some/thing").renderer == "instruction-response"


def test_facts_no_one_could_look_up_come_from_the_config(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve(monkeypatch, lambda name: folder / name)
    spec = find_model("alecocc/mistral-7B-SFT-medqa-graph-cot")
    assert asked == [] and spec.unverified == ("licence", "context", "shape")
    checked = check_facts(spec)
    assert (checked.context, checked.shape.hidden_size, checked.unverified) == (2048, 64, ("licence",))
    assert checked.revision == folder.name, "the cache names a snapshot's folder after its commit"
    nano = find_model("nano")
    assert check_facts(nano) is nano


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("GatedRepoError", EnvironmentFault, r"gated.*accept its licence on huggingface.co/\S+, .*hf auth login"),
        ("RepositoryNotFoundError", UsageError, "neither a folder here nor a model of the Hub"),
        ("LocalEntryNotFoundError", EnvironmentFault, r"cannot be reached.*accept its licence.*hf auth login.*network"),
        ("OfflineModeIsEnabled", EnvironmentFault, "cannot fetch config.json"),
    ],
)
def test_what_the_hub_refuses_is_explained(
    name: str, kind: type[Exception], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import errors

    def answer(_: str) -> Path:
        error: Exception = getattr(errors, name).__new__(getattr(errors, name))
        error.args = ("no",)
        raise error

    serve(monkeypatch, answer)
    with pytest.raises(kind, match=told):
        open_tokenizer(find_model("Llama-3.2-1B"))
