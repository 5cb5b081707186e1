"""Near duplicates among a million texts: MinHash signatures, cut in bands to find candidates, each then verified."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from medmind.data.shingles import Hashes, Rows, batches, jaccard, ngrams, word_hashes

WORDS = 5
"""Of a shingle."""
HASHES = 96
RECALL = 0.99
"""Least chance that two texts exactly at the threshold share a band."""
WINDOW = 32
"""Of a crowd that shares a band each is compared with its first and with this many before it: cost stays linear."""


def near_duplicates(
    texts: Iterable[str], threshold: float = 0.8, workdir: Path | None = None
) -> Iterator[tuple[int, int, float]]:
    """(kept, later, Jaccard) in the order of `later`: each later text at most once, beside an earlier one that is kept.

    To drop every `later` is a whole deduplication. Case, blanks and punctuation do not count; empty texts match none.
    About 1.2 GB of shingles a million texts of 300 words lie in `workdir` meanwhile.
    """
    with tempfile.TemporaryFile(dir=workdir) as file:
        sketches = Sketches(texts, threshold, file)
        twin: dict[int, int] = {}
        for earlier, later in candidates(sketches.bands):
            kept = twin.get(earlier, earlier)
            if later in twin:
                continue
            likeness = jaccard(sketches.shingles(kept), sketches.shingles(later))
            if likeness >= threshold:
                twin[later] = kept
                yield kept, later, likeness


class Sketches:
    """The shingles of every text on disk; in memory the few numbers by which candidates are found."""

    def __init__(self, texts: Iterable[str], threshold: float, file: IO[bytes]) -> None:
        rows = rows_of_band(threshold)
        bands = [np.zeros((0, HASHES // rows), dtype=np.uint64)]
        sizes = [np.zeros(1, dtype=np.int64)]
        for batch in batches(texts):
            shingles = ngrams(word_hashes(batch), WORDS)
            file.write(shingles.values.astype(np.uint32).tobytes())
            sizes.append(np.diff(shingles.starts))
            bands.append(band_keys(shingles, rows))
        self.file = file
        self.bands: Hashes = np.concatenate(bands)
        """One row a text, one column a band; 0 where a text is empty."""
        self.starts: NDArray[np.int64] = np.cumsum(np.concatenate(sizes))

    def shingles(self, text: int) -> NDArray[np.uint32]:
        begin, end = (int(self.starts[place]) * 4 for place in (text, text + 1))
        self.file.seek(begin)
        return np.frombuffer(self.file.read(end - begin), dtype=np.uint32)


def rows_of_band(threshold: float) -> int:
    """The most hashes a band can have, and so the fewest false candidates, at the recall wanted."""
    fit = [rows for rows in range(1, HASHES) if 1 - (1 - threshold**rows) ** (HASHES // rows) >= RECALL]
    return max(fit, default=1)


def band_keys(shingles: Rows, rows: int) -> Hashes:
    """Signatures folded band by band into one number each."""
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        shingles.values, shingles.starts.astype(np.uint64), num_perm=HASHES, seed=1
    )
    signatures = np.array(matrix.to_rows(), dtype=np.uint64)[:, : HASHES // rows * rows]
    by_band = signatures.reshape(len(shingles) * (HASHES // rows), rows)
    keys = ngrams(Rows(by_band.ravel(), np.arange(len(by_band) + 1, dtype=np.int64) * rows), rows)
    whole = keys.values.reshape(len(shingles), HASHES // rows)
    return np.where(np.diff(shingles.starts)[:, None] > 0, whole, np.uint64(0))


def candidates(bands: Hashes) -> Iterator[tuple[int, int]]:
    """(earlier, later) that share a band, ordered by later; of texts with all bands equal only the first has others."""
    whole = np.zeros(len(bands), dtype=np.uint64)
    for band in bands.T:
        whole = whole * np.uint64(0x9E3779B97F4A7C15) + band
    _, first, which = np.unique(whole, return_index=True, return_inverse=True)
    leader = first[which]
    alone = np.flatnonzero((leader == np.arange(len(bands))) & (bands[:, 0] > 0))
    copies = np.flatnonzero((leader != np.arange(len(bands))) & (bands[:, 0] > 0))
    pairs = [np.stack([copies, leader[copies]])] + [
        alone[band_pairs(bands[alone, band])] for band in range(bands.shape[1])
    ]
    count = max(len(bands), 1)
    order = np.unique(np.concatenate([later * count + earlier for later, earlier in pairs]))
    for pair in order:
        yield int(pair % count), int(pair // count)


def band_pairs(keys: Hashes) -> NDArray[np.int64]:
    """Places (later, earlier) with the same key, as two rows."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    begins = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] + np.uint64(1)))
    head = np.repeat(begins, np.diff(begins, append=len(ordered)))
    place = np.arange(len(ordered))
    crowded = place[place - head > WINDOW]
    found = [np.stack([order[crowded], order[head[crowded]]])]
    for step in range(1, WINDOW + 1):
        close = place[place - head >= step]
        if not len(close):
            break
        found.append(np.stack([order[close], order[close - step]]))
    return np.concatenate(found, axis=1)
