"""Every kind of adapter merged as PEFT merges it, most without the model in memory; and as a GGUF of its own."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from medmind.core.errors import DataError, UsageError
from medmind.export import merge as merging
from medmind.export.adapter_gguf import write_adapter
from medmind.export.gguf import write
from medmind.export.merge import merge
from medmind.export.metadata import Facts
from medmind.export.shards import rewrite
from medmind.infer.llamacpp import LlamaCppGenerator
from medmind.models.catalog import describe_folder
from medmind.models.load import load_tuned
from medmind.train.adapter import prepare_model
from medmind.train.config import TrainConfig

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FACTS = Facts("tiny", "MIT", "nano", "")


def train(base: Path, folder: Path, **settings: Any) -> Path:
    """An adapter with something in it."""
    torch.manual_seed(4)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": ALL, "task_type": "CAUSAL_LM"} | settings)
    adapted = get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    adapted.save_pretrained(folder)
    return folder


def fail(*_: object) -> None:
    raise AssertionError("the whole model was loaded")


def check_equals_peft(base: Path, trained: Path, out: Path) -> None:
    spec = describe_folder(base)
    merge(spec, trained, out)
    expected = load_tuned(spec, trained).merge_and_unload().state_dict()
    found = load_file(out / "model.safetensors")
    assert found.keys() == load_file(base / "model.safetensors").keys()
    for name, weight in found.items():
        assert torch.equal(weight, expected[name].to(torch.bfloat16)), name


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"down_proj": 3}},
        {"target_modules": ["q_proj"], "modules_to_save": ["v_proj"]},
        {"layers_to_transform": [1]},
        {"init_lora_weights": "gaussian"},
    ],
)
def test_plain_kinds_are_merged_without_the_model(
    settings: dict[str, Any], wide_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = train(wide_model, tmp_path / "adapter", **settings)
    monkeypatch.setattr(merging, "load_tuned", fail)
    check_equals_peft(wide_model, trained, tmp_path / "merged")


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"use_dora": True, "use_rslora": True}])
def test_other_kinds_go_through_peft_and_say_so(
    settings: dict[str, Any], wide_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = train(wide_model, tmp_path / "adapter", **settings)
    check_equals_peft(wide_model, trained, tmp_path / "merged")
    assert "whole model in memory: up to" in capsys.readouterr().err


def test_what_peft_cannot_merge_either(wide_model: Path, tmp_path: Path) -> None:
    trained = train(wide_model, tmp_path / "adapter", lora_bias=True)
    with pytest.raises(DataError, match=r"cannot be merged: .*bias") as caught:
        merge(describe_folder(wide_model), trained, tmp_path / "merged")
    assert caught.value.todo
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("method", ["qlora", "lora8"])
def test_adapters_of_quantised_training_go_into_the_unquantised_base(
    method: str, wide_model: Path, tmp_path: Path
) -> None:
    spec = describe_folder(wide_model)
    model: Any = prepare_model(TrainConfig(method=method, dtype="float32"), spec, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.05
    model.save_pretrained(tmp_path / "adapter")
    check_equals_peft(wide_model, tmp_path / "adapter", tmp_path / "merged")
    base = load_file(wide_model / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"]
    assert not torch.equal(
        load_file(tmp_path / "merged/model.safetensors")["model.layers.0.self_attn.q_proj.weight"], base
    )


def test_a_file_in_parts_stays_in_parts(wide_model: Path, wide_adapter: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    AutoModelForCausalLM.from_pretrained(wide_model).save_pretrained(parts, max_shard_size="4MB")
    shutil.copy(wide_model / "tokenizer.json", parts)
    merge(describe_folder(wide_model), wide_adapter, tmp_path / "one")
    merge(describe_folder(parts), wide_adapter, tmp_path / "merged")
    names = sorted(path.name for path in parts.glob("*.safetensors"))
    assert len(names) > 1
    assert sorted(path.name for path in (tmp_path / "merged").glob("*.safetensors")) == names
    index = json.loads((tmp_path / "merged" / "model.safetensors.index.json").read_text())
    expected = load_file(tmp_path / "one" / "model.safetensors")
    assert index["weight_map"].keys() == expected.keys()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in expected.items())


def test_one_file_of_another_name_keeps_its_index(wide_model: Path, wide_adapter: Path, tmp_path: Path) -> None:
    base, name = Path(shutil.copytree(wide_model, tmp_path / "base")), "model-00001-of-00001.safetensors"
    (base / "model.safetensors").rename(base / name)
    with safe_open(base / name, framework="pt") as file:
        index = {"metadata": {}, "weight_map": dict.fromkeys(file.keys(), name)}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    merge(describe_folder(base), wide_adapter, tmp_path / "merged")
    write(tmp_path / "merged", tmp_path / "model.gguf", "f16", FACTS)
    assert (tmp_path / "merged" / name).is_file()


def test_wide_types_come_first(tmp_path: Path) -> None:
    """Every tensor begins at a multiple of its own size, whatever its name."""
    base, out = tmp_path / "base", tmp_path / "out"
    base.mkdir(), out.mkdir()
    tensors = {"a": torch.ones(3, dtype=torch.bfloat16), "b": torch.full((2, 2), 2.0), "c": torch.tensor(3.0).half()}
    save_file(tensors, base / "model.safetensors")
    rewrite(base, out, lambda name, weight: weight * 2)
    with safe_open(out / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert all(torch.equal(file.get_tensor(name), tensor * 2) for name, tensor in tensors.items())


def test_a_base_that_lacks_what_was_trained(wide_model: Path, wide_adapter: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(wide_model, tmp_path / "base"))
    weights = load_file(base / "model.safetensors")
    del weights["model.layers.1.self_attn.q_proj.weight"]
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=r"no model\.layers\.1\.self_attn\.q_proj\.weight"):
        merge(describe_folder(base), wide_adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}])
def test_an_adapter_as_gguf(settings: dict[str, Any], wide_model: Path, tmp_path: Path) -> None:
    """llama.cpp takes it for this base, and its rule, alpha / rank * B @ A, gives the merged file."""
    spec = describe_folder(wide_model)
    trained = train(wide_model, tmp_path / "adapter", **settings)
    write_adapter(spec, trained, tmp_path / "adapter.gguf", FACTS)
    for name, source in (("base", wide_model), ("tuned", trained)):
        merge(spec, source, tmp_path / name)
        write(tmp_path / name, tmp_path / f"{name}.gguf", "f32", FACTS)
    assert LlamaCppGenerator(tmp_path / "base.gguf", [2], 64)._model.lora_adapter_init(str(tmp_path / "adapter.gguf"))
    base, tuned, adapter = (GGUFReader(tmp_path / f"{name}.gguf") for name in ("base", "tuned", "adapter"))
    alpha = adapter.get_field("adapter.lora.alpha")
    assert alpha is not None
    parts = {tensor.name: tensor.data for tensor in adapter.tensors}
    assert len(parts) == 2 * 7 * 2
    for before, after in zip(base.tensors, tuned.tensors, strict=True):
        if f"{before.name}.lora_b" in parts:
            a, b = parts[f"{before.name}.lora_a"], parts[f"{before.name}.lora_b"]
            gained = alpha.contents() / b.shape[1] * b @ a
            np.testing.assert_allclose(before.data + gained, after.data, rtol=0.01, atol=1e-3)
            assert np.abs(gained).max() > 0.05


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"alpha_pattern": {"q_proj": 3}}])
def test_what_a_gguf_adapter_cannot_say(settings: dict[str, Any], wide_model: Path, tmp_path: Path) -> None:
    trained = train(wide_model, tmp_path / "adapter", **settings)
    with pytest.raises(UsageError, match="GGUF adapter") as caught:
        write_adapter(describe_folder(wide_model), trained, tmp_path / "adapter.gguf", FACTS)
    assert caught.value.todo
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
