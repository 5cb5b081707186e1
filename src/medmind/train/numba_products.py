"""Products of bfloat16 matrices for one thread of a processor with AVX-512 BF16, compiled when first called.

A block of one matrix's columns is laid out once as pairs of rows, as the processor's instruction takes them; then six
rows of the other at a time go by it, their sums in 24 registers. Matrices come by their addresses, many at a time: a
`Place` is where the first begins and how many bytes lie between two matrices and between two rows.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.cgutils import raw_memcpy
from numba.extending import intrinsic

from medmind.train.jit import inlined, jit

ROWS, COLUMNS, DEPTH = 6, 64, 1024
"""What is summed at once; how many of the numbers that a sum is made of go by before the next block."""
DEEP = 4 * DEPTH
"""From here on all columns see a block of rows, which are far too many to be read once for each, before the next."""
PANEL, TILE = COLUMNS * 4, ROWS * COLUMNS * 4
"""Bytes of a pair of rows, and of the sums."""
Place = tuple[int, int, int]
i32, i64, u32, u16, f32 = np.int32, np.int64, np.uint32, np.uint16, np.float32


generated: Any = intrinsic
"""A function that writes its own instructions."""


class BFloat(ir.types._BaseFloatType):
    """llvmlite knows no bfloat16."""

    def __str__(self) -> str:
        return "bfloat"


BFloat._create_instance()
BYTE, WORD, DOUBLE, LONG = (ir.IntType(size) for size in (8, 16, 32, 64))
WORDS, DOUBLES = ir.VectorType(WORD, 32), ir.VectorType(DOUBLE, 16)
HALF, FLOATS, NARROW = ir.VectorType(WORD, 16), ir.VectorType(ir.FloatType(), 16), ir.VectorType(BFloat(), 32)


def order(numbers: Any) -> Any:
    numbers = list(numbers)
    return ir.Constant(ir.VectorType(DOUBLE, len(numbers)), numbers)


def at(builder: Any, address: Any, kind: Any, index: int = 0) -> Any:
    """The `index`-th vector from an address on."""
    return builder.gep(builder.inttoptr(address, kind.as_pointer()), [LONG(index)])


def nothing_of(count: int) -> Any:
    return types.void(*[types.intp] * count)


@generated
def load_word(_: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(at(builder, arguments[0], WORD), align=2)

    return types.uint16(types.intp), generate


@generated
def copy_words(_: Any, source: Any, target: Any, count: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, target = (at(builder, address, WORD) for address in arguments[:2])
        raw_memcpy(builder, target, source, arguments[2], 2)
        return context.get_dummy_value()

    return nothing_of(3), generate


@generated
def add_floats(_: Any, made: Any, scale: Any, out: Any) -> Any:
    """16 of them × scale."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, empty = at(builder, arguments[2], FLOATS), ir.Constant(FLOATS, ir.Undefined)
        scale = builder.insert_element(empty, arguments[1], DOUBLE(0))
        scales = builder.shuffle_vector(scale, empty, order([0] * 16))
        more = builder.fmul(builder.load(at(builder, arguments[0], FLOATS), align=64), scales)
        builder.store(builder.fadd(builder.load(place, align=4), more), place, align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.float32, types.intp), generate


def prefetch(cache: int) -> Any:
    """A line, for all caches but those nearer than this one; 3 is the nearest."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        line, kind = at(builder, arguments[0], BYTE), ir.FunctionType(ir.VoidType(), [BYTE.as_pointer(), *[DOUBLE] * 3])
        fetch = builder.module.declare_intrinsic("llvm.prefetch.p0", (), kind)
        builder.call(fetch, [line, DOUBLE(0), DOUBLE(cache), DOUBLE(1)])
        return context.get_dummy_value()

    return generated(lambda _, address: (nothing_of(1), generate))


bring, bring_near = prefetch(2), prefetch(3)


@generated
def interleave(_: Any, first: Any, second: Any, target: Any) -> Any:
    """16 numbers of each of two rows become 16 pairs."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = [builder.load(at(builder, address, HALF), align=2) for address in arguments[:2]]
        pairs = builder.shuffle_vector(*rows, order(place for j in range(16) for place in (j, 16 + j)))
        builder.store(pairs, at(builder, arguments[2], WORDS), align=64)
        return context.get_dummy_value()

    return nothing_of(3), generate


@generated
def transpose(_: Any, source: Any, stride: Any, target: Any, width: Any) -> Any:
    """16 rows of 16 pairs become 16 columns."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, stride, target, width = arguments
        rows = [
            builder.load(at(builder, builder.add(source, builder.mul(LONG(i), stride)), DOUBLES), align=2)
            for i in range(16)
        ]
        for step in (1, 2, 4, 8):
            low = order(16 + (j ^ step) if j & step else j for j in range(16))
            high = order(16 + j if j & step else j ^ step for j in range(16))
            for i in range(16):
                if not i & step:
                    pair = rows[i], rows[i | step]
                    rows[i], rows[i | step] = (builder.shuffle_vector(*pair, which) for which in (low, high))
        for i in range(16):
            place = builder.add(target, builder.mul(LONG(i), width))
            builder.store(rows[i], at(builder, place, DOUBLES), align=64)
        return context.get_dummy_value()

    return nothing_of(4), generate


@generated
def multiply_tile(
    _: Any, rows: Any, stride: Any, valid: Any, pairs: Any, panel: Any, sums: Any, again: Any, out: Any, width: Any
) -> Any:
    """`valid` rows by a panel: into `sums`, which it goes on from where `again` is not 0, or narrow into `out`."""
    return nothing_of(9), generate_tile


def generate_tile(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    rows, stride, valid, pairs, panel, sums, again, out, width = arguments
    last, before = builder.sub(valid, LONG(1)), builder.block

    def row_of(i: int, base: Any, stride: Any) -> Any:
        """Rows that are not there are the last one once more."""
        there = builder.select(builder.icmp_signed("<", LONG(i), valid), LONG(i), last)
        return builder.add(base, builder.mul(there, stride))

    lines = [at(builder, row_of(i, rows, stride), DOUBLE) for i in range(ROWS)]
    blocks = [builder.append_basic_block(name) for name in ("resume", "loop", "end")]
    resume, loop, end = blocks
    builder.cbranch(builder.icmp_signed("!=", again, LONG(0)), resume, loop)
    builder.position_at_end(resume)
    places = range(ROWS * COLUMNS // 16)
    gone = [builder.load(at(builder, sums, FLOATS, k), align=64) for k in places]
    builder.branch(loop)
    builder.position_at_end(loop)
    pair, totals = builder.phi(LONG), [builder.phi(FLOATS) for _ in places]
    for block, found in ((before, [ir.Constant(FLOATS, [0.0] * 16)] * len(totals)), (resume, gone)):
        pair.add_incoming(LONG(0), block)
        for total, start in zip(totals, found, strict=True):
            total.add_incoming(start, block)
    panels = builder.add(panel, builder.mul(pair, LONG(PANEL)))
    added = add_pair(builder, [builder.gep(line, [pair]) for line in lines], panels, totals)
    following = builder.add(pair, LONG(1))
    pair.add_incoming(following, loop)
    for total, sum_ in zip(totals, added, strict=True):
        total.add_incoming(sum_, loop)
    builder.cbranch(builder.icmp_signed("<", following, pairs), loop, end)
    builder.position_at_end(end)
    with builder.if_else(builder.icmp_signed("==", out, LONG(0))) as (wide, narrow):
        with wide:
            for k in places:
                builder.store(added[k], at(builder, sums, FLOATS, k), align=64)
        with narrow:
            for i in reversed(range(ROWS)):
                store_row(builder, row_of(i, out, width), added[4 * i : 4 * i + 4])
    return context.get_dummy_value()


def add_pair(builder: Any, lines: Any, panel: Any, totals: Any) -> list[Any]:
    """The next pair of each row times the panel's next pairs."""
    kind = ir.FunctionType(FLOATS, [FLOATS, NARROW, NARROW])
    dot = builder.module.declare_intrinsic("llvm.x86.avx512bf16.dpbf16ps.512", (), kind)
    undefined = ir.Constant(DOUBLES, ir.Undefined)
    columns = [builder.bitcast(builder.load(at(builder, panel, DOUBLES, v), align=64), NARROW) for v in range(4)]
    added = []
    for i, line in enumerate(lines):
        first = builder.insert_element(undefined, builder.load(line, align=2), DOUBLE(0))
        same = builder.bitcast(builder.shuffle_vector(first, undefined, order([0] * 16)), NARROW)
        added += [builder.call(dot, [totals[4 * i + v], same, columns[v]]) for v in range(4)]
    return added


def store_row(builder: Any, address: Any, sums: Any) -> None:
    kind = ir.FunctionType(NARROW, [FLOATS, FLOATS])
    convert = builder.module.declare_intrinsic("llvm.x86.avx512bf16.cvtne2ps2bf16.512", (), kind)
    for half in range(2):
        narrow = builder.call(convert, [sums[2 * half + 1], sums[2 * half]])
        builder.store(builder.bitcast(narrow, WORDS), at(builder, address, WORDS, half), align=2)


@inlined
def pair_at(first: Any, second: Any) -> Any:
    return u32(load_word(first)) | (u32(load_word(second)) << u32(16))


@inlined
def lay_columns(source: int, stride: int, depth: int, columns: int, target: Any) -> None:
    """(depth, columns) → pairs of rows, a panel wide; what is missing to a pair is 0."""
    room, whole = target.ctypes.data, columns // 16 * 16
    numbers = target.view(u32)
    for pair in range(depth // 2):
        first = source + 2 * pair * stride
        for j in range(0, whole, 16):
            interleave(first + 2 * j, first + stride + 2 * j, room + pair * PANEL + 4 * j)
        for j in range(whole, columns):
            numbers[pair * COLUMNS + j] = pair_at(first + 2 * j, first + stride + 2 * j)
    if depth % 2:
        for j in range(columns):
            numbers[depth // 2 * COLUMNS + j] = u32(load_word(source + (depth - 1) * stride + 2 * j))


@inlined
def lay_rows(source: int, stride: int, depth: int, columns: int, target: Any) -> None:
    """(columns, depth), of which the depth is even → the same."""
    room, pairs = target.ctypes.data, depth // 2
    whole, even = columns // 16 * 16, pairs // 16 * 16
    numbers = target.view(u32)
    for pair in range(0, even, 16):
        for j in range(0, whole, 16):
            transpose(source + j * stride + 4 * pair, stride, room + pair * PANEL + 4 * j, PANEL)
    for j in range(columns):
        for pair in range(even if j < whole else 0, pairs):
            place = source + j * stride + 4 * pair
            numbers[pair * COLUMNS + j] = pair_at(place, place + 2)


@inlined
def fetch(source: int, stride: int, rows: int, columns: int, part: int, parts: int) -> None:
    """One of so many parts of a block comes nearer."""
    lines = (columns + 31) // 32
    for line in range(rows * lines * part // parts, rows * lines * (part + 1) // parts):
        bring(source + line // lines * stride + line % lines * 64)


@inlined
def sweep(x: Any, rows: int, panel: Any, sums: Any, again: int, columns: int, out: int, width: int, ahead: Any) -> None:
    """All rows by a panel: the sums of each tile kept, or narrow in `out`. Meanwhile the next block comes nearer.

    An `out` less wide than the panel is filled by way of the sums of the first tile, which are read by then.
    """
    begin, by_edge = sums.ctypes.data, out and columns < COLUMNS
    for i in range(0, rows, ROWS):
        valid, total, place = min(ROWS, rows - i), begin + i * PANEL, out + i * width
        target, step = (begin, 2 * COLUMNS) if by_edge else (place if out else 0, width)
        if again:
            for line in range(24):
                bring_near(total + ROWS * PANEL + line * 64)
        for j in range(6):
            bring_near(x[0] + (i + ROWS + j) * x[1])
            bring_near(x[0] + (i + ROWS + j) * x[1] + 64)
        multiply_tile(x[0] + i * x[1], x[1], valid, x[2] // 2, panel.ctypes.data, total, again, target, step)
        for j in range(valid if by_edge else 0):
            copy_words(begin + j * 2 * COLUMNS, place + j * width, columns)
        fetch(ahead[0], ahead[1], ahead[2], ahead[3], i // ROWS, (rows + ROWS - 1) // ROWS)


def room_to_multiply(rows: int, columns: int, depth: int) -> int:
    """Float32 that `multiply` needs besides: a panel, and sums of all rows, for one panel or for all."""
    return (DEPTH // 2 + (rows + ROWS) * ((columns + COLUMNS - 1) // COLUMNS if depth > DEEP else 1)) * COLUMNS


@inlined
def plan(step: int, one: int, columns: int, by_rows: bool, factors: Any, more: Any) -> Any:
    """Which panel, which block; address, stride, rows and columns of what is read of a and of b."""
    panels, own = (columns + COLUMNS - 1) // COLUMNS, (factors[2] + DEPTH - 1) // DEPTH
    blocks = own + (more[2] + DEPTH - 1) // DEPTH
    n, block = (step % panels, step // panels) if factors[2] > DEEP else (step // blocks, step % blocks)
    a, b, depth, held = factors if block < own else more
    k, wide = (block if block < own else block - own) * DEPTH, min(COLUMNS, columns - n * COLUMNS)
    x, y, deep = a[0] + one * a[1], b[0] + one * b[1], min(DEPTH, held - k)
    if by_rows:
        part = (y + n * COLUMNS * b[2] + 2 * k, b[2], wide, deep)
    else:
        part = (y + k * b[2] + 2 * n * COLUMNS, b[2], deep, wide)
    return n, block, block == blocks - 1, (x + 2 * k, a[2], min(DEPTH, depth - k)), part


@jit
def multiply(many: int, shape: Any, by_rows: bool, factors: Any, more: Any, out: Place, room: Any) -> None:
    """a @ b, or a @ b.T where b comes `by_rows`, to which the product of `more` is added.

    `factors` and `more` are where a and b are, how many columns a has (even; 0 for no more) and how many of them b has:
    one less at most, and that column of a must be 0.
    """
    rows, columns = shape
    panel, sums = room[: DEPTH // 2 * COLUMNS], room[DEPTH // 2 * COLUMNS :]
    blocks = (factors[2] + DEPTH - 1) // DEPTH + (more[2] + DEPTH - 1) // DEPTH
    steps = (columns + COLUMNS - 1) // COLUMNS * blocks
    for one in range(many):
        for step in range(steps):
            n, block, last, x, y = plan(step, one, columns, by_rows, factors, more)
            ahead = plan(min(step + 1, steps - 1), one, columns, by_rows, factors, more)[4]
            if by_rows:
                lay_rows(y[0], y[1], y[3], y[2], panel)
            else:
                lay_columns(y[0], y[1], y[2], y[3], panel)
            kept = sums[n * (rows + ROWS) * COLUMNS if factors[2] > DEEP else 0 :]
            place = out[0] + one * out[1] + 2 * n * COLUMNS if last else 0
            wide = min(COLUMNS, columns - n * COLUMNS)
            sweep(x, rows, panel, kept, int(block > 0), wide, place, out[2], ahead)


@inlined
def grow(made: Any, scale: Any, out: Any) -> None:
    whole = len(out) // 16 * 16
    for j in range(0, whole, 16):
        add_floats(made.ctypes.data + 4 * j, scale, out.ctypes.data + 4 * j)
    for j in range(whole, len(out)):
        out[j] += made[j] * scale


def room_to_add(rows: int) -> int:
    """Float32 that `add_outer` needs besides: a panel, the rows laid out, and the sums of a tile."""
    return DEPTH // 2 * (COLUMNS + rows + COLUMNS) + ROWS * COLUMNS


@jit
def add_outer(many: int, shape: Any, a: Place, b: Place, depth: int, scale: Any, out: Any, room: Any) -> None:
    """The first rows of each of `out` (many, rows, columns), in float32, grow by a.T @ b × scale."""
    rows, columns = shape
    sums, panel = room[: ROWS * COLUMNS], room[ROWS * COLUMNS : (ROWS + DEPTH // 2) * COLUMNS]
    lines = room[(ROWS + DEPTH // 2) * COLUMNS :].ctypes.data
    stride = (min(depth, DEPTH) + 31) // 32 * 64
    for one in range(many):
        for k in range(0, depth, DEPTH):
            deep = min(DEPTH, depth - k)
            x, y = a[0] + one * a[1] + k * a[2], b[0] + one * b[1] + k * b[2]
            for m in range(0, rows, COLUMNS):
                lay_columns(x + 2 * m, a[2], deep, min(COLUMNS, rows - m), panel)
                for pair in range(0, (deep + 1) // 2, 16):
                    for j in range(0, COLUMNS, 16):
                        source = panel.ctypes.data + pair * PANEL + 4 * j
                        transpose(source, PANEL, lines + (m + j) * stride + 4 * pair, stride)
            for n in range(0, columns, COLUMNS):
                wide = min(COLUMNS, columns - n)
                lay_columns(y + 2 * n, b[2], deep, wide, panel)
                for i in range(0, rows, ROWS):
                    valid = min(ROWS, rows - i)
                    place = lines + i * stride
                    multiply_tile(place, stride, valid, (deep + 1) // 2, panel.ctypes.data, sums.ctypes.data, 0, 0, 0)
                    for r in range(valid):
                        grow(sums[r * COLUMNS :], scale, out[one, i + r, n : n + wide])
