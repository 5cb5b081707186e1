"""Named things that can be looked up: a duplicate raises, an unknown name lists the known ones and the nearest."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from medmind.core.errors import UsageError

T = TypeVar("T")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' (did you mean "x"?)', or nothing when no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f' (did you mean "{near[0]}"?)' if near else ""


class Registry(Generic[T]):
    """A dictionary of one kind of thing, with errors that help."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def add(self, name: str, item: T) -> T:
        if name in self._items:
            raise ValueError(f'{self.kind} "{name}" is registered twice')
        self._items[name] = item
        return item

    def get(self, name: str) -> T:
        if name not in self._items:
            raise UsageError(
                f'unknown {self.kind} "{name}"{did_you_mean(name, self._items)}',
                todo=f"known: {', '.join(sorted(self._items))}",
            )
        return self._items[name]

    def __contains__(self, name: str) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)
