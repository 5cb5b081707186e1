"""The summed cross entropy equals its slow twin, in values and gradients, for every kind of head."""

from array import array
from typing import Any

import pytest
import torch
from tiny import tiny_mistral
from torch.nn.functional import cross_entropy

from medmind.train import attention, loss
from medmind.train.batches import IGNORED, Row, pack, pad
from medmind.train.loss import completion_loss, plain_head, summed_cross_entropy

VOCABULARY, SIZE, TOKENS = 50, 16, 23


def plain_loss(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return cross_entropy((hidden @ weight.T).float(), labels, reduction="sum")


def problem(learns: tuple[bool, bool], scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    hidden, weight = torch.randn(TOKENS, SIZE) * scale, torch.randn(VOCABULARY, SIZE)
    return hidden.requires_grad_(learns[0]), weight.requires_grad_(learns[1]), torch.randint(VOCABULARY, (TOKENS,))


@pytest.mark.parametrize("learns", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_it_equals_cross_entropy(learns: tuple[bool, bool], scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "ROWS", 10)
    monkeypatch.setattr(loss, "CACHED", 3 * VOCABULARY)
    hidden, weight, labels = problem(learns, scale)
    inputs = [tensor for tensor in (hidden, weight) if tensor.requires_grad]
    ours, theirs = summed_cross_entropy(hidden, weight, labels), plain_loss(hidden, weight, labels)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    for one, other in zip(*(torch.autograd.grad(each / 7, inputs) for each in (ours, theirs)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_without_gradients_none_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, labels = problem((True, True))
    monkeypatch.setattr(loss, "multiply", lambda *_: pytest.fail("a gradient nobody asked for"))
    with torch.no_grad():
        assert not summed_cross_entropy(hidden, weight, labels).requires_grad


def test_autocast_computes_in_bfloat16_and_returns_gradients_as_they_came() -> None:
    hidden, weight, labels = problem((True, True))
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = summed_cross_entropy(hidden, weight, labels), plain_loss(hidden, weight, labels)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    for one, other in zip(*(torch.autograd.grad(each, (hidden, weight)) for each in (ours, theirs)), strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.01 * other.norm()


def rows() -> list[Row]:
    generator = torch.Generator().manual_seed(2)
    made = []
    for length in (9, 14, 5):
        ids = torch.randint(3, 8192, (length,), generator=generator).tolist()
        made.append(Row("test", array("i", ids), array("i", (IGNORED, *ids[2:], IGNORED)), 1))
    return made


def adapted(model: Any, targets: list[str]) -> Any:
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM"))


@pytest.mark.parametrize("kind", ["tied", "untied", "lora", "lora on the head"])
def test_packed_equals_padded_for_every_head(kind: str) -> None:
    attention.register()
    model: Any = tiny_mistral(1, tie_word_embeddings=kind == "tied")
    model.set_attn_implementation(attention.NAME)
    if kind.startswith("lora"):
        model = adapted(model, ["lm_head"] if kind == "lora on the head" else ["q_proj"])
    assert (plain_head(model) is None) == (kind == "lora on the head")
    results = []
    for batch in (pack(rows()), pad(rows())):
        model.zero_grad()
        result = completion_loss(model, batch)
        result.backward()
        results.append((result, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (ours, our_gradients), (theirs, their_gradients) = results
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    for one, other in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert model(input_ids=torch.tensor([[3, 4]])).logits.shape == (1, 2, 8192), "the head gives logits again"


def test_a_head_with_a_bias_or_a_hook_keeps_its_own_product() -> None:
    model = tiny_mistral(1)
    head = model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(8192))
    assert plain_head(model) is None
    head.bias = None
    assert plain_head(model) is head
    head.forward = head.forward  # as accelerate does to a module it moves between devices
    assert plain_head(model) is None


def test_an_error_inside_the_model_gives_the_head_back() -> None:
    model = tiny_mistral(1)
    with pytest.raises(TypeError):
        completion_loss(model, pack(rows()) | {"input_ids": "no ids"})
    assert plain_head(model) is not None
