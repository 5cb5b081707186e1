"""Passes over a CPU's rows for one thread, compiled when first called: each does at once what torch does in many.

Arrays are C-contiguous; of those wider than the rows they hold the first columns are meant. bfloat16 comes as its bits
in uint16. All is computed in float32 and rounded once. A NaN that a computation makes stays one.
"""

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from medmind.train.jit import inlined, jit

f32, u32, u16, i32 = np.float32, np.uint32, np.uint16, np.int32
Array = NDArray[Any]


def widen(number: Any) -> Any:
    """To float32."""


def narrow(number: Any, like: Any) -> Any:
    """A float32 as an array of the kind of `like` holds it, rounded to the nearest, to even in the middle."""


@overload(widen, inline="always")
def compile_widen(number: Any) -> Any:
    def from_bits(number: Any) -> Any:
        return u32(u32(number) << u32(16)).view(f32)

    def same(number: Any) -> Any:
        return number

    return from_bits if number == types.uint16 else same


@overload(narrow, inline="always")
def compile_narrow(number: Any, like: Any) -> Any:
    def to_bits(number: Any, like: Any) -> Any:
        bits = f32(number).view(u32)
        return u16(u32(bits + u32(0x7FFF) + ((bits >> u32(16)) & u32(1))) >> u32(16))

    def same(number: Any, like: Any) -> Any:
        return number

    return to_bits if like.dtype == types.uint16 else same


@inlined
def exponential(x: Any) -> Any:
    """e to the power of a float32, within two units in the last place; below -87 as at -87."""
    x = f32(-87) if x < f32(-87) else x
    x = f32(88) if x > f32(88) else x
    whole = np.floor(x * f32(1.44269504) + f32(0.5))
    rest = x - whole * f32(0.693359375)
    rest = rest + whole * f32(2.12194440e-4)
    power = f32(1.9875691500e-4)
    power = power * rest + f32(1.3981999507e-3)
    power = power * rest + f32(8.3334519073e-3)
    power = power * rest + f32(4.1665795894e-2)
    power = power * rest + f32(1.6666665459e-1)
    power = power * rest + f32(5.0000001201e-1)
    power = power * rest * rest + rest + f32(1)
    return power * i32((i32(whole) + i32(127)) << i32(23)).view(f32)


@inlined
def scale_row(row: Array, weight: Array, inverse: Any, out: Array) -> None:
    for j in range(len(row)):
        out[j] = narrow(widen(row[j]) * inverse * weight[j], out)


@inlined
def inverse_of(row: Array, eps: Any) -> Any:
    total = f32(0)
    for j in range(len(row)):
        number = widen(row[j])
        total += number * number
    return f32(1) / np.sqrt(total / f32(len(row)) + eps)


@jit
def normalise(rows: Array, weight: Array, eps: Any, out: Array, inverse: Array) -> None:
    for i in range(len(rows)):
        inverse[i] = inverse_of(rows[i], eps)
        scale_row(rows[i], weight, inverse[i], out[i])


@jit
def add_and_normalise(rows: Array, more: Array, weight: Array, eps: Any, out: Array, inverse: Array) -> None:
    """`rows` become the sum."""
    for i in range(len(rows)):
        row, other = rows[i], more[i]
        for j in range(len(row)):
            row[j] = narrow(widen(row[j]) + widen(other[j]), row)
        inverse[i] = inverse_of(row, eps)
        scale_row(row, weight, inverse[i], out[i])


@jit
def scale(rows: Array, weight: Array, inverse: Array, out: Array) -> None:
    for i in range(len(rows)):
        scale_row(rows[i], weight, inverse[i], out[i])


@jit
def differentiate_norm(rows: Array, weight: Array, inverse: Array, d_out: Array, more: Array, out: Array) -> None:
    """The gradient of the rows, and `more`: as many rows, or one for all."""
    for i in range(len(rows)):
        row, gradient, other, result = rows[i], d_out[i], more[i % len(more)], out[i]
        along = f32(0)
        for j in range(len(row)):
            along += widen(gradient[j]) * weight[j] * widen(row[j])
        along *= inverse[i] * inverse[i] / f32(len(row))
        for j in range(len(row)):
            own = inverse[i] * (widen(gradient[j]) * weight[j] - widen(row[j]) * along)
            result[j] = narrow(own + widen(other[j]), result)


@jit
def activate(gates: Array, out: Array) -> None:
    """silu(gate) × up, which lie side by side."""
    size = gates.shape[1] // 2
    for i in range(len(gates)):
        gate, up, row = gates[i, :size], gates[i, size:], out[i]
        for j in range(size):
            number = widen(gate[j])
            row[j] = narrow(number / (f32(1) + exponential(-number)) * widen(up[j]), row)


@jit
def differentiate_activation(gates: Array, d_out: Array, out: Array, d_gates: Array) -> None:
    """`out` is what `activate` gave, once more."""
    size = gates.shape[1] // 2
    for i in range(len(gates)):
        gate, up, gradient, row = gates[i, :size], gates[i, size:], d_out[i], out[i]
        d_gate, d_up = d_gates[i, :size], d_gates[i, size:]
        for j in range(size):
            number, other, change = widen(gate[j]), widen(up[j]), widen(gradient[j])
            sigmoid = f32(1) / (f32(1) + exponential(-number))
            active = number * sigmoid
            row[j] = narrow(active * other, row)
            d_up[j] = narrow(change * active, d_up)
            d_gate[j] = narrow(change * other * (sigmoid + active - active * sigmoid), d_gate)


@inlined
def turn(head: Array, cos: Array, sin: Array, sign: Any, out: Array) -> None:
    """One head at one position, turned by it (sign 1) or back (-1)."""
    half = len(out) // 2
    first, second, low, high = head[:half], head[half:], out[:half], out[half:]
    for j in range(len(low)):
        x, y, c, s = widen(first[j]), widen(second[j]), widen(cos[j]), widen(sin[j]) * sign
        low[j], high[j] = narrow(x * c - y * s, low), narrow(y * c + x * s, high)


@inlined
def copy(row: Array, out: Array) -> None:
    for j in range(len(out)):
        out[j] = narrow(widen(row[j]), out)


@jit
def take_heads(
    states: Array, first: int, shared: int, cos: Array, sin: Array, query: Array, key: Array, value: Array
) -> None:
    """(tokens, q, k and v side by side) from `first` on → those of one document by key head, q and k turned.

    query (key heads, length × group, size), key and value (key heads, shared + length, size), which begin with what
    another had.
    """
    heads, size, length = key.shape[0], key.shape[2], key.shape[1] - shared
    group = query.shape[1] // length
    for h in range(heads):
        for i in range(length):
            row, c, s = states[first + i], cos[first + i], sin[first + i]
            for g in range(group):
                turn(row[(h * group + g) * size :], c, s, f32(1), query[h, i * group + g])
            turn(row[(heads * group + h) * size :], c, s, f32(1), key[h, shared + i])
            copy(row[(heads * (group + 1) + h) * size :], value[h, shared + i])


@jit
def give_heads(
    query: Array, key: Array, value: Array, first: int, shared: int, cos: Array, sin: Array, states: Array
) -> None:
    """Their gradients, turned back and laid side by side again."""
    heads, size, length = key.shape[0], key.shape[2], key.shape[1] - shared
    group = query.shape[1] // length
    for h in range(heads):
        for i in range(length):
            row, c, s = states[first + i], cos[first + i], sin[first + i]
            for g in range(group):
                start = (h * group + g) * size
                turn(query[h, i * group + g], c, s, f32(-1), row[start : start + size])
            start = (heads * group + h) * size
            turn(key[h, shared + i], c, s, f32(-1), row[start : start + size])
            start += heads * size
            copy(value[h, shared + i], row[start : start + size])


@jit
def take_rows(states: Array, first: int, group: int, rows: Array) -> None:
    """(tokens, heads side by side) from `first` on → (key heads, length × group, size)."""
    heads, count, size = rows.shape
    for h in range(heads):
        for i in range(count):
            start = (h * group + i % group) * size
            copy(states[first + i // group, start : start + size], rows[h, i])


@jit
def give_rows(rows: Array, first: int, group: int, states: Array) -> None:
    """And back."""
    heads, count, size = rows.shape
    for h in range(heads):
        for i in range(count):
            start = (h * group + i % group) * size
            copy(rows[h, i], states[first + i // group, start : start + size])


@inlined
def ordered(bits: Any) -> Any:
    """The bits of a float32 as an integer that grows with it, and back; comparing these is what compilers can widen."""
    return i32(bits ^ ((bits >> i32(31)) & i32(0x7FFFFFFF)))


@inlined
def largest(row: Array) -> Any:
    """A NaN is larger than all."""
    highest = i32(-0x7FFFFFFF)
    for j in range(len(row)):
        highest = max(highest, ordered(f32(widen(row[j])).view(i32)))
    return i32(ordered(highest)).view(f32)


@jit
def softmax(scores: Array, first: int, group: int, scale: Any) -> None:
    """In place: a row of scores (key heads, positions × group, keys) sees the keys up to its own position."""
    heads, rows, keys = scores.shape
    room = np.empty(keys, f32)
    for h in range(heads):
        for i in range(rows):
            seen = first + i // group + 1
            row = scores[h, i, :seen]
            highest = largest(row)
            total = f32(0)
            for j in range(len(row)):
                room[j] = exponential((widen(row[j]) - highest) * scale)
                total += room[j]
            share = f32(1) / total
            for j in range(len(row)):
                row[j] = narrow(room[j] * share, row)
            scores[h, i, seen:] = 0


@jit
def differentiate_softmax(probabilities: Array, gradients: Array, first: int, group: int, scale: Any) -> None:
    """In place: from gradients of the probabilities to those of the scores."""
    heads, rows, _ = gradients.shape
    for h in range(heads):
        for i in range(rows):
            seen = first + i // group + 1
            share, row = probabilities[h, i, :seen], gradients[h, i, :seen]
            along = f32(0)
            for j in range(len(row)):
                along += widen(share[j]) * widen(row[j])
            for j in range(len(row)):
                row[j] = narrow(widen(share[j]) * (widen(row[j]) - along) * scale, row)
            gradients[h, i, seen:] = 0


@jit
def cross_entropy(logits: Array, labels: Array) -> Any:
    """The sum in nats; leaves its gradient in the logits."""
    tokens, size = logits.shape
    room = np.empty(size, f32)
    nats = 0.0
    for i in range(tokens):
        row = logits[i]
        highest = largest(row)
        total = f32(0)
        for j in range(size):
            room[j] = exponential(widen(row[j]) - highest)
            total += room[j]
        nats += np.log(total) + highest - widen(row[labels[i]])
        share = f32(1) / total
        room[labels[i]] -= total
        for j in range(size):
            row[j] = narrow(room[j] * share, row)
    return nats
