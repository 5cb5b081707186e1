"""Root-mean-square norms on a CPU, a piece of rows at a time, so that what is between stays in the cache."""

from typing import Any

import torch

CACHED = 2**16
"""Numbers worked on at a time: a few such pieces in float32 stay in a core's own cache."""


class Normalise(torch.autograd.Function):
    """x / rms(x) × weight in float32, rounded once; no gradient of the weight where it is frozen."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        result, inverse = normalise(rows, weight, eps, dtype)
        ctx.save_for_backward(rows, weight, inverse)
        return result.view(x.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        rows, weight, inverse = ctx.saved_tensors
        d_weight = torch.zeros(weight.shape) if ctx.needs_input_grad[1] else None
        d_rows = differentiate_normal(rows, weight, inverse, gradients[0].reshape(rows.shape), d_weight)
        return d_rows.view(gradients[0].shape), None if d_weight is None else d_weight.to(weight.dtype), None, None


def normalise(
    rows: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, size) → the normal rows, and the inverse of each row's length (rows, 1) in float32."""
    length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True, dtype=torch.float32)
    inverse = (length.square_() / rows.shape[1] + eps).rsqrt_()
    return scale_rows(rows, weight, inverse, dtype), inverse


def scale_rows(rows: torch.Tensor, weight: torch.Tensor, inverse: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    result = torch.empty(rows.shape, dtype=dtype)
    count = max(1, CACHED // rows.shape[1])
    room, wide = torch.empty(count, rows.shape[1]), weight.float()
    for part, scale, out in zip(*(torch.split(each, count) for each in (rows, inverse, result)), strict=True):
        scaled = torch.mul(part, scale, out=room[: len(part)])
        out.copy_(scaled.mul_(wide))
    return result


def differentiate_normal(
    rows: torch.Tensor,
    weight: torch.Tensor,
    inverse: torch.Tensor,
    d_out: torch.Tensor,
    d_weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """The gradient of the rows; that of the weight is added to `d_weight`."""
    d_rows, size = torch.empty_like(rows), rows.shape[1]
    count = max(1, CACHED // size)
    room, wide = torch.empty(3, count, size), weight.float()
    pieces = (torch.split(each, count) for each in (rows, inverse, d_out, d_rows))
    for part, scale, d_part, out in zip(*pieces, strict=True):
        normal, d_normal, both = room[:, : len(part)]
        torch.mul(part, scale, out=normal)
        torch.mul(normal, d_normal.copy_(d_part), out=both)
        if d_weight is not None:
            d_weight += both.sum(0)
        along = (both @ wide)[:, None] / -size
        d_normal.mul_(wide).addcmul_(normal, along)
        torch.mul(d_normal, scale, out=out)
    return d_rows
