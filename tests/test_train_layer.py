"""A layer in one function equals the parts it replaces, in values and gradients, and steps aside for all else."""

from array import array
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import tiny_mistral
from transformers import LlamaConfig, LlamaForCausalLM

from medmind.train import attention, compiled, fused, layer
from medmind.train.batches import IGNORED, Row, pack
from medmind.train.loss import completion_loss

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SOME = ["q_proj", "v_proj", "down_proj"]
LENGTHS = (9, 140, 5, 5, 1, 31)


def tiny_llama() -> Any:
    torch.manual_seed(1)
    shape: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    return LlamaForCausalLM(LlamaConfig(vocab_size=8192, **shape, **heads))


MAKERS = {"mistral": lambda: tiny_mistral(1), "llama": tiny_llama}


def adapted(family: str, fuse: bool, dtype: torch.dtype, targets: list[str] = ALL, **settings: Any) -> Any:
    """The same small model either way: LoRA with a B that is not zero, in float32 beside weights in `dtype`."""
    attention.register()
    model = MAKERS[family]().to(dtype)
    model.set_attn_implementation(attention.NAME)
    model = get_peft_model(
        model, LoraConfig(**{"r": 4} | settings, lora_alpha=6, target_modules=targets, task_type="CAUSAL_LM")
    )
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.nn.init.normal_(parameter.data.float(), std=0.1)
    if fuse:
        fused.fuse(model)
    return model


def batch_of(lengths: tuple[int, ...] = LENGTHS) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(2)
    rows = []
    for length in lengths:
        ids = torch.randint(3, 8192, (length,), generator=generator).tolist()
        rows.append(Row("test", array("i", ids), array("i", [*ids[1:], IGNORED]), 1))
    return pack(rows)


def loss_and_gradients(
    model: Any, autocast: bool = False, batch: dict[str, Any] | None = None
) -> dict[str, torch.Tensor]:
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = completion_loss(model, batch or batch_of())
    loss.backward()
    return {"loss": loss.detach()} | {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.fixture(params=["compiled", "products of torch", "torch"])
def passes(request: pytest.FixtureRequest, one_thread: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """With what numba compiles, the passes of it alone, and without."""
    if request.param != "compiled":
        monkeypatch.setattr(compiled, "load_products", lambda: None)
    if request.param == "torch":
        monkeypatch.setattr(compiled, "load", lambda: None)
    used: str = request.param
    return used


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the function ran."""
    made: list[int] = []
    attend = layer.attend_heads
    monkeypatch.setattr(layer, "attend_heads", lambda *given: made.append(1) or attend(*given))
    return made


@pytest.mark.parametrize("family", MAKERS)
@pytest.mark.parametrize("targets", [ALL, SOME], ids=["all", "some"])
def test_a_layer_equals_its_twin(
    family: str, targets: list[str], passes: str, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer, "PIECE", 100)
    slow = loss_and_gradients(adapted(family, False, torch.float32, targets))
    assert not calls
    fast = loss_and_gradients(adapted(family, True, torch.float32, targets))
    assert len(calls) == 2
    assert slow.keys() == fast.keys() and len(slow) == 1 + 4 * len(targets)
    for name in slow:
        torch.testing.assert_close(fast[name], slow[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", MAKERS)
def test_in_bfloat16_a_layer_is_as_near_the_truth_as_its_twin(family: str, passes: str) -> None:
    truth = loss_and_gradients(adapted(family, False, torch.float32))
    slow = loss_and_gradients(adapted(family, False, torch.bfloat16), autocast=True)
    fast = loss_and_gradients(adapted(family, True, torch.bfloat16), autocast=True)
    for name in truth:
        assert fast[name].dtype == slow[name].dtype
        assert (fast[name] - truth[name]).norm() <= 1.3 * (slow[name] - truth[name]).norm() + 2e-5 * truth[name].norm()


def padded(model: Any) -> None:
    ids = torch.arange(3, 20)[None]
    model(input_ids=ids, attention_mask=torch.ones_like(ids))


def hooked(model: Any) -> None:
    model.base_model.model.model.layers[0].mlp.register_forward_hook(lambda *_: None)
    model.base_model.model.model.layers[1].mlp.up_proj.register_forward_pre_hook(lambda *_: None)
    completion_loss(model, batch_of())


def disabled(model: Any) -> None:
    with model.disable_adapter():
        completion_loss(model, batch_of())


def merged(model: Any) -> None:
    model.merge_adapter()
    completion_loss(model, batch_of())


def windowed(model: Any) -> None:
    for one in model.base_model.model.model.layers:
        one.self_attn.config.sliding_window = 139
    completion_loss(model, batch_of())


def learning_norm(model: Any) -> None:
    for one in model.base_model.model.model.layers:
        one.input_layernorm.weight.requires_grad_()
    completion_loss(model, batch_of())


def moved(model: Any) -> None:
    """The model's matrices are no longer those that were laid side by side."""
    model.double().float()
    completion_loss(model, batch_of())


def with_dropout(model: Any) -> None:
    for one in model.base_model.model.model.layers:
        one.train().self_attn.attention_dropout = 0.5
    completion_loss(model, batch_of())


def test_an_odd_rank_is_right_too(passes: str) -> None:
    truth = loss_and_gradients(adapted("mistral", False, torch.float32, r=3))
    fast = loss_and_gradients(adapted("mistral", True, torch.bfloat16, r=3), autocast=True)
    for name in truth:
        assert (fast[name] - truth[name]).norm() <= 0.04 * truth[name].norm()


@pytest.mark.parametrize("use", [padded, hooked, disabled, merged, windowed, learning_norm, with_dropout, moved])
def test_what_the_function_does_not_know_goes_to_the_twin(
    use: Any, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = adapted("mistral", True, torch.float32)
    use(model)
    assert not calls


@pytest.mark.parametrize("settings", [{"lora_dropout": 0.5}, {"use_dora": True}, {"lora_bias": True}])
def test_only_plain_adapters_are_known(settings: dict[str, Any], calls: list[int]) -> None:
    loss_and_gradients(adapted("mistral", True, torch.float32, **settings))
    assert not calls


def test_one_document_alone_and_text_without_gradients(calls: list[int]) -> None:
    slow, fast = (adapted("mistral", fuse, torch.float32) for fuse in (False, True))
    with torch.no_grad():
        one, other = (completion_loss(model, batch_of((30,))) for model in (slow, fast))
    torch.testing.assert_close(one, other, rtol=1e-5, atol=0)
    assert len(calls) == 2


def test_the_matrices_of_a_layer_are_held_once() -> None:
    model = adapted("mistral", False, torch.float32)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    fused.fuse(model)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
    decoder = model.base_model.model.model.layers[0]
    storages = {one.base_layer.weight.untyped_storage().data_ptr() for one in fused.matrices(decoder)}
    assert storages == {products.matrix.untyped_storage().data_ptr() for products in decoder.products}
    assert len(storages) == 4


def test_adapters_that_changed_between_forward_and_backward_are_noticed() -> None:
    model = adapted("mistral", True, torch.float32)
    loss = completion_loss(model, batch_of())
    with torch.no_grad():
        model.base_model.model.model.layers[0].self_attn.q_proj.lora_B["default"].weight += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
