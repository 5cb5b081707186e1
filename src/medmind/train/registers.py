"""What numba cannot say itself: pieces of matrices in the registers of a processor with AVX-512 BF16.

Each is a function for compiled code, of addresses and numbers, written as LLVM's instructions. A panel is a block of a
matrix laid out as pairs of rows side by side, which is how the processor multiplies bfloat16.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import raw_memcpy
from numba.extending import intrinsic

PANEL, SUMS = 256, 24 * 64
"""Bytes of a pair of rows, 64 columns wide; and of the sums that the registers hold."""
HEIGHTS = (0, 12, 12, 8, 6)
"""How many rows are multiplied at once by so many vectors of 16 columns."""


class BFloat(ir.Type):  # type: ignore[misc]
    """llvmlite knows no bfloat16."""

    def __str__(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


I8, I16, I32, I64 = (ir.IntType(size) for size in (8, 16, 32, 64))
I16X16, I16X32, I32X16 = ir.VectorType(I16, 16), ir.VectorType(I16, 32), ir.VectorType(I32, 16)
F32X16, BF16X16, BF16X32 = ir.VectorType(ir.FloatType(), 16), ir.VectorType(BFloat(), 16), ir.VectorType(BFloat(), 32)


def written(*kinds: Any, result: Any = types.void) -> Callable[[Any], Any]:
    """Of a function that writes instructions: one that compiled code can call, with arguments of these kinds."""

    def decorate(write: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            made = write(builder, *arguments)
            return context.get_dummy_value() if made is None else made

        @wraps(write)  # numba reads the names of the arguments there
        def define(context: Any, *arguments: Any) -> Any:
            return result(*kinds), generate

        return intrinsic(define)

    return decorate


def order(numbers: Iterable[int]) -> Any:
    numbers = list(numbers)
    return ir.Constant(ir.VectorType(I32, len(numbers)), numbers)


def at(builder: Any, address: Any, kind: Any, index: int = 0) -> Any:
    """The `index`-th vector from an address on."""
    return builder.gep(builder.inttoptr(address, kind.as_pointer()), [I64(index)])


def spread(builder: Any, number: Any) -> Any:
    """16 of it."""
    empty = ir.Constant(ir.VectorType(number.type, 16), ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(empty, number, I32(0)), empty, order([0] * 16))


@written(types.intp, result=types.uint16)
def load_word(builder: Any, address: Any) -> Any:
    return builder.load(at(builder, address, I16), align=2)


@written(types.intp, types.intp, types.intp)
def copy_words(builder: Any, source: Any, target: Any, count: Any) -> None:
    raw_memcpy(builder, at(builder, target, I16), at(builder, source, I16), count, 2)  # type: ignore[no-untyped-call]


@written(types.intp, types.float32, types.intp)
def add_floats(builder: Any, made: Any, scale: Any, out: Any) -> None:
    """16 of them × scale."""
    place, floats = at(builder, out, F32X16), builder.load(at(builder, made, F32X16), align=64)
    more = builder.fmul(floats, spread(builder, scale))
    builder.store(builder.fadd(builder.load(place, align=4), more), place, align=4)


def fetch_line(builder: Any, address: Any, cache: int = 2) -> None:
    """It comes to the caches: to all (3), or all but the nearest."""
    kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), *[I32] * 3])
    prefetch = builder.module.declare_intrinsic("llvm.prefetch.p0", (), kind)
    builder.call(prefetch, [at(builder, address, I8), I32(0), I32(cache), I32(1)])


@written(types.intp)
def bring(builder: Any, address: Any) -> None:
    fetch_line(builder, address)


@written(types.intp)
def bring_near(builder: Any, address: Any) -> None:
    fetch_line(builder, address, cache=3)


@written(types.intp, types.intp, types.intp)
def interleave(builder: Any, first: Any, second: Any, target: Any) -> None:
    """16 numbers of each of two rows become 16 pairs."""
    rows = [builder.load(at(builder, address, I16X16), align=2) for address in (first, second)]
    pairs = builder.shuffle_vector(*rows, order(place for j in range(16) for place in (j, 16 + j)))
    builder.store(pairs, at(builder, target, I16X32), align=4)


@written(types.intp, types.intp, types.intp, types.intp)
def transpose(builder: Any, source: Any, stride: Any, target: Any, width: Any) -> None:
    """16 rows of 16 pairs become 16 columns."""
    places = [builder.add(source, builder.mul(I64(i), stride)) for i in range(16)]
    rows = [builder.load(at(builder, place, I32X16), align=2) for place in places]
    for step in (1, 2, 4, 8):
        low = order(16 + (j ^ step) if j & step else j for j in range(16))
        high = order(16 + j if j & step else j ^ step for j in range(16))
        for i in range(16):
            if not i & step:
                pair = rows[i], rows[i | step]
                rows[i], rows[i | step] = (builder.shuffle_vector(*pair, which) for which in (low, high))
    for i, row in enumerate(rows):
        builder.store(row, at(builder, builder.add(target, builder.mul(I64(i), width)), I32X16), align=4)


SOURCE = types.UniTuple(types.intp, 3)  # type: ignore[no-untyped-call]
"""The address of a row, bytes to the next, and how many pairs of its columns are multiplied."""
LINES = types.UniTuple(types.intp, 2)  # type: ignore[no-untyped-call]
"""The address of two lines of the cache, and bytes to the next two."""


@written(types.intp, types.intp, SOURCE, SOURCE, *[types.intp] * 5, LINES)
def multiply_tile(
    builder: Any,
    vectors: Any,
    valid: Any,
    rows: Any,
    more: Any,
    panel: Any,
    sums: Any,
    again: Any,
    out: Any,
    stride: Any,
    ahead: Any,
) -> None:
    """`valid` rows, and `more` columns of them, by a panel of so many vectors.

    It goes on from the sums where that is `again`, and ends there, or narrow in `out` if that is not 0. With every
    line of a row that is read one of those `ahead` comes nearer: many at once would keep the panel waiting.
    """
    for count in (1, 2, 3, 4):
        with builder.if_then(builder.icmp_signed("==", vectors, I64(count))):
            Tile(builder, count, HEIGHTS[count], valid).write(rows, more, panel, sums, again, out, stride, ahead)


class Tile:
    """The instructions of a product of `height` rows by `count` vectors, whose sums stay in registers."""

    def __init__(self, builder: Any, count: int, height: int, valid: Any) -> None:
        self.builder, self.count, self.height = builder, count, height
        self.valid, self.last = valid, builder.sub(valid, I64(1))

    def write(self, rows: Any, more: Any, panel: Any, sums: Any, again: Any, out: Any, stride: Any, ahead: Any) -> None:
        builder = self.builder
        totals = self.begin(sums, again)
        for source in (rows, more):
            address, apart, pairs = (builder.extract_value(source, i) for i in range(3))
            totals = self.add(address, apart, pairs, panel, totals, ahead)
            panel = builder.add(panel, builder.mul(pairs, I64(PANEL)))
        with builder.if_else(builder.icmp_signed("==", out, I64(0))) as (wide, narrow):
            with wide:
                for k, total in enumerate(totals):
                    builder.store(total, at(builder, sums, F32X16, k), align=64)
            with narrow:
                for i in reversed(range(self.height)):
                    self.store(self.row(i, out, stride), totals[self.count * i : self.count * (i + 1)])

    def row(self, i: int, address: Any, stride: Any) -> Any:
        """Rows that are not there are the last one once more."""
        there = self.builder.select(self.builder.icmp_signed("<", I64(i), self.valid), I64(i), self.last)
        return self.builder.add(address, self.builder.mul(there, stride))

    def begin(self, sums: Any, again: Any) -> list[Any]:
        builder, count = self.builder, self.height * self.count
        before, zero = builder.block, ir.Constant(F32X16, [0.0] * 16)
        with builder.if_then(builder.icmp_signed("!=", again, I64(0))):
            found, there = [builder.load(at(builder, sums, F32X16, k), align=64) for k in range(count)], builder.block
        return [self.either((zero, before), (total, there)) for total in found]

    def either(self, *ways: tuple[Any, Any]) -> Any:
        """A value that depends on the block one comes from."""
        phi = self.builder.phi(ways[0][0].type)
        for value, block in ways:
            phi.add_incoming(value, block)
        return phi

    def add(self, address: Any, stride: Any, pairs: Any, panel: Any, totals: list[Any], ahead: Any) -> list[Any]:
        """To the totals: every pair of columns of the rows times the panel's pairs."""
        builder = self.builder
        lines = [at(builder, self.row(i, address, stride), I32) for i in range(self.height)]
        coming, apart = (builder.extract_value(ahead, i) for i in range(2))

        def add_pair(pair: Any, sums: list[Any]) -> list[Any]:
            return self.add_pair([builder.gep(line, [pair]) for line in lines], pair, panel, sums)

        def add_line(line: Any, sums: list[Any]) -> list[Any]:
            two, second = builder.lshr(line, I64(1)), builder.shl(builder.and_(line, I64(1)), I64(6))
            fetch_line(builder, builder.add(builder.add(coming, builder.mul(two, apart)), second))
            start, end = (builder.shl(each, I64(4)) for each in (line, builder.add(line, I64(1))))
            there = builder.select(builder.icmp_signed("<", end, pairs), end, pairs)
            return self.loop(start, there, add_pair, sums)

        return self.loop(I64(0), builder.lshr(builder.add(pairs, I64(15)), I64(4)), add_line, totals)

    def loop(self, start: Any, end: Any, step: Callable[[Any, list[Any]], list[Any]], totals: list[Any]) -> list[Any]:
        """What becomes of the totals by a step for each number."""
        builder = self.builder
        before, loop, after = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("end")
        builder.cbranch(builder.icmp_signed("<", start, end), loop, after)
        builder.position_at_end(loop)
        number, *sums = (self.either((value, before)) for value in (start, *totals))
        found, following = step(number, sums), builder.add(number, I64(1))
        last = builder.block
        for phi, value in zip((number, *sums), (following, *found), strict=True):
            phi.add_incoming(value, last)
        builder.cbranch(builder.icmp_signed("<", following, end), loop, after)
        builder.position_at_end(after)
        return [self.either((value, before), (total, last)) for value, total in zip(totals, found, strict=True)]

    def add_pair(self, lines: Sequence[Any], pair: Any, panel: Any, totals: Sequence[Any]) -> list[Any]:
        builder, kind = self.builder, ir.FunctionType(F32X16, [F32X16, BF16X32, BF16X32])
        dot = builder.module.declare_intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", (), kind)
        place = builder.add(panel, builder.mul(pair, I64(PANEL)))
        loaded = [builder.load(at(builder, place, I32X16, v), align=64) for v in range(self.count)]
        columns, sums = [builder.bitcast(each, BF16X32) for each in loaded], iter(totals)
        found = []
        for line in lines:
            same = builder.bitcast(spread(builder, builder.load(line, align=2)), BF16X32)
            found += [builder.call(dot, [next(sums), same, column]) for column in columns]
        return found

    def store(self, address: Any, sums: Sequence[Any]) -> None:
        """A row of sums, narrow: two vectors at a time become one, an odd one half of one."""
        builder = self.builder
        for v in range(0, self.count, 2):
            last, place = v + 1 == self.count, builder.add(address, I64(32 * v))
            kind, words, name = (BF16X16, I16X16, "cvtneps2bf16") if last else (BF16X32, I16X32, "cvtne2ps2bf16")
            given = sums[v : v + 2][::-1]
            called = ir.FunctionType(kind, [F32X16] * len(given))
            convert = builder.module.declare_intrinsic(f"llvm.x86.avx512bf16.{name}.512", (), called)
            narrow = builder.bitcast(builder.call(convert, given), words)
            builder.store(narrow, at(builder, place, words), align=2)
