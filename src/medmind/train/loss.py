"""The loss: cross entropy summed over the supervised tokens, logits computed for those only."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from medmind.train.batches import IGNORED
from medmind.train.compiled import bits, passes_for
from medmind.train.multiply import multiply, multiply_by_rows
from medmind.train.precision import product_dtype

ROWS = 1024
"""Tokens whose logits exist at a time."""
CACHED = 2**19
"""Logits whose softmax is taken at a time: in float32 they stay in a CPU's cache."""


def completion_loss(model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    """Sum in nats over every label that is not IGNORED; divide by their number over the whole step."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    labels = batch["labels"]
    if "segments" not in batch:
        logits = model(**inputs, use_cache=False).logits
        chosen = labels != IGNORED
        return cross_entropy(logits[chosen].float(), labels[chosen], reduction="sum")
    places = (labels[0] != IGNORED).nonzero()[:, 0]
    head = plain_head(model)
    if head is None:
        logits = model(**inputs, logits_to_keep=places, use_cache=False).logits[0]
        return cross_entropy(logits.float(), labels[0, places], reduction="sum")
    with asking(head, Question(places, labels[0, places])) as question:
        model(**inputs, use_cache=False)
    assert question.loss is not None
    return question.loss


def plain_head(model: torch.nn.Module) -> torch.nn.Linear | None:
    """The output embeddings; None where they are more than one matrix: adapted, quantised or hooked."""
    whole: Any = getattr(model, "module", model)
    head = whole.get_output_embeddings()
    plain = type(head) in (torch.nn.Linear, AnsweringHead) and head.bias is None and "forward" not in vars(head)
    return head if plain else None


@dataclass
class Question:
    """What the summed loss at these places is."""

    places: torch.Tensor
    labels: torch.Tensor
    loss: torch.Tensor | None = None


ASKED: ContextVar[Question | None] = ContextVar("the question of this thread, if it has one", default=None)


class AnsweringHead(torch.nn.Linear):
    """Takes the loss in place of logits, where it is asked for: it is still the model that calls its head.

    So autocast and what wraps the model stay in force.
    """

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if (question := ASKED.get()) is None:
            return super().forward(hidden)
        question.loss = summed_cross_entropy(hidden[0, question.places], self.weight, question.labels)
        return question.loss


@contextmanager
def asking(head: torch.nn.Linear, question: Question) -> Iterator[Question]:
    head.__class__ = AnsweringHead
    before = ASKED.set(question)
    try:
        yield question
    finally:
        ASKED.reset(before)


def summed_cross_entropy(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """hidden (tokens, size), weight (vocabulary, size), labels (tokens) → their cross entropy, summed.

    The same as cross_entropy((hidden @ weight.T).float(), labels, reduction="sum"), which is its slow twin.
    """
    dtype = product_dtype(hidden)
    learns = [torch.is_grad_enabled() and tensor.requires_grad for tensor in (hidden, weight)]
    function: Any = SummedCrossEntropy
    with torch.autocast(hidden.device.type, enabled=False):
        loss: torch.Tensor = function.apply(hidden, weight, labels, dtype, *learns)
    return loss


class SummedCrossEntropy(torch.autograd.Function):
    """Takes the gradient in the forward pass, so that no more than ROWS tokens' logits are ever held."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        dtype: torch.dtype,
        hidden_learns: bool,
        weight_learns: bool,
    ) -> torch.Tensor:
        states, matrix = hidden.to(dtype), weight.to(dtype)
        d_hidden = torch.empty_like(states) if hidden_learns else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if weight_learns else None
        total = torch.zeros((), device=hidden.device)
        for rows in pieces(len(labels)):
            logits = multiply_by_rows(states[rows], matrix, states.new_empty(len(states[rows]), len(matrix)))
            total += differentiate(logits, labels[rows])
            if d_hidden is not None:
                multiply(logits, matrix, d_hidden[rows])
            if d_weight is not None:
                d_weight += logits.T @ states[rows]
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.dtypes = hidden.dtype, weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        results = [
            None if saved is None else (saved * gradients[0]).to(dtype)
            for saved, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return *results, None, None, None, None


def pieces(count: int) -> Iterator[slice]:
    """At most ROWS each, about as many in all: a short one would take longer for its size."""
    parts = -(-count // ROWS)
    bounds = [count * part // parts for part in range(parts + 1)] if parts else []
    yield from (slice(start, end) for start, end in pairwise(bounds))


def differentiate(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The summed cross entropy of these rows; leaves its gradient in `logits`."""
    if passes := passes_for(logits):
        return torch.tensor(passes.cross_entropy(bits(logits), bits(labels)), dtype=torch.float32)
    total = torch.zeros((), device=logits.device)
    count = ROWS // 2 if logits.is_cuda else max(1, CACHED // logits.shape[1])
    room = logits.new_empty(2, count, logits.shape[1], dtype=torch.float32)
    for part, wanted in zip(torch.split(logits, count), torch.split(labels[:, None], count), strict=True):
        scores, probabilities = (buffer[: len(part)] for buffer in room)
        scores.copy_(part)
        torch.softmax(scores, -1, out=probabilities)
        # The likeliest token gives the logarithm of the sum: its probability cannot underflow, the wanted one's can.
        normaliser = scores.amax(-1) - probabilities.amax(-1).log()
        total += (normaliser - scores.gather(1, wanted)[:, 0]).sum()
        probabilities.scatter_add_(1, wanted, probabilities.new_full(wanted.shape, -1))
        part.copy_(probabilities)
    return total
