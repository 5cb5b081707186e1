"""A decoder layer of frozen matrices with adapters as one autograd function: few tensors kept, few passes over them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from medmind.train.gates import activate, differentiate_activation
from medmind.train.heads import Documents, Heads, Turns, attend_heads, differentiate_heads
from medmind.train.norm import differentiate_normal, normalise, scale_rows
from medmind.train.products import Gradients, Products

PIECE = 1024
"""Rows of the MLP computed at a time: what lies between its products stays in the cache."""
CUTS = (slice(0, 3), slice(3, 4), slice(4, 6), slice(6, 7))
"""Of q, k, v, o, gate, up, down those that read the same rows."""


@dataclass(frozen=True)
class Facts:
    """What a layer is made of."""

    norms: tuple[tuple[torch.Tensor, float], ...]
    """Weight and epsilon, before attention and before the MLP."""
    groups: tuple[Products, ...]
    """What enters attention and leaves it, what enters the MLP and leaves it."""
    scales: tuple[tuple[float, ...], ...]
    heads: Heads


class Layer(torch.autograd.Function):
    """x (1, tokens, hidden) of packed documents → the same shape."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        facts: Facts,
        documents: Documents,
        *adapters: torch.Tensor | None,
    ) -> torch.Tensor:
        rows, turns = x[0].contiguous(), Turns(cos[0], sin[0])
        pairs: list[Any] = [None if a is None else (a, b) for a, b in zip(adapters[::2], adapters[1::2], strict=True)]
        for products, cut, scales in zip(facts.groups, CUTS, facts.scales, strict=True):
            products.take(pairs[cut], scales)
        entering, leaving, *_ = facts.groups
        normal, states = entering.room(len(rows)), rows.new_empty(len(rows), sum(entering.sizes))
        inverse = normalise(rows, *facts.norms[0], normal)
        low_in = entering.forward(normal, states).clone()
        attended, middle = leaving.room(len(rows)), torch.empty_like(rows)
        kept = attend_heads(facts.heads, states, turns, documents, attended)
        leaving.forward(attended, middle)
        result, of_mlp = add_mlp(facts, rows, middle)
        ctx.save_for_backward(rows, inverse, low_in, cos, sin, attended, middle, *of_mlp, *kept, *adapters)
        ctx.facts, ctx.documents, ctx.adapters = facts, documents, len(adapters)
        return result[None]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        rows, inverse, low_in, cos, sin, attended, middle, *saved = ctx.saved_tensors
        facts, of_mlp, kept = ctx.facts, saved[:4], saved[4 : -ctx.adapters]
        entering, leaving, *_ = facts.groups
        learnt = [Gradients(products, scales) for products, scales in zip(facts.groups, facts.scales, strict=True)]
        d_middle = differentiate_mlp(facts, middle, of_mlp, gradients[0][0].contiguous(), learnt[2:])
        d_attended = rows.new_empty(len(rows), leaving.width)
        d_low = leaving.backward(d_middle, d_attended)
        learnt[1].add(attended, attended[:, leaving.width :], d_middle, d_low)
        d_states = differentiate_heads(facts.heads, kept, Turns(cos[0], sin[0]), ctx.documents, d_attended)
        normal, d_normal = entering.room(len(rows)), torch.empty_like(rows)
        scale_rows(rows, facts.norms[0][0], inverse, normal)
        wanted = ctx.needs_input_grad[0]
        d_low = entering.backward(d_states, d_normal if wanted else None)
        learnt[0].add(normal, low_in, d_states, d_low)
        d_x = differentiate_normal(rows, facts.norms[0][0], inverse, d_normal, more=d_middle)[None] if wanted else None
        return d_x, None, None, None, None, *(one for each in learnt for one in each)


def add_mlp(facts: Facts, rows: torch.Tensor, middle: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What attention gave becomes its sum with the rows; returns that with the MLP's, and what the gradient needs."""
    *_, widening, narrowing = facts.groups
    normal, wide = widening.room(len(rows)), rows.new_empty(len(rows), sum(widening.sizes))
    low_down, result = rows.new_empty(len(rows), sum(narrowing.ranks)), torch.empty_like(rows)
    inverse = normalise(middle, *facts.norms[1], normal, more=rows)
    pieces = in_pieces(normal, wide, low_down, result)
    for part, gates, small, out in pieces:
        widening.forward(part, gates)
        inner = narrowing.room(len(part))
        activate(gates, inner)
        small.copy_(narrowing.forward(inner, out))
    return result.add_(middle), [inverse, normal[:, widening.width :].clone(), wide, low_down]


def differentiate_mlp(
    facts: Facts,
    middle: torch.Tensor,
    saved: Sequence[torch.Tensor],
    d_result: torch.Tensor,
    learnt: Sequence[Gradients],
) -> torch.Tensor:
    """The gradient of `middle`; those of the adapters are added to what is learnt."""
    *_, widening, narrowing = facts.groups
    inverse, low_mlp, wide, low_down = saved
    normal, d_normal = widening.room(len(middle)), torch.empty_like(middle)
    scale_rows(middle, facts.norms[1][0], inverse, normal)
    pieces = in_pieces(d_result, normal, wide, low_mlp, low_down, d_normal)
    for d_out, part, gates, low, small, d_part in pieces:
        inner, d_gates = narrowing.room(len(part)), torch.empty_like(gates)
        d_inner = gates.new_empty(len(part), narrowing.width)
        d_small = narrowing.backward(d_out, d_inner)
        differentiate_activation(gates, d_inner, inner, d_gates)
        learnt[1].add(inner, small, d_out, d_small)
        learnt[0].add(part, low, d_gates, widening.backward(d_gates, d_part))
    return differentiate_normal(middle, facts.norms[1][0], inverse, d_normal, more=d_result)


def in_pieces(*matrices: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """At most PIECE rows of each at a time, about as many in all: a short one would take longer for its size."""
    rows = len(matrices[0])
    size = -(-rows // -(-rows // PIECE))
    yield from zip(*(torch.split(each, size) for each in matrices), strict=True)
