"""A T4 computes in float16, which `auto` takes there: what a CPU can show of it.

accelerate scales gradients on GPUs alone, and medmind refuses float16 elsewhere; both are stood in for, no more.
"""

from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from safetensors.torch import load_file
from test_train_methods import run

from medmind.train import adapter, engine, machine


class Machine:
    """What training had there: the models it prepared, and after each step the scale of the gradients."""

    def __init__(self) -> None:
        self.first_scale = 2.0**10
        self.models: list[Any] = []
        self.scales: list[float] = []


@pytest.fixture
def t4(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    begin, prepare = accelerate.Accelerator.__init__, adapter.prepare_model

    class Scaler(torch.amp.GradScaler):
        def update(self, new_scale: Any = None) -> None:
            super().update(new_scale)
            found.scales.append(self.get_scale())

    def begin_scaled(self: Any, *args: Any, **settings: Any) -> None:
        begin(self, *args, **settings)
        assert self.mixed_precision == "fp16" and self.scaler is None
        self.native_amp, self.scaler = True, Scaler("cpu", init_scale=found.first_scale)

    def keep(*args: Any) -> Any:
        found.models.append(prepare(*args))
        return found.models[-1]

    monkeypatch.setattr(accelerate.Accelerator, "__init__", begin_scaled)
    monkeypatch.setattr(engine, "prepare_model", keep)
    monkeypatch.setattr(adapter, "check_machine", lambda config: None)
    for module in (machine, adapter):
        monkeypatch.setattr(module, "pick_dtype", lambda name: torch.float16)
    return found


@pytest.mark.parametrize("method", ["lora", "qlora", "lora8"])
def test_adapters_in_float32_learn_over_a_base_in_float16(
    method: str, tiny_model: Path, tmp_path: Path, t4: Machine
) -> None:
    rundir, _, held_out = run(tmp_path, tiny_model, method=method, dtype="auto", max_steps=3)
    assert held_out[-1] < held_out[0] and t4.scales == [t4.first_scale] * 3
    (model,) = t4.models
    assert {one.dtype for one in model.parameters() if one.requires_grad} == {torch.float32}
    saved = load_file(rundir.adapter / "adapter_model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.float32}
    layer = model.get_submodule("base_model.model.model.layers.0.mlp.up_proj.base_layer")
    if method == "lora":
        assert layer.weight.dtype == torch.float16
    if method == "qlora":
        assert layer.compute_dtype == torch.float16


def test_a_step_too_large_for_float16_is_passed_over(tiny_model: Path, tmp_path: Path, t4: Machine) -> None:
    """The scale is halved and training goes on; the guard against gradients that are no numbers does not stop it."""
    t4.first_scale = 2.0**60
    rundir, steps, _ = run(tmp_path, tiny_model, dtype="auto", max_steps=3)
    assert len(steps) == 3 and t4.scales == [2.0**59, 2.0**58, 2.0**57]
    saved = load_file(rundir.adapter / "adapter_model.safetensors")
    assert not any(value.any() for name, value in saved.items() if "lora_B" in name)
