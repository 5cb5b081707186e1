"""Checkpoints and adapters that are not what they should be: said with the file, before anything is computed."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_mistral
from transformers import MistralForCausalLM

from medmind.cli.main import main
from medmind.core.errors import DataError, EnvironmentFault, MedmindError, UsageError
from medmind.core.jsonl import read_json, write_json
from medmind.export.shards import list_entries
from medmind.models.catalog import NANO, find_model
from medmind.models.load import load_base, load_tuned
from medmind.models.stored import open_tensors
from medmind.models.tokenizer import open_tokenizer
from medmind.models.weights import INDEX, check_weights, list_weights

TREE = "a" * 40


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several shards."""
    folder = tmp_path_factory.mktemp("made")
    tiny_mistral(1).save_pretrained(folder, max_shard_size="1MB")
    shutil.copy(NANO / "tokenizer.json", folder)
    return folder


@pytest.fixture
def sharded(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "sharded"))


def refused(folder: Path) -> MedmindError:
    with pytest.raises(MedmindError) as caught:
        load_base(find_model(str(folder)))
    return caught.value


def cut(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:-100])


def stretch(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes() + b"\0" * 100)


def cut_head(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:20])


def empty(shard: Path) -> None:
    shard.write_bytes(b"")


def swap(shard: Path) -> None:
    """Another shard under this one's name."""
    other = next(path for path in shard.parent.glob("*.safetensors") if path != shard)
    shutil.copy(other, shard)


def lose(shard: Path) -> None:
    tensors = load_file(shard)
    tensors.pop(next(iter(tensors)))
    save_file(tensors, shard)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (cut, "cannot be read"),
        (stretch, "cannot be read"),
        (cut_head, "cannot be read"),
        (empty, "cannot be read"),
        (Path.unlink, "no model-00002-of-00003.safetensors"),
        (swap, f"it and {INDEX} disagree on "),
        (lose, f"it and {INDEX} disagree on "),
    ],
)
def test_a_damaged_shard_is_named(damage: Callable[[Path], None], told: str, sharded: Path) -> None:
    shard = sharded / "model-00002-of-00003.safetensors"
    damage(shard)
    error = refused(sharded)
    assert isinstance(error, DataError) and told in error.what and "fetch" in error.todo
    assert error.where == (str(sharded) if damage is Path.unlink else str(shard))


@pytest.mark.parametrize("index", [{}, [], {"weight_map": {}}, {"weight_map": {"a": "../b"}}, {"weight_map": {"a": 1}}])
def test_an_index_that_is_none_is_named(index: object, sharded: Path) -> None:
    write_json(sharded / INDEX, index)
    assert refused(sharded).what == "not an index of weights"


def test_other_weights_in_the_folder_are_not_read(sharded: Path) -> None:
    """As Mistral publishes them: the same weights a second time under other names."""
    (sharded / "consolidated.safetensors").write_bytes(b"no safetensors")
    load_base(find_model(str(sharded)))
    assert len(list_weights(sharded)) == 3


def test_a_missing_tokenizer_is_named(sharded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(sharded / "tokenizer_config.json", {"chat_template": "[INST]"})
    (sharded / "tokenizer.json").unlink()
    (tmp_path / "talk.json").write_text('[{"role": "user", "content": "x"}]')
    assert main(["models", "render", str(sharded), str(tmp_path / "talk.json")]) == 2
    assert f"the model has no tokenizer.json, {sharded}" in capsys.readouterr().err


def test_a_config_of_another_architecture_is_refused(sharded: Path) -> None:
    config = read_json(sharded / "config.json")
    write_json(sharded / "config.json", config | {"model_type": "gpt_neox"})
    assert isinstance(error := refused(sharded), UsageError) and '"gpt_neox" is not supported' in error.what
    write_json(sharded / "config.json", config | {"num_key_value_heads": 4})
    assert isinstance(error := refused(sharded), DataError)
    assert "cannot be read" in error.what or "absent or misshapen" in error.what


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"num_key_value_heads": 4}, "absent or misshapen, model.layers.0.self_attn.k_proj.weight first"),
        ({"vocab_size": 9000}, "2 tensors are absent or misshapen, lm_head.weight first"),
        ({"rms_norm_eps": None}, "rms_norm_eps is not a positive number"),
        ({"rope_parameters": "x"}, "rope_parameters is not a mapping"),
        ({"rope_parameters": {"rope_theta": "x"}}, "rope_theta is not a positive number"),
        ({"rope_parameters": {"rope_type": "nope", "rope_theta": 1e4}}, "the model cannot be read: 'nope'"),
        ({"num_key_value_heads": None}, "the model cannot be read: TypeError: Field 'num_key_value_heads'"),
        ({"hidden_act": "nope"}, "the model cannot be read: 'nope'"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "its weights are quantised already"),
    ],
)
def test_what_is_odd_in_a_config_is_named(values: dict[str, object], told: str, sharded: Path) -> None:
    write_json(sharded / "config.json", read_json(sharded / "config.json") | values)
    error = refused(sharded)
    assert told in error.what and error.where.startswith(str(sharded)) and error.todo


@pytest.mark.parametrize("cause", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_too_little_memory_is_no_fault_of_the_files(
    cause: Exception, sharded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise cause

    monkeypatch.setattr(MistralForCausalLM, "from_pretrained", fail)
    error = refused(sharded)
    assert isinstance(error, EnvironmentFault) and f"too little memory: {cause}" in error.what


def test_a_limit_that_forbids_to_map_a_file_is_told_as_too_little_memory(
    sharded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cause in (RuntimeError("unable to mmap 9 bytes: Cannot allocate memory (12)"), MemoryError("allocate memory")):

        def fail(*_: object, error: Exception = cause, **__: object) -> None:
            raise error

        monkeypatch.setattr("medmind.models.weights.safe_open", fail)
        for opens in (check_weights, open_tensors, lambda folder: list_entries(folder / INDEX)):
            with pytest.raises(EnvironmentFault, match=f"too little memory: {re.escape(str(cause))}") as told:
                opens(sharded)
            assert told.value.exit_code == 3 and "raise the limit" in told.value.todo


def test_files_that_are_none_are_named_when_the_format_is_asked(sharded: Path) -> None:
    (sharded / "tokenizer.json").write_text("[]")
    with pytest.raises(UsageError, match="chat format is not known"):
        find_model(str(sharded))
    (sharded / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"no such file, .*tokenizer\.json"):
        find_model(str(sharded))
    write_json(sharded / "tokenizer_config.json", {})
    (sharded / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="chat format is not known"):
        find_model(str(sharded))


def test_a_tokenizer_of_another_model_is_refused(sharded: Path) -> None:
    """A token added later is none of its words: fine-tuned models have such, which no text gives."""
    whole = read_json(sharded / "tokenizer.json")
    pad = {"id": 8192, "content": "<pad>", "special": True}
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    write_json(sharded / "tokenizer.json", whole | {"added_tokens": [*whole["added_tokens"], pad | plain]})
    assert open_tokenizer(find_model(str(sharded))).vocab_size == 8193
    whole["model"]["vocab"]["one more"] = 8192
    write_json(sharded / "tokenizer.json", whole)
    with pytest.raises(DataError, match=r"8,193 tokens, where sharded has 8,192 embeddings, .*tokenizer\.json"):
        open_tokenizer(find_model(str(sharded)))


def edit(adapter: Path, **values: object) -> None:
    write_json(adapter / "adapter_config.json", read_json(adapter / "adapter_config.json") | values)


@pytest.fixture
def adapter(wide_adapter: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(wide_adapter, tmp_path / "adapter"))


@pytest.mark.parametrize(
    ("base", "commit", "told"),
    [
        ("org/other", None, "the adapter was trained on org/other, not on org/wide@" + TREE),
        ("ORG/Wide", None, ""),
        ("org/wide", "main", ""),
        ("org/wide", TREE, ""),
        ("org/wide", "b" * 40, f"the adapter was trained on org/wide@{'b' * 40}, not on org/wide@{TREE}"),
        ("/some/folder", None, ""),
    ],
)
def test_an_adapter_says_which_base_it_was_trained_on(
    base: str, commit: str | None, told: str, adapter: Path, wide_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medmind.models import load

    edit(adapter, base_model_name_or_path=base, revision=commit)
    local = find_model(str(wide_model))
    spec = replace(local, source="org/wide", local=False, revision=TREE)
    monkeypatch.setattr(load, "find_weights", lambda _: wide_model)
    if told:
        with pytest.raises(DataError) as caught:
            load_tuned(spec, adapter)
        assert caught.value.what == told and caught.value.todo.startswith("model: org/")
    else:
        load_tuned(spec, adapter)
    load_tuned(local, adapter)


def test_an_adapter_of_another_shape_or_depth_is_refused(adapter: Path, wide_model: Path, tiny_model: Path) -> None:
    with pytest.raises(DataError, match="does not fit"):
        load_tuned(find_model(str(tiny_model)), adapter)
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    save_file({name: one for name, one in weights.items() if "layers.1." not in name}, file)
    with pytest.warns(UserWarning, match="missing adapter keys"), pytest.raises(DataError, match="6 weights missing"):
        load_tuned(find_model(str(wide_model)), adapter)
    save_file({name.replace("layers.1.", "layers.7."): one for name, one in weights.items()}, file)
    with pytest.warns(UserWarning), pytest.raises(DataError, match="6 weights missing, 6 without a place"):
        load_tuned(find_model(str(wide_model)), adapter)


@pytest.mark.parametrize("damage", [cut, cut_head, empty])
def test_a_cut_adapter_is_named(damage: Callable[[Path], None], adapter: Path, wide_model: Path) -> None:
    damage(adapter / "adapter_model.safetensors")
    with pytest.raises(DataError, match=r"not a safetensors file.*adapter_model\.safetensors"):
        load_tuned(find_model(str(wide_model)), adapter)


def test_an_adapter_without_its_weights_is_refused(adapter: Path, wide_model: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(DataError, match=r"no adapter_model\.safetensors"):
        load_tuned(find_model(str(wide_model)), adapter)
    assert json.loads((adapter / "adapter_config.json").read_text())["r"] == 4
