"""What can be said of a free text without a judge: likeness to the reference, and going round in circles."""

import re
from functools import cache

from sacrebleu.metrics.chrf import CHRF

REPEAT_WORDS = 8


@cache
def _chrf() -> CHRF:
    return CHRF()


def chrf(text: str, reference: str) -> float:
    """chrF of one reply (sacrebleu's defaults: characters to length 6, beta 2) as a fraction."""
    return float(_chrf().sentence_score(text, [reference]).score) / 100


def repeats(text: str) -> bool:
    """Whether some eight words stand twice in the same order."""
    words = re.findall(r"\w+", text.casefold())
    grams = [tuple(words[start : start + REPEAT_WORDS]) for start in range(len(words) - REPEAT_WORDS + 1)]
    return len(set(grams)) < len(grams)
