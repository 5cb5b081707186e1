"""Blockwise attention equals its slow twin, sdpa, in values and gradients."""

import itertools
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from medmind.train import attention, blockwise

PACKED = torch.empty(1, 1, 0, 0, dtype=torch.bool)
LENGTHS = (40, 40, 7, 130, 1, 40, 300)
SHAPES = ((4, 8), (2, 8), (2, 8))
"""Heads and their size of query, key and value: two queries to a key."""


def states(dtype: torch.dtype, tokens: int) -> list[torch.Tensor]:
    """(1, heads, tokens, size) each, laid out in memory as a model's projections are."""
    torch.manual_seed(0)
    return [torch.randn(1, tokens, *shape, dtype=dtype).transpose(1, 2).requires_grad_() for shape in SHAPES]


def by_sdpa(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
    documents = zip(*(part.split(lengths, 2) for part in (query, key, value)), strict=True)
    results = [scaled_dot_product_attention(*each, is_causal=True, enable_gqa=True, scale=0.3) for each in documents]
    return torch.cat(results, 2).transpose(1, 2)


def values_and_gradients(result: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    torch.manual_seed(1)
    weights = torch.randn(result.shape, dtype=torch.float64).to(result.dtype)
    return [result, *torch.autograd.grad(result, inputs, weights)]


@pytest.mark.parametrize("kept", [blockwise.KEPT, 100])
def test_blockwise_equals_sdpa(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "KEPT", kept)
    inputs = states(torch.float32, sum(LENGTHS))
    ours = values_and_gradients(blockwise.causal_attention(*inputs, LENGTHS, 0.3), inputs)
    theirs = values_and_gradients(by_sdpa(*inputs, LENGTHS), inputs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_in_bfloat16_it_is_no_further_from_the_truth_than_sdpa() -> None:
    exact = states(torch.float64, sum(LENGTHS))
    truth = values_and_gradients(by_sdpa(*exact, LENGTHS), exact)
    rounded = states(torch.float64, sum(LENGTHS))
    inputs = [part.detach().bfloat16().requires_grad_() for part in rounded]
    ours = values_and_gradients(blockwise.causal_attention(*inputs, LENGTHS, 0.3), inputs)
    theirs = values_and_gradients(by_sdpa(*inputs, LENGTHS), inputs)
    for one, other, true in zip(ours, theirs, truth, strict=True):
        assert one.dtype == torch.bfloat16
        assert (one - true).norm() <= 1.5 * (other - true).norm()


def test_autocast_computes_in_bfloat16_and_returns_gradients_as_they_came() -> None:
    inputs = states(torch.float32, 40)
    with torch.autocast("cpu", torch.bfloat16):
        result = blockwise.causal_attention(*inputs, (40,), 0.3)
    assert result.dtype == torch.bfloat16
    assert [gradient.dtype for gradient in values_and_gradients(result, inputs)[1:]] == [torch.float32] * 3


@pytest.mark.parametrize(("window", "fast"), [(None, True), (40, True), (39, False)])
def test_only_documents_within_the_window_go_blockwise(
    window: int | None, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(attention, "causal_attention", lambda *a: calls.append(a) or blockwise.causal_attention(*a))
    inputs, segments = states(torch.float32, 60), torch.tensor([40, 20])
    settings = {"scaling": 0.3, "segments": segments}
    result, _ = attention.packed_attention(torch.nn.Module(), *inputs, PACKED, sliding_window=window, **settings)
    whole, _ = attention.packed_attention(torch.nn.Module(), *inputs, PACKED, **settings)
    assert len(calls) == (2 if fast else 1)
    assert torch.allclose(result, whole, atol=1e-5) == fast


def test_dropout_goes_to_sdpa(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "causal_attention", lambda *a: pytest.fail("dropout was left out"))
    inputs, segments = states(torch.float32, 60), torch.tensor([40, 20])
    attention.packed_attention(torch.nn.Module(), *inputs, PACKED, dropout=0.5, segments=segments)


@pytest.mark.parametrize("window", [None, 30])
def test_the_kernel_of_a_gpu_is_told_where_documents_begin(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel itself needs a GPU; here one document after the other takes its place, read from its arguments."""

    def kernel(*given: Any, scale: float, window_size: tuple[int, int], enable_gqa: bool) -> torch.Tensor:
        q, k, v, starts, ends, *longest = given
        assert longest == [300, 300] and torch.equal(starts, ends) and window_size[1] == 0 and enable_gqa
        parts = []
        for start, end in itertools.pairwise(starts.tolist()):
            mask = attention.window_mask(end - start, None if window is None else window_size[0] + 1, q.device)
            one = [part[start:end].transpose(0, 1)[None] for part in (q, k, v)]
            causal = mask is None
            done = scaled_dot_product_attention(*one, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=True)
            parts.append(done[0].transpose(0, 1))
        return torch.cat(parts)

    monkeypatch.setattr(attention, "varlen_attn", kernel)
    inputs, segments = states(torch.float32, sum(LENGTHS)), torch.tensor(LENGTHS)
    ours = attention.by_varlen(*inputs, list(LENGTHS), 0.3, window)
    settings = {"scaling": 0.3, "segments": segments, "sliding_window": window}
    theirs, _ = attention.packed_attention(torch.nn.Module(), *inputs, PACKED, **settings)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
