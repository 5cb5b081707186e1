"""What is for a GPU alone is refused without one, and does what it says as far as a CPU can tell."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
from test_train_layer import adapted, batch_of
from test_train_methods import TWO_STEPS, run
from torch._dynamo.testing import CompileCounter

from medmind.core.errors import EnvironmentFault
from medmind.core.jsonl import read_jsonl
from medmind.core.offline import keep_quiet
from medmind.models.catalog import find_model
from medmind.train import adapter, attention, unsloth
from medmind.train import fused as fused_module
from medmind.train.adapter import compile_layers, prepare_model
from medmind.train.arguments import LIGER
from medmind.train.config import TrainConfig
from medmind.train.loss import completion_loss

KEYS = {"torch_compile": True, "use_liger_kernel": True, "backend": "unsloth"}
LENGTHS = ((9, 30, 5), (4, 4), (17,), (50, 3, 3, 8), (12, 7))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.mark.parametrize("key", KEYS)
def test_it_is_refused_on_a_cpu(key: str, tiny_model: Path) -> None:
    with pytest.raises(EnvironmentFault, match=f"train.{key}.* needs a GPU"):
        prepare_model(TWO_STEPS.model_copy(update={key: KEYS[key]}), find_model(str(tiny_model)), seed=0)


@pytest.mark.parametrize(("key", "package"), [("use_liger_kernel", "liger-kernel"), ("backend", "unsloth")])
def test_a_package_that_is_missing_is_named(key: str, package: str, gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault) as found:
        adapter.check_machine(TrainConfig(**{key: KEYS[key]}))
    assert found.value.todo == f"pip install {package}"
    monkeypatch.setattr(adapter, "find_spec", lambda name: name)
    adapter.check_machine(TrainConfig(**{key: KEYS[key]}))


@pytest.fixture
def whole_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
    attention.register()


def test_compiled_layers_learn_the_same_and_are_not_compiled_anew_for_every_length(
    whole_graphs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = CompileCounter()
    plain, compiled = (adapted("llama", fused, torch.float32) for fused in (False, True))
    monkeypatch.setattr(fused_module, "documents_of", lambda *inputs, **settings: None)  # not a CPU
    attention.register(compiled=True)
    compile_layers(compiled.base_model.model, backend=counter)
    made = []
    for lengths in LENGTHS:
        losses = []
        for model in (plain, compiled):
            model.zero_grad()
            losses.append(completion_loss(model, batch_of(lengths)))
            losses[-1].backward()  # type: ignore[no-untyped-call]
        torch.testing.assert_close(*losses)
        for one, other in zip(plain.parameters(), compiled.parameters(), strict=True):
            assert (one.grad is None) == (other.grad is None)
            if one.grad is not None:
                torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)
        made.append(counter.frame_count)
    assert made[0] > 0
    assert made[-1] == made[-2], "a length that is new needs no new kernel"


def test_liger_is_told_which_of_its_kernels_are_wanted(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    module: Any = ModuleType("liger_kernel.transformers")
    module._apply_liger_kernel_to_instance = lambda **settings: asked.append(settings)
    monkeypatch.setitem(sys.modules, "liger_kernel", ModuleType("liger_kernel"))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers", module)
    monkeypatch.setattr("transformers.integrations.liger.is_liger_kernel_available", lambda: True)
    monkeypatch.setattr(adapter, "needs_gpu", lambda config: {})
    for wanted in (False, True):
        run(tmp_path / str(wanted), tiny_model, use_liger_kernel=wanted)
        assert len(asked) == int(wanted)
    assert {name: value for name, value in asked[0].items() if name != "model"} == LIGER
    assert not LIGER["cross_entropy"] and not LIGER["fused_linear_cross_entropy"], "the loss is ours"


class FastLanguageModel:
    """Unsloth's door over plain transformers and PEFT, and its word for the lengths of documents."""

    asked: dict[str, Any]

    @classmethod
    def from_pretrained(cls, name: str, **settings: Any) -> tuple[Any, None]:
        cls.asked = {"name": name} | settings
        attention.register()
        model = transformers.AutoModelForCausalLM.from_pretrained(name, dtype=settings["dtype"])
        model.set_attn_implementation(attention.NAME)
        return model, None

    @classmethod
    def get_peft_model(cls, model: Any, **settings: Any) -> Any:
        from peft import LoraConfig, get_peft_model

        cls.asked |= settings
        torch.manual_seed(settings["random_state"])
        names = ("r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora")
        lora = LoraConfig(task_type="CAUSAL_LM", **{name: settings[name] for name in names})
        forward = model.forward

        def by_its_name(packed_seq_lengths: Any = None, logits_to_keep: Any = 0, **inputs: Any) -> Any:
            assert packed_seq_lengths.dtype == torch.int32 and "segments" not in inputs
            return forward(segments=packed_seq_lengths, **inputs)

        model.forward = by_its_name
        return get_peft_model(model, lora)


def test_with_unsloth_rows_and_loss_are_the_same(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("unsloth")
    module.FastLanguageModel = FastLanguageModel
    monkeypatch.setitem(sys.modules, "unsloth", module)
    spec = find_model(str(tiny_model))
    config = TWO_STEPS.model_copy(update={"dtype": "float32"})
    theirs: Any = unsloth.prepare(config, spec, seed=3)
    ours: Any = prepare_model(config, spec, seed=3)
    losses = [completion_loss(model, batch_of(LENGTHS[0])) for model in (theirs, ours)]
    torch.testing.assert_close(*losses)
    losses[0].backward()  # type: ignore[no-untyped-call]
    learnt = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    assert learnt and all(one.dtype == torch.float32 and one.grad is not None for one in learnt)
    asked = FastLanguageModel.asked
    assert asked["name"] == str(tiny_model) and asked["use_exact_model_name"], "none of Unsloth's own repositories"
    assert (asked["load_in_4bit"], asked["load_in_8bit"], asked["trust_remote_code"]) == (False, False, False)
    assert asked["r"] == config.lora.r and asked["random_state"] == 3
    assert theirs.peft_config["default"].base_model_name_or_path == spec.source


def test_tokens_are_counted_by_us_whatever_is_put_into_the_trainer(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unsloth puts a count of its own into the class; labels of ours are shifted already."""

    def theirs(*given: Any) -> Any:
        raise AssertionError("the Trainer's own way of counting was asked")

    monkeypatch.setattr(transformers.Trainer, "get_batch_samples", theirs)
    lines = list(read_jsonl(run(tmp_path, tiny_model)[0].metrics))
    assert all(line["supervised_tokens"] > 0 for line in lines if "loss" in line)


def test_unsloth_tells_nobody_that_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNSLOTH_DISABLE_STATISTICS", raising=False)
    keep_quiet(allow_hub=True)
    assert os.environ["UNSLOTH_DISABLE_STATISTICS"] == "1"
