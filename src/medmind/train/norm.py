"""Root-mean-square norms on a CPU: compiled, or a piece of rows at a time so that what is between stays in the cache.

What a norm gives may be wider than its rows: then it fills the first columns.
"""

from typing import Any

import torch

from medmind.train.compiled import bits, number, passes_for

CACHED = 2**16
"""Numbers worked on at a time: a few such pieces in float32 stay in a core's own cache."""


class Normalise(torch.autograd.Function):
    """x / rms(x) × weight in float32, rounded once; no gradient of the weight where it is frozen."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        result = torch.empty(rows.shape, dtype=dtype)
        inverse = normalise(rows, weight, eps, result)
        ctx.save_for_backward(rows, weight, inverse)
        return result.view(x.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        rows, weight, inverse = ctx.saved_tensors
        d_weight = torch.zeros(weight.shape) if ctx.needs_input_grad[1] else None
        d_rows = differentiate_normal(rows, weight, inverse, gradients[0].reshape(rows.shape), d_weight)
        return d_rows.view(gradients[0].shape), None if d_weight is None else d_weight.to(weight.dtype), None, None


def normalise(
    rows: torch.Tensor, weight: torch.Tensor, eps: float, out: torch.Tensor, more: torch.Tensor | None = None
) -> torch.Tensor:
    """(tokens, size) → the inverse of each row's length (tokens,) in float32; `more` is added to the rows first."""
    inverse = torch.empty(len(rows))
    if passes := passes_for(rows, out):
        said = (bits(weight.float()), number(eps), bits(out), bits(inverse))
        if more is None:
            passes.normalise(bits(rows), *said)
        else:
            passes.add_and_normalise(bits(rows), bits(more), *said)
        return inverse
    if more is not None:
        rows += more
    length = torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float32)
    torch.rsqrt(length.square_() / rows.shape[1] + eps, out=inverse)
    scale_rows(rows, weight, inverse, out)
    return inverse


def scale_rows(rows: torch.Tensor, weight: torch.Tensor, inverse: torch.Tensor, out: torch.Tensor) -> None:
    """The normal rows once more."""
    if passes := passes_for(rows, out):
        passes.scale(bits(rows), bits(weight.float()), bits(inverse), bits(out))
        return
    count = max(1, CACHED // rows.shape[1])
    room, wide = torch.empty(count, rows.shape[1]), weight.float()
    pieces = (torch.split(each, count) for each in (rows, inverse[:, None], out[:, : rows.shape[1]]))
    for part, scale, result in zip(*pieces, strict=True):
        scaled = torch.mul(part, scale, out=room[: len(part)])
        result.copy_(scaled.mul_(wide))


def differentiate_normal(
    rows: torch.Tensor,
    weight: torch.Tensor,
    inverse: torch.Tensor,
    d_out: torch.Tensor,
    d_weight: torch.Tensor | None = None,
    more: torch.Tensor | None = None,
) -> torch.Tensor:
    """The gradient of the rows, and `more`; that of the weight is added to `d_weight`."""
    d_rows, size = torch.empty_like(rows), rows.shape[1]
    if d_weight is None and (passes := passes_for(rows, d_out)):
        added = rows.new_zeros(1, size) if more is None else more
        said = (rows, weight.float(), inverse, d_out, added, d_rows)
        passes.differentiate_norm(*(bits(each) for each in said))
        return d_rows
    count = max(1, CACHED // size)
    room, wide = torch.empty(3, count, size), weight.float()
    pieces = (torch.split(each, count) for each in (rows, inverse[:, None], d_out[:, :size], d_rows))
    for part, scale, d_part, out in zip(*pieces, strict=True):
        normal, d_normal, both = room[:, : len(part)]
        torch.mul(part, scale, out=normal)
        torch.mul(normal, d_normal.copy_(d_part), out=both)
        if d_weight is not None:
            d_weight += both.sum(0)
        along = (both @ wide)[:, None] / -size
        d_normal.mul_(wide).addcmul_(normal, along)
        torch.mul(d_normal, scale, out=out)
    return d_rows if more is None else d_rows.add_(more)
