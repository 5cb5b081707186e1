"""Frozen matrices that read the same rows, and the adapters beside them, as one product: [W, B] times [x, A x].

The model's own matrices become views of that one, so that nothing is held twice.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch

from medmind.train.multiply import add_outer, multiply, multiply_by_rows

LINE = 32
"""Numbers of two bytes; each row of a matrix begins with a line of the cache."""
Pair = tuple[torch.Tensor, torch.Tensor]
"""A and B of an adapter, in float32."""


class Products:
    """`ranks` are those of the adapters, 0 where there is none; their columns lie behind those of the rows."""

    def __init__(self, modules: Sequence[torch.nn.Linear], ranks: Sequence[int]) -> None:
        weights = [module.weight.detach() for module in modules]
        self.modules, self.ranks = tuple(modules), list(ranks)
        self.sizes, self.width = [len(weight) for weight in weights], weights[0].shape[1]
        wide = self.width + sum(ranks)
        self.matrix = weights[0].new_zeros(sum(self.sizes), -(-wide // LINE) * LINE)[:, :wide]
        self.a = weights[0].new_empty(sum(ranks), self.width)
        bands = torch.split(self.matrix, self.sizes)
        self.weights = [band[:, : self.width] for band in bands]
        starts = accumulate(ranks, initial=self.width)
        self.b = [band[:, start : start + rank] for band, start, rank in zip(bands, starts, ranks, strict=False)]
        for module, weight, view in zip(modules, weights, self.weights, strict=True):
            module.weight.data = view.copy_(weight)

    @property
    def hold(self) -> bool:
        """Whether the model still has its matrices here."""
        return all(m.weight.data_ptr() == w.data_ptr() for m, w in zip(self.modules, self.weights, strict=True))

    def take(self, pairs: Sequence[Pair | None], scales: Sequence[float]) -> None:
        """The adapters as they are now; threads that do so at once write the same."""
        for a, b, pair, scale in zip(torch.split(self.a, self.ranks), self.b, pairs, scales, strict=True):
            if pair is not None:
                a.copy_(pair[0].detach())
                b.copy_(pair[1].detach() * scale)

    def room(self, tokens: int) -> torch.Tensor:
        """For rows, and behind them what A makes of them."""
        return self.matrix.new_empty(tokens, self.matrix.shape[1])

    def forward(self, rows: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Fills `out` from a room that holds the rows; returns what A made of them (tokens, all ranks)."""
        low = rows[:, self.width :]
        if self.a.numel():
            multiply_by_rows(rows[:, : self.width], self.a, low)
        multiply_by_rows(rows, self.matrix, out)
        return low

    def backward(self, d_out: torch.Tensor, d_rows: torch.Tensor | None) -> torch.Tensor:
        """Fills the gradient of the rows, if there is one to fill; returns that of what A made of them."""
        d_low = d_out.new_empty(len(d_out), len(self.a))
        if self.a.numel():
            multiply(d_out, self.matrix[:, self.width :], d_low)
        if d_rows is not None:
            multiply(d_out, self.matrix[:, : self.width], d_rows, more=(d_low, self.a) if self.a.numel() else None)
        return d_low


class Gradients:
    """Of the adapters of some Products, summed over pieces of rows; that of B lies on its side."""

    def __init__(self, products: Products, scales: Sequence[float]) -> None:
        self.products, self.scales = products, scales
        self.a = torch.zeros(products.a.shape)
        self.b = [torch.zeros(b.shape[::-1]) for b in products.b]

    def add(self, rows: torch.Tensor, low: torch.Tensor, d_out: torch.Tensor, d_low: torch.Tensor) -> None:
        if not self.a.numel():
            return
        add_outer(d_low, rows[:, : self.products.width], self.a)
        outs, lows = torch.split(d_out, self.products.sizes, 1), torch.split(low, self.products.ranks, 1)
        for b, part, small, scale in zip(self.b, outs, lows, self.scales, strict=True):
            if b.numel():
                add_outer(small, part, b, scale)

    def __iter__(self) -> Iterator[torch.Tensor | None]:
        for a, b in zip(torch.split(self.a, self.products.ranks), self.b, strict=True):
            yield from (a, b.T) if b.numel() else (None, None)
