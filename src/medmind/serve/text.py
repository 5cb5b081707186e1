"""Token ids to text while they come: never half a character, never the start of a stop text, no blank around it."""

from collections.abc import Sequence
from typing import Protocol

from medmind.core.protocols import Tokenizer

BROKEN = "\ufffd"
"""What a decoder gives for bytes that are not, or not yet, a character."""


class Reader:
    """`feed` gives the text a token adds, which may be none; `close` what bytes are left over."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._decode = tokenizer.decode
        self._ids: list[int] = []
        self._known = 0
        """How many of these have been given out; they stay because a token may look different at a text's start."""

    def feed(self, token: int) -> str:
        self._ids.append(token)
        piece = self._rest()
        if piece.endswith(BROKEN):
            return ""
        if piece:
            self._ids, self._known = self._ids[self._known :], len(self._ids) - self._known
        return piece

    def close(self) -> str:
        return self._rest()

    def _rest(self) -> str:
        return self._decode(self._ids)[len(self._decode(self._ids[: self._known])) :]


class Stage(Protocol):
    """A text passes through in pieces; `close` gives what was held back."""

    def feed(self, piece: str, /) -> str: ...

    def close(self) -> str: ...


class Stops:
    """Cuts a text before the first of these; `found` says that it did."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.found = False

    def feed(self, piece: str) -> str:
        if self.found:
            return ""
        text = self._held + piece
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        keep = max((overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def close(self) -> str:
        rest, self._held = self._held, ""
        return rest


def overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text are the start of the stop."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)


class Trim:
    """What str.strip would leave, piece by piece."""

    def __init__(self) -> None:
        self._begun = False
        self._held = ""

    def feed(self, piece: str) -> str:
        text = self._held + (piece if self._begun else piece.lstrip())
        self._begun = self._begun or bool(text)
        body = text.rstrip()
        self._held = text[len(body) :]
        return body

    def close(self) -> str:
        return ""


class Pipe:
    """Several of these one after the other; `close` of the first flows through the rest."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str], trim: bool, screen: Stage | None = None) -> None:
        self._reader, self._stops = Reader(tokenizer), Stops(stops)
        stages: list[Stage] = [self._stops]
        if trim:
            stages.append(Trim())
        if screen:
            stages.append(screen)
        self._stages = stages

    @property
    def stopped(self) -> bool:
        return self._stops.found

    def feed(self, token: int) -> str:
        return self.feed_text(self._reader.feed(token))

    def feed_text(self, text: str) -> str:
        """What an engine says that hands out no tokens."""
        return self._flow(text, 0)

    def close(self) -> str:
        text = self._flow(self._reader.close(), 0)
        for place, stage in enumerate(self._stages):
            text += self._flow(stage.close(), place + 1)
        return text

    def _flow(self, text: str, place: int) -> str:
        for stage in self._stages[place:]:
            text = stage.feed(text) if text else ""
        return text
