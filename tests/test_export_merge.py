"""Merging: exact, whole, spelt for old and new tools, and refused where it would be silently wrong."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from medmind.core.errors import DataError, EnvironmentFault, MedmindError, UsageError
from medmind.core.types import Message
from medmind.export.merge import merge, write_config
from medmind.export.whole import whole
from medmind.models.catalog import LLAMA_ROPE, describe_folder
from medmind.models.load import load_tuned
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import open_renderer


@pytest.fixture(scope="module")
def merged(wide_model: Path, wide_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "merged"
    merge(describe_folder(wide_model), wide_adapter, folder)
    return folder


def change(file: Path, **entries: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def copy(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def test_merged_weights_are_base_plus_scaled_product(merged: Path, wide_model: Path, wide_adapter: Path) -> None:
    base, adapter = load_file(wide_model / "model.safetensors"), load_file(wide_adapter / "adapter_model.safetensors")
    found = load_file(merged / "model.safetensors")
    assert found.keys() == base.keys()
    changed = 0
    for name, weight in base.items():
        prefix = f"base_model.model.{name.removesuffix('.weight')}"
        expected = weight.float()
        if f"{prefix}.lora_A.weight" in adapter:
            expected += 8 / 4 * (adapter[f"{prefix}.lora_B.weight"] @ adapter[f"{prefix}.lora_A.weight"])
            changed += 1
        torch.testing.assert_close(found[name], expected.to(torch.bfloat16), rtol=0.01, atol=1e-5)
    assert changed == 6


def test_merged_equals_peft(merged: Path, wide_model: Path, wide_adapter: Path) -> None:
    expected = load_tuned(describe_folder(wide_model), wide_adapter).merge_and_unload().state_dict()
    for name, weight in load_file(merged / "model.safetensors").items():
        assert torch.equal(weight, expected[name].to(torch.bfloat16)), name


def test_config_speaks_to_old_and_new_tools(merged: Path) -> None:
    config = json.loads((merged / "config.json").read_text())
    assert config["rope_parameters"] == {"rope_type": "default", "rope_theta": 10000.0}
    assert config["rope_theta"] == 10000.0
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    assert (config["vocab_size"], config["tie_word_embeddings"]) == (8192, True)
    assert AutoConfig.from_pretrained(merged).rope_parameters["rope_theta"] == 10000.0


def test_old_spelling_alone_is_understood(tmp_path: Path) -> None:
    scaling = {"type": "linear", "factor": 2.0}
    old = {"rope_theta": 5e5, "torch_dtype": "float16", "rope_scaling": scaling}
    (tmp_path / "config.json").write_text(json.dumps(old))
    write_config(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["rope_parameters"] == {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0}
    assert config["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}
    assert config["dtype"] == "float16"


@pytest.mark.parametrize(
    "said",
    [
        {"rope_parameters": LLAMA_ROPE | {"rope_theta": 5e5}, "dtype": "bfloat16"},
        {"rope_scaling": LLAMA_ROPE, "rope_theta": 5e5, "torch_dtype": "bfloat16"},
    ],
    ids=["new", "old"],
)
def test_scaled_rotations_are_said_in_both_words(said: dict[str, Any], tmp_path: Path) -> None:
    """Llama 3.2's: a tool that knows one spelling alone would run at base 10,000, or unscaled, without a word."""
    (tmp_path / "config.json").write_text(json.dumps(said))
    write_config(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["rope_parameters"] == LLAMA_ROPE | {"rope_theta": 5e5}
    assert (config["rope_theta"], config["rope_scaling"]) == (5e5, LLAMA_ROPE)
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"


def test_tokenizer_of_the_checkpoint(merged: Path, wide_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(merged)
    renderer = open_renderer("mistral-v3", open_tokenizer(describe_folder(wide_model)))
    assert tokenizer("A fever.").input_ids == [1, *renderer.tokenizer.encode("A fever.")]
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "What is a fever?"}]
    messages = [Message(role=turn["role"], text=turn["content"]) for turn in chat]
    assert tuple(tokenizer.apply_chat_template(chat, return_dict=False)) == renderer.prompt(messages)
    settings = json.loads((merged / "tokenizer_config.json").read_text())
    assert settings["chat_template"] == renderer.chat_template == (merged / "chat_template.jinja").read_text()
    assert json.loads((merged / "generation_config.json").read_text())["eos_token_id"] == 2


def test_whole_checkpoint_is_copied(wide_model: Path, tmp_path: Path) -> None:
    trained = copy(wide_model, tmp_path / "model")
    change(trained / "config.json", use_cache=False)
    merge(describe_folder(wide_model), trained, tmp_path / "merged")
    same = (tmp_path / "merged" / "model.safetensors").read_bytes() == (wide_model / "model.safetensors").read_bytes()
    assert same
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged").config.use_cache is True


def test_nothing_trained(wide_model: Path, tmp_path: Path) -> None:
    check_refused(wide_model, tmp_path / "absent", tmp_path, DataError, "neither an adapter nor a checkpoint")


def test_adapter_without_weights(wide_model: Path, wide_adapter: Path, tmp_path: Path) -> None:
    trained = copy(wide_adapter, tmp_path / "adapter")
    (trained / "adapter_model.safetensors").unlink()
    check_refused(wide_model, trained, tmp_path, DataError, "no adapter_model.safetensors")
    (trained / "adapter_model.safetensors").write_bytes(b"half")
    check_refused(wide_model, trained, tmp_path, DataError, "not a safetensors file")


def test_adapter_of_another_shape(tiny_model: Path, wide_adapter: Path, tmp_path: Path) -> None:
    check_refused(tiny_model, wide_adapter, tmp_path, DataError, "does not fit")


def test_adapter_with_a_layer_missing(wide_model: Path, wide_adapter: Path, tmp_path: Path) -> None:
    trained = copy(wide_adapter, tmp_path / "adapter")
    weights = load_file(trained / "adapter_model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "layers.1." not in name}
    save_file(kept, trained / "adapter_model.safetensors")
    check_refused(wide_model, trained, tmp_path, DataError, "6 weights missing, 0 without a place")


def test_adapter_that_is_not_a_number(wide_model: Path, wide_adapter: Path, tmp_path: Path) -> None:
    trained = copy(wide_adapter, tmp_path / "adapter")
    weights = load_file(trained / "adapter_model.safetensors")
    next(iter(weights.values())).fill_(float("nan"))
    save_file(weights, trained / "adapter_model.safetensors")
    check_refused(wide_model, trained, tmp_path, DataError, "cannot be merged")


def test_quantised_base(wide_model: Path, wide_adapter: Path, tmp_path: Path) -> None:
    base = copy(wide_model, tmp_path / "base")
    spec = describe_folder(base)  # of such a folder it would refuse to say anything; a catalogue row is not asked
    change(base / "config.json", quantization_config={"load_in_4bit": True})
    with pytest.raises(UsageError, match="quantised; a merge into it would lose precision"):
        merge(spec, wide_adapter, tmp_path / "export" / "merged")
    assert list((tmp_path / "export").iterdir()) == []


def test_trained_copy_of_a_tied_matrix(wide_model: Path, wide_adapter: Path, tmp_path: Path) -> None:
    trained = copy(wide_adapter, tmp_path / "adapter")
    change(trained / "adapter_config.json", modules_to_save=["lm_head"])
    check_refused(wide_model, trained, tmp_path, UsageError, "ties together")


def check_refused(base: Path, trained: Path, tmp_path: Path, error: type[MedmindError], words: str) -> None:
    out = tmp_path / "export" / "merged"
    with pytest.raises(error, match=words) as caught:
        merge(describe_folder(base), trained, out)
    assert caught.value.todo
    assert list(out.parent.iterdir()) == []


def test_no_room(wide_model: Path, wide_adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=1_000_000))
    check_refused(wide_model, wide_adapter, tmp_path, EnvironmentFault, r"needs \d+\.\d MB, 1\.0 MB are free")


def test_a_place_where_nothing_can_be_written(wide_model: Path, wide_adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "export").write_text("in the way")
    with pytest.raises(EnvironmentFault, match="cannot write") as caught:
        merge(describe_folder(wide_model), wide_adapter, tmp_path / "export" / "merged")
    assert caught.value.exit_code == 3


def test_a_failed_write_keeps_the_old(tmp_path: Path) -> None:
    place = tmp_path / "folder"
    for attempt in ("old", "new"):
        with whole(place) as temporary:
            temporary.mkdir()
            (temporary / "file").write_text(attempt)
    with pytest.raises(KeyboardInterrupt), whole(place) as temporary:
        temporary.mkdir()
        (temporary / "file").write_text("half")
        raise KeyboardInterrupt
    assert (place / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
