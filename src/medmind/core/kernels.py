"""A CPU's kernels are compiled for every shape and kept: rows of ever new lengths would fill gigabytes with them.

In training they are seldom met again, so few are kept; enough for all the shapes of one step.
"""

import os

KEPT = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "96", "LRU_CACHE_CAPACITY": "32"}


def keep_few_kernels() -> None:
    """Before torch is imported; what the user set stays."""
    for name, count in KEPT.items():
        os.environ.setdefault(name, count)
