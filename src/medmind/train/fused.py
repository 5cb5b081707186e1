"""Faster twins of a decoder's parts on a CPU: the same mathematics in fewer passes over memory.

`fuse` changes the class of the parts it knows; the original class is the slow twin.
"""

from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from transformers.models.mistral.modeling_mistral import MistralRMSNorm

from medmind.train.precision import product_dtype

CACHED = 2**16
"""Numbers worked on at a time: a few such pieces in float32 stay in a core's own cache."""


class Normalise(torch.autograd.Function):
    """x / rms(x) × weight in float32, rounded once; no gradient of the weight where it is frozen."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float, dtype: torch.dtype) -> torch.Tensor:
        size = x.shape[-1]
        rows = x.reshape(-1, size)
        length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True, dtype=torch.float32)
        inverse = (length.square_() / size + eps).rsqrt_()
        result = torch.empty(rows.shape, dtype=dtype)
        count = max(1, CACHED // size)
        room, wide = torch.empty(count, size), weight.float()
        for part, scale, out in zip(*(torch.split(each, count) for each in (rows, inverse, result)), strict=True):
            scaled = torch.mul(part, scale, out=room[: len(part)])
            out.copy_(scaled.mul_(wide))
        ctx.save_for_backward(rows, weight, inverse)
        return result.view(x.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        rows, weight, inverse = ctx.saved_tensors
        d_out, d_rows = gradients[0].reshape(rows.shape), torch.empty_like(rows)
        d_weight = torch.zeros(weight.shape) if ctx.needs_input_grad[1] else None
        size = rows.shape[1]
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
        return d_rows.view(gradients[0].shape), None if d_weight is None else d_weight.to(weight.dtype), None, None


class Adapt(torch.autograd.Function):
    """x W' + scale (x A') B' for a frozen W: products in the dtype of the computation, A and B kept in their own."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1]).to(dtype)
        narrow_a, narrow_b = a.to(dtype), b.to(dtype)
        low = rows @ narrow_a.T
        result = (rows @ weight.to(dtype).T).addmm_(low, narrow_b.T, alpha=scale)
        ctx.save_for_backward(rows, low, weight, narrow_a, narrow_b)
        ctx.scale, ctx.shape, ctx.dtypes = scale, x.shape, (x.dtype, a.dtype, b.dtype)
        return result.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        rows, low, weight, a, b = ctx.saved_tensors
        d_out = gradients[0].reshape(len(rows), -1)
        d_low = (d_out @ b).mul_(ctx.scale)
        d_a, d_b = d_low.T @ rows, (d_out.T @ low).mul_(ctx.scale)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = (d_out @ weight.to(rows.dtype)).addmm_(d_low, a).view(ctx.shape).to(ctx.dtypes[0])
        return d_x, None, d_a.to(ctx.dtypes[1]), d_b.to(ctx.dtypes[2]), None, None


class FusedNorm(MistralRMSNorm):
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if hidden_states.device.type != "cpu":
            slow: torch.Tensor = super().forward(hidden_states)
            return slow
        function: Any = Normalise
        dtype = product_dtype(hidden_states)
        result: torch.Tensor = function.apply(hidden_states, self.weight, self.variance_epsilon, dtype)
        return result


class FusedLora(LoraLinear):
    def forward(self, x: torch.Tensor, *args: Any, **settings: Any) -> torch.Tensor:
        if args or settings or self.disable_adapters or self.merged or x.device.type != "cpu":
            slow: torch.Tensor = super().forward(x, *args, **settings)
            return slow
        [name] = self.lora_A
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        function: Any = Adapt
        dtype = product_dtype(x)
        with torch.autocast("cpu", enabled=False):
            result: torch.Tensor = function.apply(x, self.base_layer.weight, a, b, self.scaling[name], dtype)
        return result


def fuse(model: torch.nn.Module) -> None:
    """Turns the parts it knows into their faster twins, where they are."""
    for module in model.modules():
        if type(module) is MistralRMSNorm:
            module.__class__ = FusedNorm
        elif type(module) is LoraLinear and is_plain(module):
            module.__class__ = FusedLora


def is_plain(module: LoraLinear) -> bool:
    """One adapter without dropout, bias or variant, over a frozen matrix without bias."""
    base = module.base_layer
    frozen = type(base) is torch.nn.Linear and base.bias is None and not base.weight.requires_grad
    dropout = [part for part in module.lora_dropout.values() if not isinstance(part, torch.nn.Identity)]
    return frozen and len(module.lora_A) == 1 and not (dropout or module.lora_variant or any(module.lora_bias.values()))
