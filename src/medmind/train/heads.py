"""A layer's attention over packed documents on a CPU: from queries, keys and values side by side, and their gradients.

Compiled, each document is taken to its heads and turned in one pass; else by parts, all documents of a length at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

from medmind.train.blockwise import BLOCK, KEPT, attend, differentiate_attention
from medmind.train.compiled import bits, number, passes_for
from medmind.train.multiply import add_outer, multiply, multiply_by_rows


@dataclass(frozen=True)
class Heads:
    """How many key heads there are, how many queries share one, and how long they are."""

    keys: int
    group: int
    size: int
    scale: float

    @property
    def sizes(self) -> list[int]:
        """Columns of queries, keys and values."""
        return [self.keys * self.group * self.size, self.keys * self.size, self.keys * self.size]


@dataclass(frozen=True)
class Turns:
    """Cosines and sines of the positions, (tokens, size) each."""

    cos: torch.Tensor
    sin: torch.Tensor


def attend_heads(
    heads: Heads, states: torch.Tensor, turns: Turns, lengths: Sequence[int], out: torch.Tensor
) -> list[torch.Tensor]:
    """states (tokens, q, k, v) → the first columns of `out`; returns what the gradient will need."""
    if passes := passes_for(states):
        firsts = accumulate(lengths, initial=0)
        made = (
            attend_document(passes, heads, states, turns, first, length, out)
            for first, length in zip(firsts, lengths, strict=False)
        )
        return [tensor for kept in made for tensor in kept]
    query, key, value = by_head(states, heads)
    turned = (rotate(part, turns) for part in (query, key))
    q, k, v = (part.transpose(0, 1)[None] for part in (*turned, value))
    attended, kept = attend(q, k, v, lengths, heads.scale, states.dtype)
    out[:, : heads.sizes[0]].copy_(attended.view(len(states), -1))
    return kept


def differentiate_heads(
    heads: Heads, kept: Sequence[torch.Tensor], turns: Turns, lengths: Sequence[int], d_out: torch.Tensor
) -> torch.Tensor:
    """d_out, whose first columns are those of the heads → the gradient of the states."""
    d_states = d_out.new_empty(len(d_out), sum(heads.sizes))
    if passes := passes_for(d_out):
        saved = iter(kept)
        for first, length in zip(accumulate(lengths, initial=0), lengths, strict=False):
            differentiate_document(passes, heads, saved, turns, first, length, d_out, d_states)
        return d_states
    parts = by_head(d_states, heads)
    gradients = [part.transpose(0, 1)[None] for part in parts]
    d_attended = torch.unflatten(d_out[:, : heads.sizes[0]], 1, (-1, heads.size))[None]
    differentiate_attention(kept, lengths, heads.scale, d_attended, gradients)
    for part in parts[:2]:
        part.copy_(rotate(part, turns, back=True))
    return d_states


def attend_document(
    passes: Any, heads: Heads, states: torch.Tensor, turns: Turns, first: int, length: int, out: torch.Tensor
) -> list[torch.Tensor]:
    query = states.new_empty(heads.keys, length * heads.group, heads.size)
    key, value = (states.new_empty(heads.keys, length, heads.size) for _ in range(2))
    cos, sin = bits(turns.cos), bits(turns.sin)
    passes.take_heads(bits(states), first, cos, sin, bits(query), bits(key), bits(value))
    rows, kept = torch.empty_like(query), [query, key, value]
    for start, end, probabilities in weigh(passes, heads, query, key):
        part = slice(start * heads.group, end * heads.group)
        multiply(probabilities, value[:, :end], rows[:, part])
        if length <= KEPT:
            kept.append(probabilities)
    passes.give_rows(bits(rows), first, heads.group, bits(out))
    return kept


def weigh(
    passes: Any, heads: Heads, query: torch.Tensor, key: torch.Tensor, backwards: bool = False
) -> Iterator[tuple[int, int, torch.Tensor]]:
    """(start, end, probabilities) of each block of positions, over the keys up to its end.

    With a last column of zeros where their number is odd.
    """
    length = key.shape[1]
    starts = range(0, length, BLOCK)
    for start in reversed(starts) if backwards else starts:
        end = min(start + BLOCK, length)
        part = query[:, start * heads.group : end * heads.group]
        scores = query.new_empty(*part.shape[:2], end + end % 2)
        multiply_by_rows(part, key[:, :end], scores[:, :, :end])
        passes.softmax(bits(scores), start, heads.group, number(heads.scale))
        yield start, end, scores


def differentiate_document(
    passes: Any,
    heads: Heads,
    saved: Iterator[torch.Tensor],
    turns: Turns,
    first: int,
    length: int,
    d_out: torch.Tensor,
    d_states: torch.Tensor,
) -> None:
    query, key, value = (next(saved) for _ in range(3))
    starts = range(0, length, BLOCK)
    kept = [next(saved) for _ in starts] if length <= KEPT else []
    again = weigh(passes, heads, query, key, backwards=True)
    d_rows = torch.empty_like(query)
    passes.take_rows(bits(d_out), first, heads.group, bits(d_rows))
    d_query, d_key, d_value = torch.empty_like(query), *(torch.zeros(part.shape) for part in (key, value))
    for start in reversed(starts):
        end = min(start + BLOCK, length)
        part = slice(start * heads.group, end * heads.group)
        probabilities = kept.pop() if length <= KEPT else next(again)[2]
        add_outer(probabilities[:, :, :end], d_rows[:, part], d_value)
        d_scores = torch.empty_like(probabilities)
        multiply_by_rows(d_rows[:, part], value[:, :end], d_scores[:, :, :end])
        passes.differentiate_softmax(bits(probabilities), bits(d_scores), start, heads.group, number(heads.scale))
        multiply(d_scores, key[:, :end], d_query[:, part])
        add_outer(d_scores[:, :, :end], query[:, part], d_key)
    gradients = (bits(part) for part in (d_query, d_key, d_value))
    passes.give_heads(*gradients, first, bits(turns.cos), bits(turns.sin), bits(d_states))


def by_head(states: torch.Tensor, heads: Heads) -> list[torch.Tensor]:
    """(tokens, q, k and v side by side) → (tokens, heads, size) each."""
    return [torch.unflatten(part, 1, (-1, heads.size)) for part in torch.split(states, heads.sizes, 1)]


def rotate(states: torch.Tensor, turns: Turns, back: bool = False) -> torch.Tensor:
    """states (tokens, heads, size): turned by the position, or back by it."""
    half, sign = states.shape[-1] // 2, -1 if back else 1
    cos, sin = turns.cos[:, None], turns.sin[:, None]
    turned = states * cos
    first, second = turned[..., :half], turned[..., half:]
    first.addcmul_(states[..., half:], sin[..., :half], value=-sign)
    second.addcmul_(states[..., :half], sin[..., half:], value=sign)
    return turned
