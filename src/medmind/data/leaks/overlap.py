"""Which of a few texts held in memory a stream of others repeats, word for word or with words exchanged.

A candidate shares words of a text's MinHash sketch; then the two are laid beside each other and compared word by word.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medmind.data.shingles import Hashes, Rows, batches, count_up, ngrams, word_hashes

GRAM = 3
"""Words of a shingle: a third of them survive when 30 % of the words are exchanged."""
SKETCH = 256
"""Shingles kept of a text: those with the lowest hashes (bottom-k MinHash)."""
CANDIDATE = 8
"""One in so many shingles of the sketch must be found for a closer look."""
RUN = 13
"""Words in a row that make a shared 13-gram."""
STOCK = 20
"""A phrase of so many texts tells nothing about any one of them."""
REACH = 15
"""Words compared on both sides of a shared shingle; words put in or left out shift only what lies between two."""
NEARBY = 8
"""Words, and a quarter of the text's length, by which what belongs together may have shifted."""
FLOOR = 0.5
"""Share of a text's telling words below which an overlap is not worth a word."""

_SEEN_SHIFT = np.uint64(64 - 24)

Mask = NDArray[np.bool_]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Overlap:
    """What text `other` of a batch has of the indexed text `text`, as masks over the words of that one."""

    other: int
    text: int
    equal: Mask
    """The word stands at its place in the other text, too."""
    runs: Mask
    """It does so within 13 such words in a row, or the whole text does."""


class OverlapIndex:
    """Indexes texts; `owners` says which row a text belongs to and `suites` which evaluation set the row: within each a
    phrase counts once for every row.
    """

    def __init__(self, texts: Sequence[str], owners: Sequence[int], suites: Sequence[int]) -> None:
        self.words = _join([word_hashes(batch) for batch in batches(texts)])
        self._runs = ngrams(self.words, RUN)
        grams = ngrams(self.words, GRAM)
        whole = (self.words.sizes >= GRAM)[grams.owners]
        text, place = grams.owners[whole], grams.places[whole]
        values = grams.values[whole]
        common = _is_common(values, *(np.asarray(which, dtype=np.int64)[text] for which in (owners, suites)))
        self.tells = np.ones(len(self.words.values), dtype=bool)
        """Words that no stock phrase covers."""
        for step in range(GRAM):
            self.tells[self.words.starts[text[common]] + place[common] + step] = False
        chosen = self._sketch(values, text, ~common)
        self._gram, self._text, self._at = values[chosen], text[chosen], place[chosen]
        order = np.argsort(self._gram, kind="stable")
        self._gram, self._text, self._at = self._gram[order], self._text[order], self._at[order]
        self._seen = np.zeros(1 << 24, dtype=bool)
        self._seen[self._gram >> _SEEN_SHIFT] = True
        self._need = np.maximum(np.bincount(self._text, minlength=len(self.words)) // CANDIDATE, 1)

    def _sketch(self, values: Hashes, text: Places, usable: Mask) -> Places:
        """Places of the shingles with the lowest hashes of each text."""
        places = np.flatnonzero(usable)
        order = places[np.lexsort((values[places], text[places]))]
        begins = np.searchsorted(text[order], np.arange(len(self.words)))
        rank = np.arange(len(order)) - begins[text[order]]
        chosen: Places = order[rank < SKETCH]
        return chosen

    def tell(self, text: int) -> Mask:
        """Which words of a text are not stock; a view, to be narrowed by who learns more."""
        return self.tells[self.words.starts[text] : self.words.starts[text + 1]]

    def find(self, texts: Sequence[str]) -> Iterator[Overlap]:
        """Every indexed text of which one of these has a good part."""
        words = word_hashes(texts)
        grams = ngrams(words, GRAM)
        known = np.flatnonzero(self._seen[grams.values >> _SEEN_SHIFT])
        low = np.searchsorted(self._gram, grams.values[known], side="left")
        counts = np.searchsorted(self._gram, grams.values[known], side="right") - low
        hit, posting = np.repeat(known, counts), np.repeat(low, counts) + count_up(counts)
        hits = Hits(grams.owners[hit], self._text[posting], self._at[posting], grams.places[hit])
        best: dict[tuple[int, int], tuple[int, Mask]] = {}
        for zones in self._zones(hits):
            _, which, votes = np.unique(zones, return_inverse=True, return_counts=True)
            near = votes[which] >= self._need[hits.text]
            if not near.any():
                continue
            for other, text, shared, equal in self._compare(words, hits.where(near), zones[near]):
                if shared > best.get((other, text), (0, equal))[0]:
                    best[other, text] = shared, equal
        theirs = ngrams(words, RUN) if best else grams
        for (other, text), (_, equal) in best.items():
            yield Overlap(other, text, equal, self._in_runs(text, theirs[other], equal))

    def _zones(self, hits: "Hits") -> Iterator[Places]:
        """Numbers equal for hits of one pair of texts whose shifts are near each other: elsewhere it is another place
        that is alike. There are two divisions, so that what a border of one parts is together in the other.
        """
        width = NEARBY + self.words.sizes[hits.text] // 4
        pair = (hits.other * len(self.words) + hits.text) << 32
        for offset in (0, width // 2):
            yield pair + (hits.theirs - hits.mine + offset) // width + (1 << 31)

    def _compare(self, words: Rows, hits: "Hits", zones: Places) -> Iterator[tuple[int, int, int, Mask]]:
        """(other, text, telling words shared, which) of each zone: the texts are laid beside each other at every
        shared shingle, and the words around it compared.
        """
        _, first, which = np.unique(zones, return_index=True, return_inverse=True)
        texts, others = hits.text[first], hits.other[first]
        sizes = self.words.sizes[texts]
        begins = np.cumsum(sizes) - sizes
        equal = np.zeros(int(sizes.sum()), dtype=bool)
        for step in range(-REACH, REACH + GRAM):
            at, there = hits.mine + step, hits.theirs + step
            fit = (at >= 0) & (at < sizes[which]) & (there >= 0) & (there < words.sizes[hits.other])
            left = self.words.values[self.words.starts[hits.text[fit]] + at[fit]]
            right = words.values[words.starts[hits.other[fit]] + there[fit]]
            equal[(begins[which[fit]] + at[fit])[left == right]] = True
        tells = self.tells[np.repeat(self.words.starts[texts], sizes) + count_up(sizes)]
        shared, all_of_it = (np.add.reduceat(mask, begins, dtype=np.int64) for mask in (equal & tells, tells))
        for zone in np.flatnonzero(shared >= np.maximum(FLOOR * all_of_it, 1)).tolist():
            same = equal[begins[zone] : begins[zone] + sizes[zone]]
            yield int(others[zone]), int(texts[zone]), int(shared[zone]), same

    def _in_runs(self, text: int, theirs: Hashes, equal: Mask) -> Mask:
        """The words of a text within one of these 13-grams; a shorter text is one run if it is there as a whole."""
        if len(equal) < RUN:
            return equal & equal.all()
        inside = np.zeros(len(equal), dtype=bool)
        for place in np.flatnonzero(np.isin(self._runs[text], theirs)).tolist():
            inside[place : place + RUN] = True
        return inside


@dataclass(frozen=True)
class Hits:
    """Shared shingles: text `other` of a batch has at `theirs` what the indexed `text` has at `mine`."""

    other: Places
    text: Places
    mine: Places
    theirs: Places

    def where(self, chosen: Mask) -> "Hits":
        return Hits(self.other[chosen], self.text[chosen], self.mine[chosen], self.theirs[chosen])


def _is_common(values: Hashes, owner: Places, suite: Places) -> Mask:
    """Of each shingle: whether so many different rows of its suite have it that it is stock."""
    order = np.lexsort((owner, suite, values))
    fresh = _changes(values[order]) | _changes(suite[order])
    which = np.cumsum(fresh) - 1
    counts = np.bincount(which, weights=fresh | _changes(owner[order]), minlength=1)
    common = np.zeros(len(values), dtype=bool)
    common[order] = counts[which] >= STOCK
    return common


def _changes(values: Places | Hashes) -> Mask:
    """Where a value differs from the one before."""
    changed: Mask = np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]
    return changed


def _join(parts: Sequence[Rows]) -> Rows:
    starts = np.cumsum(np.concatenate([[0], *(part.sizes for part in parts)]))
    return Rows(np.concatenate([np.zeros(0, np.uint64), *(part.values for part in parts)]), starts.astype(np.int64))
