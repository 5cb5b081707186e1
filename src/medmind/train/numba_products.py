"""Products of bfloat16 matrices for one thread of a processor with AVX-512 BF16, compiled when first called.

A block of one matrix is laid out as a panel; then the other's rows go by it, a few at a time, their sums in registers.
Matrices come by their addresses: a `Place` is where the first of many begins, and how many bytes lie between two of
them and between two rows.
"""

from typing import Any

import numpy as np

from medmind.train.jit import inlined, jit
from medmind.train.registers import (
    HEIGHTS,
    PANEL,
    SUMS,
    add_floats,
    bring,
    bring_near,
    copy_words,
    interleave,
    load_word,
    multiply_tile,
    transpose,
)

COLUMNS, DEPTH = 64, 2048
"""Of a panel; it has about so many rows, or up to half as many more where that saves a block."""
MOST = DEPTH * 3 // 2
LOW = 256
"""Rows of a panel where few rows go by it."""
DEEP = 2 * DEPTH
"""Rows of more numbers than that are not read once for each panel: all panels see a piece of them before the next."""
SHARES = 64
"""So many tiles, the last, bring the next block nearer."""
Place = tuple[int, int, int]
Factors = tuple[Place, Place, int, int]
"""Where a and b are, how many columns a has (even; 0 for no product), and how many of them b has.

One less at most: that column of a must be 0.
"""
Source = tuple[int, int, int]
"""The address of a row, bytes to the next, and how many pairs of its columns are multiplied."""
Block = tuple[int, int, int, int]
"""An address, bytes from row to row, rows and columns."""
u32 = np.uint32


@inlined
def pair_at(first: int, second: int) -> Any:
    return u32(load_word(first)) | (u32(load_word(second)) << u32(16))


@inlined
def lay_columns(source: int, stride: int, depth: int, columns: int, target: Any) -> None:
    """(depth, columns) → pairs of rows, a panel wide; what is missing to a pair is 0."""
    room, numbers, wide = target.ctypes.data, target.view(u32), columns >= 16
    for pair in range(depth // 2):
        first = source + 2 * pair * stride
        for start in range(0, columns if wide else 0, 16):
            j = min(start, columns - 16)  # the last vector may have columns of the one before
            interleave(first + 2 * j, first + stride + 2 * j, room + pair * PANEL + 4 * j)
        for j in range(0 if wide else columns):
            numbers[pair * COLUMNS + j] = pair_at(first + 2 * j, first + stride + 2 * j)
    if depth % 2:
        for j in range(columns):
            numbers[depth // 2 * COLUMNS + j] = u32(load_word(source + (depth - 1) * stride + 2 * j))


@inlined
def lay_rows(source: int, stride: int, depth: int, columns: int, target: Any) -> None:
    """(columns, depth), of which the depth is even → the same."""
    room, numbers, pairs = target.ctypes.data, target.view(u32), depth // 2
    large = min(columns, pairs) >= 16
    for begin in range(0, pairs if large else 0, 16):
        pair = min(begin, pairs - 16)  # as above
        for start in range(0, columns, 16):
            j = min(start, columns - 16)
            transpose(source + j * stride + 4 * pair, stride, room + pair * PANEL + 4 * j, PANEL)
    for j in range(0 if large else columns):
        for pair in range(pairs):
            place = source + j * stride + 4 * pair
            numbers[pair * COLUMNS + j] = pair_at(place, place + 2)


def count_tiles(rows: int, vectors: int) -> int:
    return (rows + HEIGHTS[vectors] - 1) // HEIGHTS[vectors]


tiles_of = inlined(count_tiles)


@inlined
def fetch(block: Block, part: int, parts: int) -> None:
    """One of so many parts of a block comes nearer."""
    source, stride, rows, columns = block
    for row in range(rows * part // parts, rows * (part + 1) // parts):
        for byte in range(0, 2 * columns, 64):
            bring(source + row * stride + byte)


@inlined
def lines_of(block: Block, by_rows: bool, part: int) -> tuple[int, int]:
    """The lines of one of SHARES parts of a block."""
    source, stride, rows, _ = block
    if by_rows:
        return source + min(part, rows - 1) * stride, 128
    return source + rows * part // SHARES * stride, stride


@inlined
def sweep(
    rows: int,
    a: Source,
    more: Source,
    panel: int,
    sums: int,
    again: int,
    columns: int,
    out: int,
    width: int,
    ahead: Block,
    by_rows: bool,
) -> None:
    """All rows by a panel: their sums kept, or narrow in `out`. Meanwhile the next block comes nearer.

    An `out` not as wide as whole vectors is filled by way of the sums of the first tile, which are read by then.
    """
    vectors = (columns + 15) // 16
    height, tiles, by_edge = HEIGHTS[vectors], tiles_of(rows, vectors), out and columns % 16
    missing = max(0, SHARES - tiles)
    for tile in range(tiles):
        i = tile * height
        valid, total, place = min(height, rows - i), sums + tile * SUMS, out + i * width if out else 0
        for line in range(24 if again else 0):
            bring_near(total + SUMS + line * 64)
        for j in range(height):
            bring_near(a[0] + (i + height + j) * a[1])
        x, y = (a[0] + i * a[1], a[1], a[2]), (more[0] + i * more[1], more[1], more[2])
        target, step = (sums, 2 * COLUMNS) if by_edge else (place, width)
        part = tile - tiles + SHARES  # what comes sooner has left the cache again when it is needed
        lines = lines_of(ahead, by_rows, part) if part >= 0 else (x[0], 0)
        for other in range(missing * tile // tiles, missing * (tile + 1) // tiles):
            fetch(ahead, other, SHARES)
        multiply_tile(vectors, valid, x, y, panel, total, again, target, step, lines)
        for j in range(valid if by_edge else 0):
            copy_words(sums + j * 2 * COLUMNS, place + j * width, columns)


def room_to_multiply(rows: int, columns: int, depth: int, more: int) -> int:
    """Float32 that `multiply` needs besides: a panel, and sums of all rows, for one panel or for all."""
    panels = (columns + COLUMNS - 1) // COLUMNS if depth > DEEP else 1
    return (MOST + more) // 2 * COLUMNS + panels * count_tiles(rows, 4) * SUMS // 4


@inlined
def plan(step: int, one: int, columns: int, by_rows: bool, factors: Factors) -> Any:
    """Which panel; which block, if it is the last; what is read of a, and of b as address, stride, rows, columns."""
    a, b, depth, held = factors
    panels, blocks = (columns + COLUMNS - 1) // COLUMNS, max(1, (depth + DEPTH // 2) // DEPTH)
    n, block = (step % panels, step // panels) if depth > DEEP else (step // blocks, step % blocks)
    size = ((depth + blocks - 1) // blocks + 1) // 2 * 2
    k, wide = block * size, min(COLUMNS, columns - n * COLUMNS)
    x, y, deep = a[0] + one * a[1], b[0] + one * b[1], min(size, held - k)
    if by_rows:
        part = (y + n * COLUMNS * b[2] + 2 * k, b[2], wide, deep)
    else:
        part = (y + k * b[2] + 2 * n * COLUMNS, b[2], deep, wide)
    return n, block, block == blocks - 1, (x + 2 * k, a[2], min(size, depth - k) // 2), part


@jit
def multiply(many: int, shape: Any, by_rows: bool, factors: Factors, more: Factors, out: Place, room: Any) -> None:
    """a @ b, or a @ b.T where b comes `by_rows`, to which the product of `more` is added."""
    rows, columns = shape
    space = (MOST + more[2]) // 2 * COLUMNS
    panel, kept = room[:space], room[space:].ctypes.data
    blocks, deep = max(1, (factors[2] + DEPTH // 2) // DEPTH), factors[2] > DEEP
    steps = (columns + COLUMNS - 1) // COLUMNS * blocks
    for one in range(many):
        for step in range(steps):
            n, block, last, x, y = plan(step, one, columns, by_rows, factors)
            ahead = plan(min(step + 1, steps - 1), one, columns, by_rows, factors)[4]
            if by_rows:
                lay_rows(y[0], y[1], y[3], y[2], panel)
            else:
                lay_columns(y[0], y[1], y[2], y[3], panel)
            wide, place, added = min(COLUMNS, columns - n * COLUMNS), 0, (0, 0, 0)
            if last:
                place = out[0] + one * out[1] + 2 * n * COLUMNS
                if more[2]:
                    added = (more[0][0] + one * more[0][1], more[0][2], more[2] // 2)
                    b, stride = more[1][0] + one * more[1][1] + 2 * n * COLUMNS, more[1][2]
                    lay_columns(b, stride, more[3], wide, panel[x[2] * COLUMNS :])
            sums = kept + (n * tiles_of(rows, 4) * SUMS if deep else 0)
            sweep(rows, x, added, panel.ctypes.data, sums, int(block > 0), wide, place, out[2], ahead, by_rows)


@inlined
def grow(made: Any, scale: Any, out: Any) -> None:
    whole = len(out) // 16 * 16
    for j in range(0, whole, 16):
        add_floats(made.ctypes.data + 4 * j, scale, out.ctypes.data + 4 * j)
    for j in range(whole, len(out)):
        out[j] += made[j] * scale


def room_to_add(rows: int) -> int:
    """Float32 that `add_outer` needs besides: a panel, the rows laid out, and the sums of a tile."""
    return LOW // 2 * (COLUMNS + rows + COLUMNS) + SUMS // 4


@jit
def add_outer(many: int, shape: Any, a: Place, b: Place, depth: int, scale: Any, out: Any, room: Any) -> None:
    """The first rows of each of `out` (many, rows, columns), in float32, grow by a.T @ b × scale."""
    rows, columns = shape
    sums, panel = room[: SUMS // 4], room[SUMS // 4 : SUMS // 4 + LOW // 2 * COLUMNS]
    lines, stride = room[SUMS // 4 + LOW // 2 * COLUMNS :].ctypes.data, (min(depth, LOW) + 31) // 32 * 64
    for one in range(many):
        for k in range(0, depth, LOW):
            deep = min(LOW, depth - k)
            pairs, x, y = (deep + 1) // 2, a[0] + one * a[1] + k * a[2], b[0] + one * b[1] + k * b[2]
            for m in range(0, rows, COLUMNS):
                lay_columns(x + 2 * m, a[2], deep, min(COLUMNS, rows - m), panel)
                for pair in range(0, pairs, 16):
                    for j in range(0, COLUMNS, 16):
                        source = panel.ctypes.data + pair * PANEL + 4 * j
                        transpose(source, PANEL, lines + (m + j) * stride + 4 * pair, stride)
            for n in range(0, columns, COLUMNS):
                wide = min(COLUMNS, columns - n)
                vectors = (wide + 15) // 16
                height, tiles = HEIGHTS[vectors], tiles_of(rows, vectors)
                ahead = (y + 2 * min(n + COLUMNS, columns - wide), b[2], deep, wide)
                lay_columns(y + 2 * n, b[2], deep, wide, panel)
                for tile in range(tiles):
                    i = tile * height
                    valid, line = min(height, rows - i), (lines + i * stride, stride, pairs)
                    near = (line[0], 0)
                    multiply_tile(vectors, valid, line, (0, 0, 0), panel.ctypes.data, sums.ctypes.data, 0, 0, 0, near)
                    fetch(ahead, tile, tiles)
                    for r in range(valid):
                        grow(sums[r * vectors * 16 :], scale, out[one, i + r, n : n + wide])
