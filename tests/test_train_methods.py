"""The methods: each learns, reloads in plain PEFT, and is made of as many numbers as published."""

import math
import shutil
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from test_train_engine import loss_and_gradients, open_renderer_of, prepared, rows_of
from tiny import tiny_mistral
from transformers import AutoConfig, AutoModelForCausalLM

from medmind.core.errors import EnvironmentFault, UsageError
from medmind.core.jsonl import read_jsonl
from medmind.core.rundir import RunDir
from medmind.models.catalog import NANO, find_model
from medmind.models.load import load_tuned
from medmind.models.make import make_config
from medmind.train import adapter
from medmind.train.adapter import add_lora, count_parameters, prepare_model
from medmind.train.batches import pack, pad
from medmind.train.config import LoraConfig, TrainConfig
from medmind.train.engine import train
from medmind.train.loss import completion_loss

LORA = LoraConfig(r=4, lora_alpha=8)
TWO_STEPS = TrainConfig(
    dtype="float32", lora=LORA, learning_rate=1e-2, per_device_train_batch_size=4, max_steps=2, save_steps=2
)
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {"method": "full", "lora": LoraConfig()},
    "lora": {},
    "qlora": {"method": "qlora"},
    "lora8": {"method": "lora8"},
    "rslora": {"lora": LORA.model_copy(update={"use_rslora": True})},
    "dora": {"lora": LORA.model_copy(update={"use_dora": True})},
    "qdora": {"method": "qlora", "lora": LORA.model_copy(update={"use_dora": True})},
    "dora over 8 bits": {"method": "lora8", "lora": LORA.model_copy(update={"use_dora": True})},
    "gaussian": {"lora": LORA.model_copy(update={"init_lora_weights": "gaussian"})},
    "pissa": {"lora": LORA.model_copy(update={"init_lora_weights": "pissa"})},
    "pissa_niter": {"lora": LORA.model_copy(update={"init_lora_weights": "pissa_niter_4"})},
    "lora+": {"lora": LORA.model_copy(update={"loraplus_lr_ratio": 16.0})},
    "dropout": {"lora": LORA.model_copy(update={"lora_dropout": 0.5})},
    "neftune": {"neftune_noise_alpha": 5.0},
    "checkpointing": {"gradient_checkpointing": True},
    "qlora checkpointing": {"method": "qlora", "gradient_checkpointing": True},
    "padded qlora": {"method": "qlora", "packing": False},
}


@pytest.fixture(scope="module")
def untied_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_model`, with an output layer of its own."""
    folder = tmp_path_factory.mktemp("untied")
    shape: dict[str, Any] = {"head_dim": 16, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2}
    tiny_mistral(1, **shape, tie_word_embeddings=False).save_pretrained(folder)
    shutil.copy(NANO / "tokenizer.json", folder)
    return folder


def run(root: Path, model: Path, **changes: Any) -> tuple[RunDir, list[float], list[float]]:
    """The run directory, the losses of the steps, and those held out."""
    rundir, config = prepared(root), TrainConfig(**TWO_STEPS.model_dump() | changes)
    assert config.conflicts() == []
    train(config, rundir, find_model(str(model)), open_renderer_of(model), "Be brief.", seed=3)
    lines = list(read_jsonl(rundir.metrics))
    return rundir, *([line[key] for line in lines if key in line] for key in ("loss", "eval_loss"))


@pytest.mark.parametrize("name", VARIANTS)
def test_two_steps_learn(name: str, tiny_model: Path, tmp_path: Path) -> None:
    changes = {key: value.model_dump() if key == "lora" else value for key, value in VARIANTS[name].items()}
    _, steps, held_out = run(tmp_path, tiny_model, **changes)
    assert len(steps) == 2 and all(map(math.isfinite, steps))
    assert held_out[-1] < held_out[0]


def test_quantised_bases_lose_little(tmp_path: Path) -> None:
    """On the model that ships: 4 bits cost about one percent of its loss, 8 bits a tenth of that."""
    rows = pack(rows_of(NANO))
    losses = {}
    for method in ("lora", "qlora", "lora8"):
        model = prepare_model(TrainConfig(method=method, dtype="float32"), find_model("nano"), seed=0)
        losses[method] = completion_loss(model, rows).item()
    assert losses["qlora"] == pytest.approx(losses["lora"], rel=0.02)
    assert losses["lora8"] == pytest.approx(losses["lora"], rel=0.002)
    assert losses["lora"] != losses["lora8"] != losses["qlora"]


@pytest.mark.parametrize("name", ["qlora", "lora8", "dora", "pissa", "modules", "ends"])
def test_the_adapter_reloads_in_plain_peft(name: str, untied_model: Path, tmp_path: Path) -> None:
    """Over the unquantised base, as it is evaluated and merged; PiSSA too, whose training changed its base."""
    whole = {
        "modules": {"lora": LORA.model_copy(update={"modules_to_save": ("lm_head",)})},
        "ends": {"lora": LORA.model_copy(update={"target_modules": ("embed_tokens", "q_proj", "lm_head")})},
    }
    changes = (VARIANTS | whole)[name]
    changes = {key: value.model_dump() if key == "lora" else value for key, value in changes.items()}
    rundir, _, held_out = run(tmp_path, untied_model, **changes)
    base = AutoModelForCausalLM.from_pretrained(untied_model, dtype=torch.float32)
    plain = PeftModel.from_pretrained(base, rundir.adapter)
    rows = rows_of(untied_model)[:2]
    loss = completion_loss(plain, pad(rows)).item() / sum(row.supervised for row in rows)
    assert loss == pytest.approx(held_out[-1], rel=0.02 if name == "qlora" else 1e-3)
    assert loss < held_out[0] - 0.1
    ours = load_tuned(find_model(str(untied_model)), rundir.adapter).merge_and_unload(safe_merge=True)
    assert completion_loss(ours, pad(rows)).item() == pytest.approx(completion_loss(plain, pad(rows)).item(), rel=1e-4)


def test_the_adapter_is_as_large_as_computed(tiny_model: Path, tmp_path: Path) -> None:
    rundir, *_ = run(tmp_path, tiny_model, method="qlora")
    file = rundir.adapter / "adapter_model.safetensors"
    numbers = sum(tensor.numel() for tensor in load_file(file).values())
    width, wide, kv, rank = 64, 128, 32, 4
    layer = [(width, width), (width, kv), (width, kv), (width, width), (width, wide), (width, wide), (wide, width)]
    assert numbers == 2 * rank * sum(map(sum, layer))
    assert file.stat().st_size == 4 * numbers + 8 + int.from_bytes(file.read_bytes()[:8], "little")


@pytest.mark.parametrize(
    ("lora", "trainable", "share"),
    [({"r": 32, "lora_alpha": 32}, 83_886_080, 1.14), ({"target_modules": ("q_proj", "v_proj")}, 6_815_744, 0.09)],
)
def test_as_many_numbers_learn_as_published(lora: dict[str, Any], trainable: int, share: float) -> None:
    """Of Mistral-7B, in its true shape: 83.9 million of 7.3 billion on all seven matrices with rank 32."""
    spec = find_model("Mistral-7B-Instruct-v0.3")
    build: Any = AutoModelForCausalLM.from_config
    with torch.device("meta"):
        model = build(AutoConfig.for_model(**make_config(spec)))
        counts = count_parameters(add_lora(TrainConfig(lora=LoraConfig(**lora)), spec, model, seed=0))
    assert counts["trainable"] == trainable
    assert counts["total"] == spec.shape.parameters + trainable
    assert round(100 * trainable / counts["total"], 2) == share


def test_a_quantised_model_counts_the_weights_it_stands_for(tiny_model: Path) -> None:
    spec = find_model(str(tiny_model))
    whole, narrow = (
        count_parameters(prepare_model(TrainConfig(method=method, dtype="float32"), spec, 0))
        for method in ("lora", "qlora")
    )
    assert whole == narrow


@pytest.mark.parametrize("name", VARIANTS)
def test_the_fused_parts_change_nothing(name: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TWO_STEPS.model_copy(update=VARIANTS[name])
    results = []
    for fuse in (adapter.fuse, lambda model: None):
        monkeypatch.setattr(adapter, "fuse", fuse)
        model = prepare_model(config, find_model(str(tiny_model)), seed=0).train()
        torch.manual_seed(5)
        loss = completion_loss(model, pack(rows_of(tiny_model)[:3]))
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    for fast, slow in zip(*results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-4)


def test_evaluation_leaves_a_quantised_model_as_it_was(tiny_model: Path) -> None:
    """bitsandbytes would repack 4-bit weights for a kernel without gradients, and round the inputs of 8-bit ones."""
    for method in ("qlora", "lora8"):
        model = prepare_model(TWO_STEPS.model_copy(update={"method": method}), find_model(str(tiny_model)), seed=0)
        batch = pack(rows_of(tiny_model)[:3])
        before = loss_and_gradients(model.train(), batch)
        with torch.no_grad():
            assert completion_loss(model.eval(), batch).item() == before[0]
        after = loss_and_gradients(model.train(), batch)
        assert after[0] == before[0]
        assert all(torch.equal(after[1][key], before[1][key]) for key in before[1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_through_4_bits_are_those_of_the_dequantised_weights(dtype: str, tiny_model: Path) -> None:
    spec, batch = find_model(str(tiny_model)), pack(rows_of(tiny_model)[:3])
    narrow: Any = prepare_model(TWO_STEPS.model_copy(update={"method": "qlora", "dtype": dtype}), spec, seed=0)
    whole: Any = prepare_model(TWO_STEPS.model_copy(update={"dtype": dtype}), spec, seed=0)
    for name, module in narrow.named_modules():
        if name.endswith("base_layer"):
            weight = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            whole.get_submodule(name).weight.data = weight
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        (one, these), (two, those) = loss_and_gradients(narrow, batch), loss_and_gradients(whole, batch)
    room = {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {"rtol": 0.1, "atol": 0.05}
    assert one == pytest.approx(two, rel=1e-5 if dtype == "float32" else 1e-3)
    for name, gradient in these.items():
        torch.testing.assert_close(gradient, those[name], **room)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lora": {"modules_to_save": ("lm_head",)}}, "modules_to_save: lm_head: .* ties"),
        ({"lora": {"target_modules": ("q_proj", "embed_tokens")}}, "target_modules: embed_tokens: .* ties"),
        ({"lora": {"target_modules": ("q_proj", "c_attn")}}, 'no module "c_attn", it has down_proj'),
        ({"lora": {"modules_to_save": ("score",)}}, 'modules_to_save: the model has no module "score"'),
        ({"method": "qlora", "quantization": {"llm_int8_skip_modules": ("fc1",)}}, 'no module "fc1"'),
    ],
)
def test_what_does_not_fit_the_model_is_refused(changes: dict[str, Any], words: str, tiny_model: Path) -> None:
    with pytest.raises(UsageError, match=words):
        prepare_model(TrainConfig(**changes), find_model(str(tiny_model)), seed=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
@pytest.mark.parametrize(
    ("changes", "words"),
    [({"optim": "paged_adamw_8bit"}, '"adamw_8bit" has the same'), ({"dtype": "float16"}, "float16.* needs a GPU")],
)
def test_what_only_a_gpu_can_do_is_refused(changes: dict[str, Any], words: str, tiny_model: Path) -> None:
    with pytest.raises(EnvironmentFault, match=words):
        prepare_model(TrainConfig(**changes), find_model(str(tiny_model)), seed=0)
