"""The compiled products give what torch gives, touch nothing else, and hand over what they cannot do."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from medmind.train import compiled
from medmind.train import multiply as module
from medmind.train.multiply import add_outer, multiply, multiply_by_rows

pytestmark = pytest.mark.usefixtures("one_thread")
SHAPES = [
    *[(1, 1, 1, 2), (3, 13, 48, 30), (2, 100, 300, 1026), (1, 77, 48, 2048), (4, 96, 33, 64), (2, 50, 77, 6000)],
    *[(1, 12, 16, 1534), (1, 7, 64, 1536), (2, 6, 65, 4096), (1, 0, 5, 8)],
]
"""Many, rows, columns, and what is summed: less than a tile and more, one panel and several, one block and several."""
MARK = 7.0

needs_products = pytest.mark.skipif(
    compiled.load_products() is None, reason="products are compiled for processors with AVX-512 BF16 alone"
)


@pytest.fixture(params=[pytest.param("compiled", marks=needs_products), "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    used: str = request.param
    if used == "torch":
        monkeypatch.setattr(compiled, "load_products", lambda: None)
    else:
        monkeypatch.delattr(torch, "matmul")
    return used


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


@pytest.fixture(autouse=True)
def narrow_room(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No more room than was asked for, and nobody writes behind it."""
    rooms: list[Any] = []

    def made(count: int) -> Any:
        whole = np.full(count + 32, MARK, np.float32)
        first = -whole.ctypes.data % 64 // 4
        rooms.append(whole[first + count :])
        return whole[first : first + count]

    monkeypatch.setattr(module, "room", made)
    yield
    assert all((rest == MARK).all() for rest in rooms)


def within(matrices: torch.Tensor) -> torch.Tensor:
    """The same, as a part of larger ones that are no numbers."""
    shape = (*matrices.shape[:-2], matrices.shape[-2] + 1, matrices.shape[-1] + 5)
    whole = torch.full(shape, torch.nan, dtype=matrices.dtype)
    part = whole[..., : matrices.shape[-2], : matrices.shape[-1]]
    return part.copy_(matrices)


def framed(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Room for matrices within a larger one, and that one."""
    whole = torch.full((shape[0], shape[1] + 1, shape[2] + 3), MARK, dtype=torch.bfloat16)
    return whole[:, : shape[1], : shape[2]], whole


def assert_right(out: torch.Tensor, whole: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-5) -> None:
    """As near as bfloat16 can be, but for what cancels out in long sums; and nothing is written beside it."""
    torch.testing.assert_close(
        out.double(), wanted, rtol=2**-7, atol=tolerance * (wanted.abs().max().item() if wanted.numel() else 1)
    )
    assert (whole[:, out.shape[1] :] == MARK).all() and (whole[:, :, out.shape[2] :] == MARK).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_products(shape: tuple[int, int, int, int], way: str) -> None:
    many, rows, columns, depth = shape
    a, b = within(drawn(many, rows, depth)), drawn(many, depth, columns, seed=1)
    wanted = a.double() @ b.double()
    out, whole = framed(many, rows, columns)
    assert_right(multiply(a, within(b), out), whole, wanted)
    out, whole = framed(many, rows, columns)
    assert_right(multiply_by_rows(a, within(b.mT), out), whole, wanted)


@pytest.mark.parametrize("shape", [*SHAPES, (2, 13, 70, 1029), (1, 16, 200, 1)])
def test_a_product_of_columns_is_added_in_float32(shape: tuple[int, int, int, int], way: str) -> None:
    many, rows, columns, depth = shape
    a, b = within(drawn(many, depth, rows)), within(drawn(many, depth, columns, seed=1))
    out = torch.full((many, rows + 1, columns), MARK)
    add_outer(a, b, out, 0.5)
    wanted = MARK + 0.5 * (a.double().mT @ b.double())
    tolerance = {"compiled": 1e-5, "torch": 2**-7}[way] * (
        wanted.abs().max().item() if wanted.numel() else 1
    )  # torch rounds before it adds
    torch.testing.assert_close(out[:, :rows].double(), wanted, rtol=0, atol=tolerance)
    assert (out[:, rows:] == MARK).all()


@pytest.mark.parametrize("rank", [4, 3, 48])
@pytest.mark.parametrize("depth", [64, 2048, 6000])
def test_one_product_added_to_another(depth: int, rank: int, way: str) -> None:
    if way == "compiled" and rank % 2:
        pytest.skip("an odd number of columns is torch's")
    a, b = within(drawn(31, depth)), within(drawn(depth, 100, seed=1))
    low, adapter = within(drawn(31, rank, seed=2)), within(drawn(rank, 100, seed=3))
    out, whole = framed(1, 31, 100)
    multiply(a, b, out[0], more=(low, adapter))
    wanted = (a.double() @ b.double() + low.double() @ adapter.double())[None]
    assert_right(out, whole, wanted, tolerance=1e-5 if way == "compiled" else 2**-8)  # torch rounds in between


def test_a_last_column_of_zeros_needs_no_row(way: str) -> None:
    a, b = drawn(2, 20, 10), drawn(2, 10, 17, seed=1)
    a[:, :, -1], b[:, -1] = 0, torch.nan
    out, whole = framed(2, 20, 17)
    assert_right(multiply(a, b[:, :-1], out), whole, a[:, :, :-1].double() @ b[:, :-1].double())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_a_number_shows(bad: float, way: str) -> None:
    a, b = drawn(1, 20, 64), drawn(1, 70, 64, seed=1)
    a[0, 3, 5], b[0, 66, 7] = bad, bad
    made = multiply_by_rows(a, b, torch.zeros(1, 20, 70).bfloat16())[0]
    assert not torch.isfinite(made[3]).any() and not torch.isfinite(made[:, 66]).any()
    made[3], made[:, 66] = 0, 0
    assert torch.isfinite(made).all()


@needs_products
def test_odd_columns_other_types_and_several_threads_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = drawn(4, 6)
    assert compiled.products_for(narrow) is compiled.load_products()
    assert compiled.products_for(narrow, narrow.float()) is None
    assert compiled.products_for(narrow.T) is None
    out = torch.zeros(4, 4).bfloat16()
    for rank in (3, 4):
        low, adapter = drawn(4, rank), drawn(rank, 4)
        wanted = narrow.float() @ narrow.float().T + low.float() @ adapter.float()
        made = multiply(narrow, narrow.T.contiguous(), out, (low, adapter))
        torch.testing.assert_close(made.float(), wanted, rtol=0.02, atol=0.02)
        made = multiply_by_rows(low, low, out)
        torch.testing.assert_close(made.float(), low.float() @ low.float().T, rtol=0.02, atol=0.02)
    torch.set_num_threads(2)
    assert compiled.products_for(narrow) is None


@pytest.mark.parametrize(
    ("features", "version", "can"),
    [
        ("+avx512bf16,-amx-bf16", 20, True),
        ("+avx512bf16,+amx-bf16", 20, False),
        ("-avx512bf16,-amx-bf16", 20, False),
        ("", 20, False),
        ("+avx512bf16,-amx-bf16", 15, False),
    ],
)
def test_which_processors_they_are_for(features: str, version: int, can: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is for numba to say, which can be told to compile for another one."""
    codegen: Any = pytest.importorskip("numba.core.codegen")
    monkeypatch.setattr(codegen.JITCPUCodegen, "magic_tuple", lambda _: ("", "", features))
    monkeypatch.setattr("llvmlite.binding.llvm_version_info", (version, 0, 0))
    assert (compiled.load_products.__wrapped__() is not None) is can
    assert ("products" in compiled.who()) is (compiled.load_products() is not None)


@needs_products
def test_what_does_not_fit_is_not_computed() -> None:
    a, b, out = drawn(4, 6), drawn(6, 8), torch.zeros(4, 8).bfloat16()
    for wrong in ((a, b[:4], out), (a, b, out[:3]), (a, b[:, :7], out), (a[:3], b, out)):
        with pytest.raises(AssertionError):
            multiply(*wrong)
    with pytest.raises(AssertionError):
        multiply_by_rows(a, drawn(8, 4), out)
    for total in (torch.zeros(3, 8), torch.zeros(6, 7), torch.zeros(6, 8).bfloat16(), torch.zeros(6, 9)[:, :8]):
        with pytest.raises(AssertionError):
            add_outer(a, drawn(4, 8), total)


@needs_products
def test_threads_do_not_disturb_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    work = [(drawn(90, 600, seed=seed), drawn(600, 700, seed=seed)) for seed in range(8)]

    def multiplied(pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        torch.set_num_threads(1)
        assert compiled.products_for(*pair)
        return multiply(*pair, torch.empty(90, 700).bfloat16())

    monkeypatch.undo()  # rooms as they are, a thread's own
    one_by_one = [multiplied(pair) for pair in work]
    with ThreadPoolExecutor(4) as pool:
        assert all(map(torch.equal, pool.map(multiplied, work * 5), one_by_one * 5))
