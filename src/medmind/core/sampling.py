"""A sample is always seeded and never a prefix: files sorted by label make prefixes lie."""

import random


def sample(count: int, size: int | None, seed: int) -> list[int]:
    """Indices of a seeded sample in their old order; all of them when size is None or not smaller."""
    if size is None or size >= count:
        return list(range(count))
    return sorted(random.Random(seed).sample(range(count), size))
