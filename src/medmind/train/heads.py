"""A layer's attention over packed documents on a CPU: from queries, keys and values side by side, and their gradients.

Compiled, each document is taken to its heads and turned in one pass; else by parts, all documents of a length at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any

import torch

from medmind.train.blockwise import BLOCK, KEPT, attend, differentiate_attention
from medmind.train.compiled import bits, number, passes_for
from medmind.train.multiply import add_outer, multiply, multiply_by_rows

Place = tuple[int, int, int]
"""Where a document begins, how many tokens of it there are, and with how many of the first's it begins besides."""
Block = tuple[int, slice, int]
"""Of positions of a document: the first, their queries, and how many keys they see."""


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


@dataclass(frozen=True)
class Documents:
    """How many tokens of each there are; all but the first go on from so many of its own, which they begin with too."""

    lengths: Sequence[int]
    shared: int = 0

    @property
    def longest(self) -> int:
        return max(shared + length for _, length, shared in self.places())

    def places(self) -> Iterator[Place]:
        for first, length in zip(accumulate(self.lengths, initial=0), self.lengths, strict=False):
            yield first, length, self.shared if first else 0


def attend_heads(
    heads: Heads, states: torch.Tensor, turns: Turns, documents: Documents, out: torch.Tensor
) -> list[torch.Tensor]:
    """states (tokens, q, k, v) → the first columns of `out`; returns what the gradient will need."""
    if passes := passes_for(states):
        kept: list[torch.Tensor] = []
        for place in documents.places():
            kept += attend_document(passes, heads, states, turns, place, kept[1:3], out)
        return kept
    assert not documents.shared
    query, key, value = by_head(states, heads)
    turned = (rotate(part, turns) for part in (query, key))
    q, k, v = (part.transpose(0, 1)[None] for part in (*turned, value))
    attended, kept = attend(q, k, v, documents.lengths, heads.scale, states.dtype)
    out[:, : heads.sizes[0]].copy_(attended.view(len(states), -1))
    return kept


def differentiate_heads(
    heads: Heads, kept: Sequence[torch.Tensor], turns: Turns, documents: Documents, d_out: torch.Tensor
) -> torch.Tensor:
    """d_out, whose first columns are those of the heads → the gradient of the states."""
    d_states = d_out.new_empty(len(d_out), sum(heads.sizes))
    if passes := passes_for(d_out):
        of_first = [torch.zeros(heads.keys, documents.lengths[0], heads.size) for _ in range(2)]
        each = zip(documents.places(), by_document(kept, documents), strict=True)
        for place, saved in reversed(list(each)):  # what the others give the first comes before its own
            differentiate_document(passes, heads, saved, turns, place, of_first, d_out, d_states)
        return d_states
    parts = by_head(d_states, heads)
    gradients = [part.transpose(0, 1)[None] for part in parts]
    d_attended = torch.unflatten(d_out[:, : heads.sizes[0]], 1, (-1, heads.size))[None]
    differentiate_attention(kept, documents.lengths, heads.scale, d_attended, gradients)
    for part in parts[:2]:
        part.copy_(rotate(part, turns, back=True))
    return d_states


def attend_document(
    passes: Any,
    heads: Heads,
    states: torch.Tensor,
    turns: Turns,
    place: Place,
    of_first: Sequence[torch.Tensor],
    out: torch.Tensor,
) -> list[torch.Tensor]:
    """`of_first`: the keys and values of the first document, where this is another."""
    first, length, shared = place
    query = states.new_empty(heads.keys, length * heads.group, heads.size)
    key, value = (states.new_empty(heads.keys, shared + length, heads.size) for _ in range(2))
    for whole, beginning in zip((key, value), of_first, strict=False):
        whole[:, :shared].copy_(beginning[:, :shared])
    cos, sin = bits(turns.cos), bits(turns.sin)
    passes.take_heads(bits(states), first, shared, cos, sin, bits(query), bits(key), bits(value))
    rows, kept = torch.empty_like(query), [query, key, value]
    for block in blocks(heads, query, key):
        probabilities, (_, part, seen) = weigh(passes, heads, query, key, block), block
        multiply(probabilities, value[:, :seen], rows[:, part])
        if shared + length <= KEPT:
            kept.append(probabilities)
    passes.give_rows(bits(rows), first, heads.group, bits(out))
    return kept


def blocks(heads: Heads, query: torch.Tensor, key: torch.Tensor) -> list[Block]:
    length = query.shape[1] // heads.group
    shared = key.shape[1] - length
    bounds = ((start, min(start + BLOCK, length)) for start in range(0, length, BLOCK))
    return [(shared + start, slice(start * heads.group, end * heads.group), shared + end) for start, end in bounds]


def weigh(passes: Any, heads: Heads, query: torch.Tensor, key: torch.Tensor, block: Block) -> torch.Tensor:
    """The probabilities of the keys, with a last column of zeros where their number is odd."""
    start, part, seen = block
    rows = query[:, part]
    scores = query.new_empty(*rows.shape[:2], seen + seen % 2)
    multiply_by_rows(rows, key[:, :seen], scores[:, :, :seen])
    passes.softmax(bits(scores), start, heads.group, number(heads.scale))
    return scores


def by_document(kept: Sequence[torch.Tensor], documents: Documents) -> Iterator[list[torch.Tensor]]:
    """Queries, keys, values, and the probabilities of a document that is not too long."""
    tensors = iter(kept)
    for _, length, shared in documents.places():
        probabilities = -(-length // BLOCK) if shared + length <= KEPT else 0
        yield list(islice(tensors, 3 + probabilities))


def differentiate_document(
    passes: Any,
    heads: Heads,
    saved: Sequence[torch.Tensor],
    turns: Turns,
    place: Place,
    of_first: Sequence[torch.Tensor],
    d_out: torch.Tensor,
    d_states: torch.Tensor,
) -> None:
    """`of_first`: the sums of the first document's gradients of keys and values."""
    (first, _, shared), (query, key, value, *kept) = place, saved
    d_rows, d_query = torch.empty_like(query), torch.empty_like(query)
    passes.take_rows(bits(d_out), first, heads.group, bits(d_rows))
    d_key, d_value = of_first if first == 0 else (torch.zeros(part.shape) for part in (key, value))
    for block in reversed(blocks(heads, query, key)):
        start, part, seen = block
        probabilities = kept.pop() if kept else weigh(passes, heads, query, key, block)
        add_outer(probabilities[:, :, :seen], d_rows[:, part], d_value)
        d_scores = torch.empty_like(probabilities)
        multiply_by_rows(d_rows[:, part], value[:, :seen], d_scores[:, :, :seen])
        passes.differentiate_softmax(bits(probabilities), bits(d_scores), start, heads.group, number(heads.scale))
        multiply(d_scores, key[:, :seen], d_query[:, part])
        add_outer(d_scores[:, :, :seen], query[:, part], d_key)
    gradients = (bits(part) for part in (d_query, d_key, d_value))
    passes.give_heads(*gradients, first, shared, bits(turns.cos), bits(turns.sin), bits(d_states))
    for whole, own in zip(of_first, (d_key, d_value), strict=True):
        whole[:, :shared] += own[:, :shared]


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
