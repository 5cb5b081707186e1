"""A decoder layer of frozen matrices with adapters as one autograd function: few tensors kept, few passes over them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import silu

from medmind.train.blockwise import attend, differentiate_attention
from medmind.train.norm import differentiate_normal, normalise, scale_rows

PIECE = 1024
"""Rows of the MLP computed at a time: what lies between its products stays in the cache."""


@dataclass(frozen=True)
class Facts:
    """What a layer is made of, in the order in which its matrices are used: q, k, v, o, gate, up, down."""

    norms: tuple[tuple[torch.Tensor, float], ...]
    """Weight and epsilon, before attention and before the MLP."""
    weights: tuple[torch.Tensor, ...]
    scales: tuple[float, ...]
    head: int
    """Numbers of a head."""
    softmax_scale: float


class Products:
    """Frozen matrices that read the same rows, each with a low-rank one beside it or none."""

    def __init__(
        self,
        weights: Sequence[torch.Tensor],
        pairs: Sequence[tuple[torch.Tensor, torch.Tensor] | None],
        scales: Sequence[float],
        dtype: torch.dtype,
    ) -> None:
        self.weights, self.scales = weights, scales
        self.sizes = [len(weight) for weight in weights]
        self.ranks = [0 if pair is None else len(pair[0]) for pair in pairs]
        self.b = [None if p is None else (p[1] * s).to(dtype) for p, s in zip(pairs, scales, strict=True)]
        narrow = [pair[0].to(dtype) for pair in pairs if pair is not None]
        self.a = torch.cat(narrow) if narrow else weights[0].new_empty(0, weights[0].shape[1])
        self.d_a = torch.zeros(self.a.shape)
        self.d_b = [None if b is None else torch.zeros(b.shape) for b in self.b]

    def forward(self, rows: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Fills `out` (rows, outputs of all), returns the small products (rows, ranks of all)."""
        low = rows @ self.a.T
        for weight, b, part, small in zip(self.weights, self.b, *self.split(out, low), strict=True):
            torch.mm(rows, weight.T, out=part)
            if b is not None:
                part.addmm_(small, b.T)
        return low

    def backward(self, rows: torch.Tensor, low: torch.Tensor, d_out: torch.Tensor, d_rows: torch.Tensor | None) -> None:
        """Fills `d_rows`; adds to the gradients of the adapters."""
        d_low = torch.empty_like(low)
        begun = False
        for weight, b, part, small in zip(self.weights, self.b, *self.split(d_out, d_low), strict=True):
            if b is not None:
                torch.mm(part, b, out=small)
            if d_rows is not None:
                d_rows.addmm_(part, weight, beta=int(begun))
                begun = True
        if d_rows is not None:
            d_rows.addmm_(d_low, self.a)
        self.d_a += d_low.T @ rows
        for d_b, part, small, scale in zip(self.d_b, *self.split(d_out, low), self.scales, strict=True):
            if d_b is not None:
                d_b.add_(part.T @ small, alpha=scale)

    def split(self, outputs: torch.Tensor, low: torch.Tensor) -> tuple[Any, Any]:
        return torch.split(outputs, self.sizes, 1), torch.split(low, self.ranks, 1)

    def gradients(self) -> Iterator[torch.Tensor | None]:
        for d_a, d_b in zip(torch.split(self.d_a, self.ranks), self.d_b, strict=True):
            yield from (None, None) if d_b is None else (d_a, d_b)


def group(facts: Facts, adapters: Sequence[torch.Tensor | None], dtype: torch.dtype) -> list[Products]:
    """Of attention what comes in and what goes out, and the same of the MLP."""
    pairs: list[Any] = [None if a is None else (a, b) for a, b in zip(adapters[::2], adapters[1::2], strict=True)]
    cuts = (slice(0, 3), slice(3, 4), slice(4, 6), slice(6, 7))
    return [Products(facts.weights[cut], pairs[cut], facts.scales[cut], dtype) for cut in cuts]


def rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, back: bool = False) -> torch.Tensor:
    """states (tokens, heads, size), cos and sin (tokens, 1, size): turned by the position, or back by it."""
    half, sign = states.shape[-1] // 2, -1 if back else 1
    turned = states * cos
    first, second = turned[..., :half], turned[..., half:]
    first.addcmul_(states[..., half:], sin[..., :half], value=-sign)
    second.addcmul_(states[..., :half], sin[..., half:], value=sign)
    return turned


class Layer(torch.autograd.Function):
    """x (1, tokens, hidden) of packed documents → the same shape."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        facts: Facts,
        lengths: Sequence[int],
        *adapters: torch.Tensor | None,
    ) -> torch.Tensor:
        rows, dtype = x[0], x.dtype
        entering, leaving, widening, narrowing = group(facts, adapters, dtype)
        normal, inverse = normalise(rows, *facts.norms[0], dtype)
        states = rows.new_empty(len(rows), sum(entering.sizes))
        low_in = entering.forward(normal, states)
        query, key, value = by_head(states, entering.sizes, facts.head)
        turned = (rotate(part, cos[0, :, None], sin[0, :, None]) for part in (query, key))
        q, k, v = (part.transpose(0, 1)[None] for part in (*turned, value))
        attended, kept = attend(q, k, v, lengths, facts.softmax_scale, dtype)
        attended = attended.view(len(rows), -1)
        middle = torch.empty_like(rows)
        low_out = leaving.forward(attended, middle)
        middle += rows
        normal, inverse_2 = normalise(middle, *facts.norms[1], dtype)
        wide, result = rows.new_empty(len(rows), sum(widening.sizes)), torch.empty_like(rows)
        lows = []
        for part, gates, out in zip(*(torch.split(each, PIECE) for each in (normal, wide, result)), strict=True):
            low = widening.forward(part, gates)
            gate, up = gates.chunk(2, 1)
            lows.append((low, narrowing.forward(silu(gate).mul_(up), out)))
        result += middle
        low_mlp, low_down = (torch.cat(each) for each in zip(*lows, strict=True))
        ctx.save_for_backward(
            rows,
            inverse,
            low_in,
            cos,
            sin,
            attended,
            low_out,
            middle,
            inverse_2,
            low_mlp,
            wide,
            low_down,
            *kept,
            *adapters,
        )
        ctx.facts, ctx.lengths, ctx.adapters = facts, lengths, len(adapters)
        return result[None]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        rows, inverse, low_in, cos, sin, attended, low_out, middle, inverse_2, low_mlp, wide, low_down, *kept = (
            ctx.saved_tensors
        )
        facts, adapters, kept = ctx.facts, kept[-ctx.adapters :], kept[: -ctx.adapters]
        entering, leaving, widening, narrowing = group(facts, adapters, rows.dtype)
        d_result = gradients[0][0]
        d_normal = torch.empty_like(rows)
        normal = scale_rows(middle, facts.norms[1][0], inverse_2, rows.dtype)
        pieces = (torch.split(each, PIECE) for each in (d_result, normal, wide, low_mlp, low_down, d_normal))
        for d_out, part, gates, low, small, d_part in zip(*pieces, strict=True):
            gate, up = gates.chunk(2, 1)
            d_wide, active, d_both = torch.empty_like(gates), silu(gate), torch.empty_like(gate)
            d_gate, d_up = d_wide.chunk(2, 1)
            narrowing.backward(active * up, small, d_out, d_both)
            torch.mul(d_both, active, out=d_up)
            torch.ops.aten.silu_backward.grad_input(d_both.mul_(up), gate, grad_input=d_gate)
            widening.backward(part, low, d_wide, d_part)
        d_middle = differentiate_normal(middle, facts.norms[1][0], inverse_2, d_normal).add_(d_result)
        d_attended = d_normal.new_empty(attended.shape)
        leaving.backward(attended, low_out, d_middle, d_attended)
        d_states = rows.new_empty(len(rows), sum(entering.sizes))
        parts = by_head(d_states, entering.sizes, facts.head)
        heads = [part.transpose(0, 1)[None] for part in parts]
        differentiate_attention(
            kept, ctx.lengths, facts.softmax_scale, d_attended.view(1, len(rows), -1, facts.head), heads
        )
        for part in parts[:2]:
            part.copy_(rotate(part, cos[0, :, None], sin[0, :, None], back=True))
        normal = scale_rows(rows, facts.norms[0][0], inverse, rows.dtype)
        d_x = None
        entering.backward(normal, low_in, d_states, d_normal if ctx.needs_input_grad[0] else None)
        if ctx.needs_input_grad[0]:
            d_x = differentiate_normal(rows, facts.norms[0][0], inverse, d_normal).add_(d_middle)[None]
        learnt = (one for part in (entering, leaving, widening, narrowing) for one in part.gradients())
        return d_x, None, None, None, None, *learnt


def by_head(states: torch.Tensor, sizes: Sequence[int], head: int) -> list[torch.Tensor]:
    """(tokens, outputs of q, k and v) → (tokens, heads, size) each."""
    return [torch.unflatten(part, 1, (-1, head)) for part in torch.split(states, list(sizes), 1)]
