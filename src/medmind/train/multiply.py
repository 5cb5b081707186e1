"""Products of matrices: compiled for a CPU's thread that is on its own, else torch's.

Matrices are (rows, columns), or several of each, (many, rows, columns); their rows may lie apart.
"""

from threading import local
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from medmind.train.compiled import bits, number, products_for

Pair = tuple[torch.Tensor, torch.Tensor]
NOTHING = ((0, 0, 0), (0, 0, 0), 0, 0)
ROOMS = local()


def multiply(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor, more: Pair | None = None) -> torch.Tensor:
    """a @ b into `out`, of two matrices also with `more` added.

    a may have a last column, of zeros, that b has no row for.
    """
    added = more or ()
    if are_even(a, *added[:1]) and (products := products_for(a, b, out, *added)):
        assert a.shape[-1] - b.shape[-2] in (0, 1) and fit(a, b.mT, out)
        factors, others = factors_of(a, b, b.shape[-2]), NOTHING
        if more:
            assert more[0].shape[-1] == more[1].shape[-2] and fit(more[0], more[1].mT, out)
            others = factors_of(*more, more[1].shape[-2])
        space = room(products.room_to_multiply(*out.shape[-2:], factors[2], others[2]))
        products.multiply(*extent(out), False, factors, others, place(out), space)
        return out
    torch.matmul(a[..., : b.shape[-2]], b, out=out)
    return out if more is None else out.addmm_(*more)


def multiply_by_rows(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """a @ b.T into `out`."""
    if are_even(a) and (products := products_for(a, b, out)):
        assert a.shape[-1] == b.shape[-1] and fit(a, b, out)
        space = room(products.room_to_multiply(*out.shape[-2:], a.shape[-1], 0))
        products.multiply(*extent(out), True, factors_of(a, b, b.shape[-1]), NOTHING, place(out), space)
        return out
    return torch.matmul(a, b.mT, out=out)


def add_outer(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor, scale: float = 1) -> None:
    """The first rows of `out`, which is whole and of float32, grow by a.T @ b × scale."""
    if products := products_for(a, b):
        assert a.shape[-2] == b.shape[-2] and fit(a.mT, b.mT, out[..., : a.shape[-1], :])
        assert out.is_contiguous() and out.dtype == torch.float32
        space, whole = room(products.room_to_add(a.shape[-1])), out if out.ndim == 3 else out[None]
        shape = (a.shape[-1], b.shape[-1])
        products.add_outer(len(whole), shape, place(a), place(b), a.shape[-2], number(scale), bits(whole), space)
        return
    out[..., : a.shape[-1], :].add_(a.mT @ b, alpha=scale)


def fit(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> bool:
    """Whether `out` has a row for each of a and a column for each row of b; of as many matrices."""
    return out.shape == (*a.shape[:-1], b.shape[-2]) and a.shape[:-2] == b.shape[:-2]


def are_even(*matrices: torch.Tensor) -> bool:
    """Two columns are multiplied at once."""
    return all(each.shape[-1] % 2 == 0 for each in matrices)


def extent(out: torch.Tensor) -> tuple[int, tuple[int, int]]:
    """How many, and how large each is."""
    return (1 if out.ndim == 2 else len(out)), (out.shape[-2], out.shape[-1])


def factors_of(a: torch.Tensor, b: torch.Tensor, held: int) -> Any:
    return place(a), place(b), a.shape[-1], held


def place(matrices: torch.Tensor) -> tuple[int, int, int]:
    """Address of the first; bytes between two of them and between two rows."""
    size, apart = matrices.element_size(), matrices.stride()
    return matrices.data_ptr(), (apart[0] if matrices.ndim == 3 else 0) * size, apart[-2] * size


def room(count: int) -> NDArray[np.float32]:
    """This thread's, for what it works on; at the beginning of a line of the cache."""
    kept: NDArray[np.float32] | None = getattr(ROOMS, "kept", None)
    if kept is None or len(kept) < count:
        whole = np.empty(count + 16, np.float32)
        first = -whole.ctypes.data % 64 // 4
        kept = ROOMS.kept = whole[first : first + count]
    return kept
