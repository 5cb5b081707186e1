"""silu(gate) × up of a layer's MLP on a CPU: compiled in one pass, or torch's in several."""

import torch
from torch.nn.functional import silu

from medmind.train.compiled import bits, passes_for


def activate(gates: torch.Tensor, out: torch.Tensor) -> None:
    """(tokens, gate and up side by side) → the first columns of `out`."""
    if passes := passes_for(gates):
        passes.activate(bits(gates), bits(out))
        return
    gate, up = gates.chunk(2, 1)
    torch.mul(silu(gate), up, out=out[:, : gate.shape[1]])


def differentiate_activation(
    gates: torch.Tensor, d_out: torch.Tensor, out: torch.Tensor, d_gates: torch.Tensor
) -> None:
    """Fills `d_gates`, and `out` with what `activate` gave; `d_out` may be wider, too, and is used up."""
    if passes := passes_for(gates):
        passes.differentiate_activation(bits(gates), bits(d_out), bits(out), bits(d_gates))
        return
    (gate, up), (d_gate, d_up) = gates.chunk(2, 1), d_gates.chunk(2, 1)
    active, d_both = silu(gate), d_out[:, : gate.shape[1]]
    torch.mul(active, up, out=out[:, : gate.shape[1]])
    torch.mul(d_both, active, out=d_up)
    torch.ops.aten.silu_backward.grad_input(d_both.mul_(up), gate, grad_input=d_gate)
