"""Every compiled pass gives what torch gives, in both types, and lets no NaN go unseen."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, silu

from medmind.train import compiled
from medmind.train.compiled import bits, number, passes_for
from medmind.train.gates import activate, differentiate_activation
from medmind.train.heads import Documents, Heads, Turns, attend_heads, differentiate_heads
from medmind.train.norm import differentiate_normal, normalise, scale_rows

numba_passes = pytest.importorskip("medmind.train.numba_passes")
jit = pytest.importorskip("medmind.train.jit")
pytestmark = pytest.mark.usefixtures("one_thread")
TYPES = [torch.float32, torch.bfloat16]
HEADS = Heads(keys=2, group=3, size=16, scale=0.3)
LENGTHS = (5, 300, 1, 129)


def drawn(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def both(work: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """What it gives compiled, and by torch."""
    fast = work()
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "load", lambda: None)
        return fast, work()


def assert_same(fast: Any, slow: Any, dtype: torch.dtype) -> None:
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
    for one, other in zip(fast, slow, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, **tolerance)


@pytest.mark.parametrize("dtype", TYPES)
def test_norms(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = drawn(70, dtype=dtype, seed=1)

    def work() -> list[torch.Tensor]:
        rows, more = drawn(9, 70, dtype=dtype), drawn(9, 70, dtype=dtype, seed=2)
        out, again, summed = (torch.zeros(9, 75, dtype=dtype) for _ in range(3))
        inverse = normalise(rows, weight, 1e-5, out)
        scale_rows(rows, weight, inverse, again)
        d_out = drawn(9, 75, dtype=dtype, seed=3)
        gradients = [differentiate_normal(rows, weight, inverse, d_out, more=added) for added in (None, more)]
        return [inverse, out, again, *gradients, normalise(rows, weight, 1e-5, summed, more=more), rows, summed]

    fast, slow = both(work, monkeypatch)
    assert_same(fast, slow, dtype)
    assert torch.equal(fast[1], fast[2]) and not fast[1][:, 70:].any()


@pytest.mark.parametrize("dtype", TYPES)
def test_gates(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> list[torch.Tensor]:
        gates = drawn(9, 2 * 70, dtype=dtype) * 5
        out, again = (torch.zeros(9, 75, dtype=dtype) for _ in range(2))
        activate(gates, out)
        d_gates = torch.empty_like(gates)
        differentiate_activation(gates, drawn(9, 75, dtype=dtype, seed=3), again, d_gates)
        return [out, again, d_gates]

    fast, slow = both(work, monkeypatch)
    assert_same(fast, slow, dtype)
    gate, up = (drawn(9, 2 * 70, dtype=dtype) * 5).double().chunk(2, 1)
    torch.testing.assert_close(fast[0][:, :70].double(), silu(gate) * up, rtol=4e-3, atol=1e-4)


@pytest.mark.parametrize("kept", [1024, 100])
@pytest.mark.parametrize("dtype", TYPES)
def test_attention(dtype: torch.dtype, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("heads", "blockwise"):
        monkeypatch.setattr(f"medmind.train.{module}.KEPT", kept)
    tokens, width = sum(LENGTHS), HEADS.sizes[0]
    angles = torch.arange(tokens)[:, None] * torch.logspace(0, -2, 8).repeat(2)
    turns = Turns(angles.cos().to(dtype), angles.sin().to(dtype))

    def work() -> list[torch.Tensor]:
        states, out = drawn(tokens, sum(HEADS.sizes), dtype=dtype), torch.zeros(tokens, width + 4, dtype=dtype)
        saved = attend_heads(HEADS, states, turns, Documents(LENGTHS), out)
        d_out = drawn(tokens, width + 4, dtype=dtype, seed=1)
        return [out, differentiate_heads(HEADS, saved, turns, Documents(LENGTHS), d_out)]

    fast, slow = both(work, monkeypatch)
    (out, d_states), (slow_out, slow_d_states) = fast, slow
    torch.testing.assert_close(out, slow_out, rtol=2e-2, atol=2e-2 if dtype == torch.bfloat16 else 1e-5)
    far = (d_states.float() - slow_d_states.float()).norm() / slow_d_states.float().norm()
    assert far < (1e-2 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize("kept", [1024, 100])
@pytest.mark.parametrize("dtype", TYPES)
def test_attention_of_documents_that_begin_alike(
    dtype: torch.dtype, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first brings for all is as if each had brought it, and is given the gradients of all."""
    monkeypatch.setattr("medmind.train.heads.KEPT", kept)
    shared, lengths = 5, (9, 300, 6, 129)
    places = torch.cat([torch.arange(length) for length in lengths])
    own = (places >= shared) | (torch.arange(sum(lengths)) < lengths[0])
    angles = places[:, None] * torch.logspace(0, -2, 8).repeat(2)
    turns = Turns(angles.cos().to(dtype), angles.sin().to(dtype))
    states, d_out = (drawn(len(places), width, dtype=dtype) for width in (sum(HEADS.sizes), HEADS.sizes[0]))
    states[~own] = states[places[~own]]
    d_out[~own] = 0  # nothing is learnt there
    whole, d_whole = attended(states, turns, Documents(lengths), d_out)
    laid = Documents([lengths[0], *(length - shared for length in lengths[1:])], shared)
    out, d_states = attended(states[own], Turns(turns.cos[own], turns.sin[own]), laid, d_out[own])
    d_expected = d_whole.float()[own].index_add(0, places[~own], d_whole.float()[~own])
    near = 1e-2 if dtype == torch.bfloat16 else 1e-5
    for one, other in ((out, whole[own]), (d_states, d_expected)):
        assert (one.float() - other.float()).norm() < near * other.float().norm()
    assert (d_expected[:shared] - d_whole.float()[:shared]).norm() > 0.1 * d_expected[:shared].norm()


def attended(states: torch.Tensor, turns: Turns, documents: Documents, d_out: torch.Tensor) -> list[torch.Tensor]:
    """What attention gives, and the gradient of the states."""
    out = torch.zeros(len(states), HEADS.sizes[0], dtype=states.dtype)
    saved = attend_heads(HEADS, states, turns, documents, out)
    return [out, differentiate_heads(HEADS, saved, turns, documents, d_out)]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_cross_entropy(dtype: torch.dtype, scale: float) -> None:
    logits, labels = drawn(7, 301, dtype=dtype) * scale, torch.arange(7) * 40
    truth = logits.double().requires_grad_()
    wanted = cross_entropy(truth, labels, reduction="sum")
    wanted.backward()  # type: ignore[no-untyped-call]
    assert numba_passes.cross_entropy(bits(logits), bits(labels)) == pytest.approx(wanted.item(), rel=1e-5)
    assert truth.grad is not None
    torch.testing.assert_close(logits.double(), truth.grad, rtol=8e-3, atol=1e-6)


def test_a_bfloat16_is_rounded_as_torch_rounds_it() -> None:
    exact = torch.cat(
        [torch.randn(4000, generator=torch.Generator().manual_seed(0)) * 1e3, torch.tensor([1e-40, 3e38])]
    )
    out, ones = torch.empty(1, len(exact), dtype=torch.bfloat16), torch.ones(len(exact))
    numba_passes.scale(bits(exact[None]), bits(ones), bits(torch.ones(1)), bits(out))
    assert torch.equal(out[0], exact.bfloat16())


def test_the_exponential_is_right_to_two_units_in_the_last_place() -> None:
    x = torch.linspace(-86, 0, 5001)
    gates = torch.stack([-x, torch.ones(5001)], 1)  # x / (1 + e^x) × 1 with x in place of -gate
    out = torch.empty(5001, 1)
    numba_passes.activate(bits(gates), bits(out))
    exact = -x.double() / (1 + x.double().exp())
    assert ((out[:, 0].double() - exact).abs() <= 4e-7 * exact.abs() + 1e-30).all()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_number_that_is_none_is_not_hidden(dtype: torch.dtype, bad: float) -> None:
    rows, weight = drawn(3, 8, dtype=dtype), torch.ones(8)
    rows[1, 2] = bad
    out = torch.empty(3, 8, dtype=dtype)
    inverse = normalise(rows, weight, 1e-5, out)
    assert not torch.isfinite(differentiate_normal(rows, weight, inverse, out)[1]).all()
    gates, active = drawn(3, 8, dtype=dtype), torch.empty(3, 4, dtype=dtype)
    gates[1, 1] = torch.nan
    activate(gates, active)
    assert active[1, 1].isnan() and torch.isfinite(active[[0, 2]]).all()
    logits = drawn(3, 8, dtype=dtype)
    logits[1, 2] = bad
    assert not torch.isfinite(torch.tensor(numba_passes.cross_entropy(bits(logits), bits(torch.arange(3)))))
    scores = drawn(1, 3, 3, dtype=dtype)
    scores[0, 1, 0] = torch.nan
    numba_passes.softmax(bits(scores), 0, 1, number(1))
    assert scores[0, 1, :2].isnan().all() and torch.isfinite(scores[0, [0, 2]]).all() and scores[0, 0, 1] == 0


def test_they_are_for_one_thread_of_a_cpu_and_known_types() -> None:
    rows = torch.zeros(2, 2)
    assert passes_for(rows) is numba_passes
    assert passes_for(rows, rows.half()) is None
    assert passes_for(rows.to("meta")) is None
    torch.set_num_threads(2)
    assert passes_for(rows) is None


def test_numba_that_was_told_not_to_compile_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.config.DISABLE_JIT", 1)
    assert compiled.load.__wrapped__() is None


def test_where_nothing_can_be_kept_they_are_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def njit(**settings: Any) -> Any:
        asked.append(settings)
        if settings.get("cache"):
            return lambda function: (_ for _ in ()).throw(RuntimeError("no locator available"))
        return lambda function: function

    monkeypatch.setattr(jit, "njit", njit)
    assert jit.jit(len) is len
    assert [settings.get("cache") for settings in asked] == [True, None]


def test_a_full_disk_costs_the_cache_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = jit.jit(lambda number: number + number)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(twice._cache.cache, "save_overload", full)
    assert twice(21) == 42


def test_what_becomes_part_of_a_pass_is_compiled_anew_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Numba itself looks at the file of the pass alone."""
    before = jit.jit(lambda number: number)._cache._cache_file._source_stamp
    for name in ("jit.py", "registers.py"):
        (tmp_path / name).write_text("changed")
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "jit.py"))
    assert jit.jit(lambda number: number)._cache._cache_file._source_stamp[1:] != before[1:]


EVERY_PASS = """
from hashlib import sha256
import torch
from medmind.train.compiled import bits, load, number
generator = torch.Generator().manual_seed(0)
def drawn(*shape, dtype=torch.bfloat16):
    return bits(torch.randn(shape, generator=generator).to(dtype))
passes, length, whole = load(), 2000, torch.float32
rows, more, out, d_out = (drawn(length, 256) for _ in range(4))
weight, inverse = drawn(256, dtype=whole), drawn(length, dtype=whole)
gates, active, d_active, d_gates = drawn(length, 512), drawn(length, 256), drawn(length, 256), drawn(length, 512)
states, cos, sin, query = drawn(length, 160), drawn(length, 8), drawn(length, 8), drawn(2, length * 3, 16)
key, value = drawn(2, length, 16), drawn(2, length, 16)
heads, turned = drawn(length, 96), drawn(2, length * 3, 16)
scores, gradients = drawn(2, 900, 300), drawn(2, 900, 300)
logits, labels = drawn(length, 256), bits(torch.arange(length) % 256)
passes.normalise(rows, weight, number(1e-5), out, inverse)
passes.add_and_normalise(rows, more, weight, number(1e-5), more, inverse)
passes.scale(rows, weight, inverse, more)
passes.differentiate_norm(rows, weight, inverse, out, d_out, d_out)
passes.activate(gates, active)
passes.differentiate_activation(gates, d_active, active, d_gates)
passes.take_heads(states, 0, 0, cos, sin, query, key, value)
passes.give_heads(query, key, value, 0, 0, cos, sin, states)
passes.take_rows(heads, 0, 3, turned)
passes.give_rows(query, 0, 3, heads)
passes.softmax(scores, 0, 3, number(0.3))
passes.differentiate_softmax(scores, gradients, 0, 3, number(0.3))
nats = passes.cross_entropy(logits, labels)
made = [rows, more, out, d_out, inverse, active, d_active, d_gates]
made += [states, query, key, value, heads, turned, scores, gradients, logits]
torch.set_num_threads(1)
from medmind.train.multiply import add_outer, multiply, multiply_by_rows
a, b = torch.randn(70, 90, generator=generator).bfloat16(), torch.randn(90, 70, generator=generator).bfloat16()
out, total = torch.empty(70, 70).bfloat16(), torch.zeros(90, 90)
made += [bits(multiply(a, b, out)).copy(), bits(multiply_by_rows(a, a, out)), (add_outer(a, a, total), bits(total))[1]]
print([sha256(each.tobytes()).hexdigest() for each in made], nats)
"""


def test_the_process_that_compiles_them_computes_as_those_that_find_them_compiled(tmp_path: Path) -> None:
    """To the last bit: a run that is killed in the very first process is taken up by a later one."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}

    def bits_of_all() -> str:
        command = [sys.executable, "-c", EVERY_PASS]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    modules = [numba_passes, *filter(None, [compiled.load_products()])]
    passes = [
        each for module in modules for each in vars(module).values() if getattr(each, "targetoptions", {}).get("nogil")
    ]
    fresh = bits_of_all()
    kept = sorted(tmp_path.rglob("*.nbc"))
    assert len(kept) == len(passes) > 10, "one for each pass: no pass left out, none compiled within another"
    assert bits_of_all() == fresh and sorted(tmp_path.rglob("*.nbc")) == kept
