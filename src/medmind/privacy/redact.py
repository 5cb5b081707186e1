"""Takes identifiers out of a text: by their kind, or by pseudonyms whose key is never written anywhere."""

from collections.abc import Callable, Iterable

from medmind.privacy.screen import find
from medmind.privacy.spans import Category, Span


def _replace(text: str, spans: Iterable[Span], word: Callable[[Span], str]) -> str:
    """Line breaks within an identifier stay, behind what stands for it: a text keeps its lines."""
    pieces: list[str] = []
    end = 0
    for span in spans:
        pieces += text[end : span.start], word(span), "\n" * text.count("\n", span.start, span.end)
        end = span.end
    return "".join((*pieces, text[end:]))


def redact(text: str, spans: Iterable[Span]) -> str:
    """`spans` are sorted and disjoint, as `find` gives them; each becomes its kind: [PHONE]."""
    return _replace(text, spans, lambda span: f"[{span.category.upper()}]")


def scrub(text: str) -> str:
    """What is printed or logged; a text that quotes a row goes through here."""
    return redact(text, find(text))


class Pseudonyms:
    """The same identifier gets the same stand-in ([PHONE-2]) as long as this object lives; nothing of it is stored."""

    def __init__(self) -> None:
        self._numbers: dict[Category, dict[str, int]] = {}

    def replace(self, text: str, spans: Iterable[Span]) -> str:
        return _replace(text, spans, lambda span: f"[{span.category.upper()}-{self._number(span, text)}]")

    def _number(self, span: Span, text: str) -> int:
        known = self._numbers.setdefault(span.category, {})
        return known.setdefault("".join(filter(str.isalnum, text[span.start : span.end].casefold())), len(known) + 1)
