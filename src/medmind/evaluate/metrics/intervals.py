"""A figure never stands alone: every metric is made here, with its 95 % interval and its n."""

from collections.abc import Callable, Sequence
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from medmind.core.types import Metric

Z = NormalDist().inv_cdf(0.975)
RESAMPLES = 2000
BLOCK = 1_000_000
"""Draws held in memory at once."""

Numbers = NDArray[np.float64]


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927)."""
    if n == 0:
        raise ValueError("an interval needs at least one item")
    share, spread = successes / n, Z * Z / n
    middle = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * sqrt(share * (1 - share) / n + spread / (4 * n))
    low = 0.0 if successes == 0 else middle - half
    high = 1.0 if successes == n else middle + half
    return low, high


def share(flags: Sequence[bool]) -> Metric:
    low, high = wilson(sum(flags), len(flags))
    return Metric(value=sum(flags) / len(flags), low=low, high=high, n=len(flags))


def mean(values: Sequence[float], seed: int) -> Metric:
    return ratio(values, [1.0] * len(values), seed)


def ratio(above: Sequence[float], below: Sequence[float], seed: int) -> Metric:
    """Sum over sum, for instance nats per token; the interval resamples items."""
    low, high = percentiles(resampled_ratios(above, below, seed))
    return Metric(value=sum(above) / sum(below), low=low, high=high, n=len(above))


def counted(cells: Numbers, statistic: Callable[[Numbers], Numbers], seed: int) -> Metric:
    """A figure that depends on counts alone; `statistic` maps (…, *cells.shape) to (…)."""
    n = int(cells.sum())
    draws = np.random.default_rng(seed).multinomial(n, (cells / n).ravel(), size=RESAMPLES)
    low, high = percentiles(statistic(draws.reshape(RESAMPLES, *cells.shape).astype(float)))
    return Metric(value=float(statistic(cells)), low=low, high=high, n=n)


def resampled_ratios(above: Sequence[float], below: Sequence[float], seed: int) -> Numbers:
    """The ratio in each of RESAMPLES draws of as many items, with replacement."""
    upper, lower = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    draw = np.random.default_rng(seed)
    at_once = max(1, BLOCK // len(upper))
    found = []
    for start in range(0, RESAMPLES, at_once):
        chosen = draw.integers(len(upper), size=(min(at_once, RESAMPLES - start), len(upper)))
        found.append(upper[chosen].sum(1) / lower[chosen].sum(1))
    return np.concatenate(found)


def percentiles(values: Numbers) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
