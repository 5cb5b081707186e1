"""Every setting of the train section, changed, reaches what it is for; what would have no effect is an error."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file
from test_train_engine import rows_of
from test_train_methods import TWO_STEPS, run
from transformers.trainer_optimizer import _BITSANDBYTES_OPTIMIZERS
from transformers.training_args import OptimizerNames

from medmind.core.errors import DataError
from medmind.core.rundir import RunDir
from medmind.models.catalog import find_model
from medmind.models.load import load_base
from medmind.recipe.faults import keys_of
from medmind.train.adapter import BITS, prepare_model, quantization
from medmind.train.arguments import training_arguments
from medmind.train.batches import pack
from medmind.train.config import BUILT_IN, Optimiser, TrainConfig

ARGUMENTS: dict[str, tuple[Any, str, Any]] = {
    "learning_rate": (3e-3, "learning_rate", 3e-3),
    "lr_scheduler_type": ("linear", "lr_scheduler_type", "linear"),
    "warmup_ratio": (0.1, "warmup_steps", 0.1),
    "warmup_steps": (7, "warmup_steps", 7),
    "weight_decay": (0.1, "weight_decay", 0.1),
    "max_grad_norm": (0.3, "max_grad_norm", 0.3),
    "optim": ("adamw_8bit", "optim", "adamw_8bit"),
    "num_train_epochs": (2.0, "num_train_epochs", 2.0),
    "max_steps": (9, "max_steps", 9),
    "per_device_train_batch_size": (3, "per_device_train_batch_size", 3),
    "gradient_accumulation_steps": (5, "gradient_accumulation_steps", 5),
    "gradient_checkpointing": (True, "gradient_checkpointing_kwargs", {"use_reentrant": False}),
    "dtype": ("bfloat16", "bf16", True),
    "save_strategy": ("epoch", "save_strategy", "epoch"),
    "save_steps": (3, "save_steps", 3),
    "logging_steps": (3, "logging_steps", 3),
    "report_to": (("tensorboard",), "report_to", ["tensorboard"]),
}
"""Setting → another value, the name of TrainingArguments, and what must stand there."""
ON_A_GPU = {"backend", "torch_compile", "use_liger_kernel"}
"""Of these test_train_gpu tells."""
LORA: dict[str, Any] = {
    "r": 3,
    "lora_alpha": 5,
    "lora_dropout": 0.25,
    "target_modules": ("q_proj", "v_proj"),
    "use_rslora": True,
    "use_dora": True,
    "init_lora_weights": "gaussian",
    "modules_to_save": ("norm",),
}
BITSANDBYTES: dict[str, tuple[str, Any]] = {
    "bnb_4bit_quant_type": ("qlora", "fp4"),
    "bnb_4bit_use_double_quant": ("qlora", False),
    "llm_int8_threshold": ("lora8", 3.0),
    "llm_int8_skip_modules": ("lora8", ("q_proj",)),
    "llm_int8_enable_fp32_cpu_offload": ("qlora", True),
}


def with_lora(**changes: Any) -> dict[str, Any]:
    return {"lora": TWO_STEPS.lora.model_dump() | changes}


def saved(rundir: RunDir) -> list[str]:
    return sorted(folder.name for folder in rundir.checkpoints.glob("checkpoint-*"))


Seen = Callable[[Path, Path], Any]


def first_loss(**changes: Any) -> Seen:
    return lambda root, model: run(root, model, **changes)[1][0]


def files(**changes: Any) -> Seen:
    return lambda root, model: sorted(path.name for path in run(root, model, **changes)[0].root.glob("train/*"))


def checkpoints(**changes: Any) -> Seen:
    return lambda root, model: saved(run(root, model, **changes)[0])


def plan(key: str, **changes: Any) -> Seen:
    return lambda root, model: json.loads(run(root, model, **changes)[0].plan.read_text())[key]


def attention_of(**changes: Any) -> Seen:
    def seen(root: Path, model: Path) -> str:
        prepared: Any = prepare_model(TWO_STEPS.model_copy(update=changes), find_model(str(model)), seed=0)
        return str(prepared.config._attn_implementation)

    return seen


def learnt_b(**changes: Any) -> Seen:
    def seen(root: Path, model: Path) -> float:
        weights = load_file(run(root, model, **changes)[0].adapter / "adapter_model.safetensors")
        return sum(value.abs().sum().item() for key, value in weights.items() if "lora_B" in key)

    return seen


FULL = {"method": "full", "lora": {}}
LATER = {"max_steps": 6, "eval_steps": 1, "save_steps": 1}
WORSE = LATER | {"learning_rate": 3.0, "max_grad_norm": 1e9, "warmup_ratio": 0.0}
LOOP: dict[str, tuple[Seen, Seen]] = {
    "method": (files(), files(**FULL)),
    "init": (first_loss(**FULL), first_loss(**FULL, init="random")),
    "format": (plan("train"), plan("train", format="text")),
    "neftune_noise_alpha": (first_loss(), first_loss(neftune_noise_alpha=50.0)),
    "max_length": (
        plan("train", overflow="drop"),
        plan("train", overflow="drop", max_length=24),
    ),
    "overflow": (plan("train", overflow="truncate", max_length=24), plan("train", overflow="drop", max_length=24)),
    "packing": (attention_of(packing=True), attention_of(packing=False)),
    "save_total_limit": (
        checkpoints(max_steps=4, save_steps=1),
        checkpoints(max_steps=4, save_steps=1, save_total_limit=1),
    ),
    "eval_steps": (lambda r, m: len(run(r, m)[2]), lambda r, m: len(run(r, m, eval_steps=1)[2])),
    "early_stopping_patience": (
        lambda r, m: len(run(r, m, **WORSE)[1]),
        lambda r, m: len(run(r, m, **WORSE, early_stopping_patience=1)[1]),
    ),
    "load_best_model_at_end": (
        plan("result_step", **WORSE),
        plan("result_step", **WORSE, load_best_model_at_end=True),
    ),
    "lora.loraplus_lr_ratio": (learnt_b(), learnt_b(**with_lora(loraplus_lr_ratio=16.0))),
}
"""Setting → what the loop leaves behind without it, and with it; the two must differ."""


def test_no_setting_is_left_out() -> None:
    leaves = {key for key in keys_of(TrainConfig) if key not in ("lora", "quantization")}
    walked = {*ARGUMENTS, *LOOP, *ON_A_GPU, *(f"lora.{key}" for key in LORA)}
    walked |= {f"quantization.{key}" for key in BITSANDBYTES}
    assert walked == leaves


@pytest.mark.parametrize("key", ARGUMENTS)
def test_it_reaches_the_trainer(key: str, tmp_path: Path) -> None:
    value, name, expected = ARGUMENTS[key]
    config = TrainConfig(**{"dtype": "float32"} | {key: value})
    assert value != getattr(TrainConfig(), key) and config.conflicts() == []
    dtype = torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
    assert getattr(training_arguments(config, RunDir(tmp_path), dtype, 0), name) == expected


@pytest.mark.parametrize("key", LORA)
def test_it_reaches_peft(key: str, tiny_model: Path) -> None:
    config = TrainConfig(**with_lora(**{key: LORA[key]}), dtype="float32")
    assert LORA[key] != getattr(TrainConfig().lora, key) and config.conflicts() == []
    model: Any = prepare_model(config, find_model(str(tiny_model)), seed=0)
    found = getattr(model.peft_config["default"], key)
    assert (tuple(sorted(found)) if isinstance(found, list | set) else found) == LORA[key]


@pytest.mark.parametrize("key", BITSANDBYTES)
def test_it_reaches_bitsandbytes(key: str, tiny_model: Path) -> None:
    method, value = BITSANDBYTES[key]
    config = TrainConfig(method=method, quantization={key: value})
    assert value != getattr(TrainConfig().quantization, key) and config.conflicts() == []
    asked = quantization(config, torch.float32)
    found = getattr(asked, key)
    assert (tuple(found) if isinstance(found, list) else found) == value
    assert getattr(asked, f"load_in_{BITS[method]}bit")
    used: Any = load_base(find_model(str(tiny_model)), torch.float32, asked).config.quantization_config
    assert getattr(used, key) == ([*value, "lm_head"] if isinstance(value, tuple) else value)


@pytest.mark.parametrize("key", LOOP)
def test_it_reaches_the_loop(key: str, tiny_model: Path, tmp_path: Path) -> None:
    without, with_it = (seen(tmp_path / name, tiny_model) for name, seen in zip("ab", LOOP[key], strict=True))
    assert without != with_it


def test_early_stopping_takes_the_step_it_should(tiny_model: Path, tmp_path: Path) -> None:
    _, steps, held_out = run(tmp_path, tiny_model, **WORSE, early_stopping_patience=1)
    assert len(steps) < 6 and held_out[-1] >= min(held_out)


CONFLICTS: list[tuple[dict[str, Any], str]] = [
    ({"method": "full", "lora": {"r": 8}}, 'train.lora has no effect with train.method "full"'),
    ({"method": "full", "lora": {"loraplus_lr_ratio": 16}}, "train.lora has no effect"),
    ({"init": "random"}, 'needs train.method "full"'),
    ({"quantization": {"bnb_4bit_quant_type": "fp4"}}, 'bnb_4bit_quant_type has no effect with train.method "lora"'),
    ({"method": "full", "quantization": {"llm_int8_threshold": 5}}, "llm_int8_threshold has no effect"),
    ({"method": "qlora", "quantization": {"llm_int8_threshold": 5}}, "llm_int8_threshold has no effect"),
    ({"method": "lora8", "quantization": {"bnb_4bit_use_double_quant": False}}, "use_double_quant has no effect"),
    ({"method": "qlora", "lora": {"init_lora_weights": "pissa"}}, "which train.method"),
    ({"lora": {"init_lora_weights": "pissa_niter_4", "use_dora": True}}, "use_dora cannot be combined with PiSSA"),
    ({"lora": {"init_lora_weights": "pissa", "modules_to_save": ("norm",)}}, "modules_to_save cannot be combined"),
    ({"lora": {"target_modules": ("lm_head",), "modules_to_save": ("lm_head",)}}, "trains whole what has an adapter"),
    ({"warmup_ratio": 0.1, "warmup_steps": 5}, "say one of them"),
    ({"warmup_steps": 5, "lr_scheduler_type": "constant"}, "warmup_steps has no effect"),
    ({"warmup_ratio": 0.1, "lr_scheduler_type": "constant"}, "warmup_ratio has no effect"),
    ({"save_strategy": "epoch", "save_steps": 5}, "save_steps has no effect"),
    ({"early_stopping_patience": 2}, "needs train.eval_steps"),
    ({"backend": "unsloth", "method": "full"}, "trains adapters"),
    ({"backend": "unsloth", "torch_compile": True}, "torch_compile has no effect"),
    ({"backend": "unsloth", "use_liger_kernel": True}, "use_liger_kernel has no effect"),
    ({"backend": "unsloth", "lora": {"use_dora": True}}, "use_dora is not known"),
    ({"backend": "unsloth", "neftune_noise_alpha": 5.0}, "neftune_noise_alpha is not known"),
    ({"backend": "unsloth", "method": "lora8", "quantization": {"llm_int8_threshold": 5}}, "Unsloth's own choice"),
]


@pytest.mark.parametrize(("settings", "words"), CONFLICTS)
def test_what_would_have_no_effect_is_an_error(settings: dict[str, Any], words: str) -> None:
    (fault,) = TrainConfig(**settings).conflicts()
    assert words in fault


@pytest.mark.parametrize("value", [False, "pisa", "pissa_niter_0", "pissa_niter_", "eva", 1.5, None])
def test_other_beginnings_of_an_adapter_are_no_settings(value: Any) -> None:
    with pytest.raises(ValueError, match="must be true, gaussian, pissa or pissa_niter_N"):
        TrainConfig(lora={"init_lora_weights": value})


def test_the_optimisers_are_the_trainers_without_those_of_other_packages() -> None:
    known = {name.value for name in OptimizerNames}
    others = ("galore", "apollo", "schedule_free", "lomo", "adalomo", "grokadamw", "stable_adamw", "adamw_anyprecision")
    others += ("adamw_torch_xla", "adamw_torch_npu", "adamw_torch_4bit", "adamw_torch_8bit")
    assert set(get_args(Optimiser)) == {name for name in known if not name.startswith(others)}
    assert set(get_args(Optimiser)) - set(BUILT_IN) == {name.value for name in _BITSANDBYTES_OPTIMIZERS}


@pytest.mark.parametrize("name", [name for name in get_args(Optimiser) if not name.startswith("paged_")])
def test_every_optimiser_learns_on_a_cpu(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """All of the weights: of a small adapter, even optimisers in 8 bits keep their numbers in 32."""
    rate = 1.0 if name == "sgd" else 1e-3
    _, _, held_out = run(tmp_path, tiny_model, **FULL, optim=name, learning_rate=rate, max_steps=3, weight_decay=0.01)
    assert held_out[-1] < held_out[0]


def test_the_noise_is_that_of_each_document(tiny_model: Path) -> None:
    """alpha / √(tokens × width), uniform; none outside training."""
    model: Any = prepare_model(
        TWO_STEPS.model_copy(update={"neftune_noise_alpha": 5.0}), find_model(str(tiny_model)), seed=0
    )
    rows = rows_of(tiny_model)[:3]
    batch, embeddings = pack(rows), model.get_input_embeddings()
    found: list[torch.Tensor] = []
    embeddings.register_forward_hook(lambda module, args, out: found.append(out.detach()))
    for training in (True, False):
        model.train(training)(**{key: value for key, value in batch.items() if key != "labels"})
    noise = (found[0] - found[1])[0].split([len(row.ids) for row in rows])
    assert torch.equal(found[1], embeddings.weight.detach()[batch["input_ids"]])
    for part, row in zip(noise, rows, strict=True):
        bound = 5 / (len(row.ids) * part.shape[1]) ** 0.5
        assert 0.99 * bound < part.abs().max() <= bound * (1 + 1e-4)


def test_a_row_too_long_is_an_error_by_default(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"more than train.max_length 24"):
        run(tmp_path, tiny_model, max_length=24)
