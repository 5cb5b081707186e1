"""Exposure: by how many bits a model narrows the search for a secret (Carlini et al. 2019), and when that is chance.

The secret and its candidates are drawn alike, so a model that never read it ranks it uniformly: rank / among is a
p-value, and the exposures of several secrets add up to Fisher's statistic (1932). Its null mean is 1.44 bits, not 0.
"""

from collections.abc import Sequence
from math import exp, lgamma, log, log2

NULL_BITS = 1 / log(2)
"""The mean exposure of secrets a model never read; the median is 1 bit."""
HALVINGS = 60


def exposure(rank: int, among: int) -> float:
    """log2 of the candidate space minus log2 of the rank in it, estimated from a sample: at most log2 `among`."""
    return log2(among / rank)


def chance(bits: Sequence[float]) -> float:
    """The p-value of exposures so high in all: secrets a model never read reach it at most so often."""
    return tail(log(2) * sum(bits), len(bits))


def tail(total: float, n: int) -> float:
    """That n exponential variables of mean 1 sum to `total` or more: the Poisson sum of their Gamma law."""
    if total <= 0:
        return 1.0
    return min(1.0, sum(exp(k * log(total) - total - lgamma(k + 1)) for k in range(n)))


def power(n: int, rise: float, level: float) -> float:
    """The chance that n secrets show, by `chance` below `level`, a mean that is `rise` bits above the null's."""
    return tail(quantile(n, level) / (1 + rise / NULL_BITS), n)


def smallest_rise(n: int, level: float) -> float:
    """The rise in bits that n secrets show with 80 % power."""
    return (quantile(n, level) / quantile(n, 0.8) - 1) * NULL_BITS


def quantile(n: int, share: float) -> float:
    """The total that n such variables reach with this chance, by halving."""
    low, high = 0.0, 10.0 * (n + 10)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle, n) > share else (low, middle)
    return high
