"""How the passes are compiled: for whole threads, without the interpreter, and kept for the next process."""

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from numba import njit


def jit(function: Any) -> Any:
    """Kept beside its file, or in the user's own cache; compiled anew each time where neither can be written."""
    build = partial(njit, nogil=True, fastmath={"contract", "reassoc", "nsz", "arcp"}, error_model="numpy")
    try:
        made: Any = build(cache=True)(function)
    except RuntimeError:
        return build()(function)
    file = made._cache._cache_file
    file._source_stamp = (file._source_stamp, *stamps())
    made._cache = Spared(made._cache)
    return made


def stamps() -> list[tuple[float, int]]:
    """Of the files whose functions become part of those compiled in others: numba looks at these alone."""
    found = (Path(__file__).with_name(name).stat() for name in ("jit.py", "registers.py"))
    return [(each.st_mtime, each.st_size) for each in found]


# Part of the pass that calls it. As a function of its own it would lie in one process twice, compiled alone and with a
# pass, a last digit apart; which of them ran would depend on what came from the cache.
inlined = njit(inline="always")


class Spared:
    """A cache for compiled passes whose disk may be full: then nothing is kept, and nothing is lost."""

    def __init__(self, cache: Any) -> None:
        self.cache = cache

    def __getattr__(self, name: str) -> Any:
        if name == "cache":  # a copy that is not made yet
            raise AttributeError(name)
        return getattr(self.cache, name)

    def save_overload(self, signature: Any, made: Any) -> None:
        with suppress(OSError):
            self.cache.save_overload(signature, made)
