"""Texts as numbers, whole batches at a time: a hash for every word, then one for every run of n words."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_RANDOM = np.random.Generator(np.random.PCG64(20)).integers(1, 2**64 - 1, 448, dtype=np.uint64) | np.uint64(1)
_BYTES, _PLACES, _STEPS = _RANDOM[:256], _RANDOM[256:320], _RANDOM[320:]
_IN_WORD = np.array([chr(byte).isalnum() or byte > 127 for byte in range(256)])


@dataclass(frozen=True)
class Rows:
    """`values` of all rows in one line; row i is `values[starts[i]:starts[i + 1]]`."""

    values: Hashes
    starts: NDArray[np.int64]

    def __getitem__(self, row: int) -> Hashes:
        return self.values[self.starts[row] : self.starts[row + 1]]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        return np.diff(self.starts)

    @cached_property
    def owners(self) -> NDArray[np.int64]:
        """The row of every value."""
        return np.repeat(np.arange(len(self)), self.sizes)

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """The place of every value within its row, from 0."""
        return count_up(self.sizes)


def word_hashes(texts: Sequence[str]) -> Rows:
    """The words of each text; case, blanks and punctuation do not make another word."""
    rows = [_plain(text).encode() for text in texts]
    raw = np.frombuffer(b" ".join(rows) + b" ", dtype=np.uint8)
    within = _IN_WORD[raw]
    edges = np.flatnonzero(np.diff(within, prepend=False, append=False))
    begins, sizes = edges[::2], edges[1::2] - edges[::2]
    firsts = _starts(sizes)[:-1]
    letters = _BYTES[raw[within]] * _PLACES[count_up(sizes) % len(_PLACES)]
    values = _mix(np.add.reduceat(letters, firsts)) if len(firsts) else np.zeros(0, dtype=np.uint64)
    row_ends = np.cumsum([len(row) + 1 for row in rows])
    return Rows(values, np.concatenate([[0], np.searchsorted(begins, row_ends)]).astype(np.int64))


def _plain(text: str) -> str:
    folded = text.casefold()
    return folded if folded.isascii() else re.sub(r"[\W_]+", " ", folded)


def ngrams(words: Rows, n: int) -> Rows:
    """Every run of n words of each row, in order; a row of fewer words is one run of all it has."""
    size = words.sizes[words.owners]
    total = np.zeros(len(words.values), dtype=np.uint64)
    for step in range(min(n, len(total))):
        ahead = words.values[step:] * _STEPS[step]
        inside = words.places[: len(ahead)] + step < size[: len(ahead)]
        total[: len(ahead)] += np.where(inside, ahead, np.uint64(0))
    whole = (words.places + n <= size) | (words.places == 0)
    counts = np.where(words.sizes > 0, np.maximum(words.sizes - n + 1, 1), 0)
    return Rows(_mix(total[whole]), _starts(counts))


def count_up(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, … below each size, one after the other."""
    return np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _starts(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _mix(values: Hashes) -> Hashes:
    """Every bit of the result depends on every bit of the value (the finaliser of MurmurHash3)."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        values = (values ^ (values >> np.uint64(33))) * np.uint64(factor)
    return values ^ (values >> np.uint64(33))


def jaccard(left: NDArray[Any], right: NDArray[Any]) -> float:
    """Shared over all distinct values; 0 where there is none."""
    one, other = np.unique(left), np.unique(right)
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / max(len(one) + len(other) - shared, 1)


def batches(texts: Iterable[str], characters: int = 1_500_000) -> Iterator[list[str]]:
    """Lists of texts small enough that their arrays take about 150 MB."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text) + 1
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
