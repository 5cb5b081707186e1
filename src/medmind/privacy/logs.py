"""Nothing a program says about its work may quote an identifier: stderr and every log record pass the screen."""

import logging
import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast

from medmind.privacy.redact import redact, scrub
from medmind.privacy.screen import find
from medmind.privacy.spans import Span

LEAD = 80
"""Characters of an unfinished line that are kept as context for what is written next."""


class Screened:
    """A text stream whose writes are screened; all else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lead = ""

    def write(self, text: str) -> int:
        size = len(self._lead)
        spans = [
            Span(max(span.start - size, 0), span.end - size, span.category)
            for span in find(self._lead + text)
            if span.end > size
        ]
        self._lead = (self._lead + text).rpartition("\n")[2][-LEAD:]
        self._stream.write(redact(text, spans))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class ScreenedRecord(logging.LogRecord):
    """A log record that never held what it must not say."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        try:
            self.msg, self.args = scrub(self.getMessage()), None
        except (TypeError, ValueError):
            self.msg, self.args = "a message that does not fit its arguments", None
        if self.exc_info:
            self.exc_text = scrub(logging.Formatter().formatException(self.exc_info))


def install() -> None:
    """Once in a process; calling it again changes nothing."""
    logging.setLogRecordFactory(ScreenedRecord)
    if sys.stderr is not None and not isinstance(sys.stderr, Screened):
        sys.stderr = cast(TextIO, Screened(sys.stderr))
