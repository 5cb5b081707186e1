"""The fused parts equal the ones they replace, in values and gradients, and step aside where they do not apply."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import tiny_mistral
from transformers.models.mistral.modeling_mistral import MistralRMSNorm

from medmind.train import fused

FLOAT = {"rtol": 1e-5, "atol": 1e-5}


def adapted(fuse: bool, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    """The same small model either way: LoRA with a B that is not zero."""
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM", **settings)
    model = get_peft_model(tiny_mistral(1).to(dtype), config)
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    if fuse:
        fused.fuse(model)
    return model


def values_and_gradients(model: Any, autocast: bool = False) -> dict[str, torch.Tensor]:
    ids = torch.arange(3, 40)[None]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(input_ids=ids, use_cache=False).logits.float()
    torch.manual_seed(4)
    (logits * torch.randn(logits.shape)).sum().backward()
    return {"logits": logits} | {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def norm_results(norm: Any, x: torch.Tensor, autocast: bool) -> list[torch.Tensor]:
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = torch.nn.functional.linear(norm(x), torch.eye(64, dtype=x.dtype))
    torch.manual_seed(5)
    inputs = [tensor for tensor in (x, norm.weight) if tensor.requires_grad]
    return [result, *torch.autograd.grad(result, inputs, torch.randn(result.shape).to(result.dtype))]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_norm_equals_its_twin(frozen: bool, autocast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medmind.train.norm.CACHED", 3 * 64)
    torch.manual_seed(2)
    norm, x = MistralRMSNorm(64), torch.randn(2, 7, 64, requires_grad=True)
    torch.nn.init.normal_(norm.weight).requires_grad_(not frozen)
    slow = norm_results(norm, x, autocast)
    fused.fuse(norm)
    assert type(norm) is fused.FusedNorm
    fast = norm_results(norm, x, autocast)
    for one, other in zip(fast, slow, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, **FLOAT)


def test_the_norm_rounds_bfloat16_no_more_than_its_twin() -> None:
    torch.manual_seed(2)
    norm, x = MistralRMSNorm(64).to(torch.bfloat16), torch.randn(9, 64)
    torch.nn.init.normal_(norm.weight)
    exact = x.bfloat16().double()
    exact = norm.weight.double() * exact * (exact.square().mean(-1, keepdim=True) + norm.variance_epsilon).rsqrt()
    slow = (norm(x.bfloat16()) - exact).norm()
    fused.fuse(norm)
    assert (norm(x.bfloat16()) - exact).norm() <= slow


def test_lora_equals_its_twin() -> None:
    slow, fast = values_and_gradients(adapted(False)), values_and_gradients(adapted(True))
    assert slow.keys() == fast.keys() and len(slow) > 8
    for name in slow:
        torch.testing.assert_close(fast[name], slow[name], rtol=1e-4, atol=1e-5)


def test_lora_under_autocast_is_as_near_the_truth_as_its_twin() -> None:
    truth = values_and_gradients(adapted(False, torch.float32))
    slow = values_and_gradients(adapted(False, torch.bfloat16), autocast=True)
    fast = values_and_gradients(adapted(True, torch.bfloat16), autocast=True)
    for name in truth:
        assert fast[name].dtype == slow[name].dtype
        assert (fast[name] - truth[name]).norm() <= 1.3 * (slow[name] - truth[name]).norm()


@pytest.mark.parametrize(
    "settings", [{"lora_dropout": 0.5}, {"use_dora": True}, {"init_lora_weights": "olora"}, {"lora_bias": True}]
)
def test_only_plain_lora_is_fused(settings: dict[str, Any]) -> None:
    model = adapted(True, **settings)
    found = {type(module).__name__ for module in model.modules()}
    assert ("FusedLora" in found) == (settings == {"init_lora_weights": "olora"})


def test_a_disabled_or_merged_adapter_is_honoured() -> None:
    slow, fast = adapted(False), adapted(True)
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        with slow.disable_adapter(), fast.disable_adapter():
            torch.testing.assert_close(fast(input_ids=ids).logits, slow(input_ids=ids).logits, **FLOAT)
        before = fast(input_ids=ids).logits
        fast.merge_adapter()
        torch.testing.assert_close(fast(input_ids=ids).logits, before, rtol=1e-4, atol=1e-4)


def test_beside_a_gpu_no_matrix_is_laid_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole would stay in host memory; the twin does the work there."""
    joined = adapted(fuse=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    beside = adapted(fuse=True)
    for model, held in ((joined, True), (beside, False)):
        layers = model.base_model.model.model.layers
        assert [hasattr(layer, "products") for layer in layers] == [held] * len(layers)
