"""JSON lines, a JSON array of rows, or one object of rows by name: told apart by their content, read piecewise."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from medmind.core.errors import DataError
from medmind.data.sources.files import LONGEST, first_bytes, read_lines, read_pieces
from medmind.data.sources.seam import Dropped, Entry, Fault

DECODER = json.JSONDecoder()
DEEPEST = 100
"""Levels of nesting that any reader downstream bears."""
LOOKED_AT = 100
"""Lines among which one whole object proves JSON lines."""


def shape_of(path: Path) -> Literal["array", "lines", "object"]:
    if first_bytes(path).startswith(b"["):
        return "array"
    lines = (text.strip() for _, text in islice(read_lines(path), LOOKED_AT))
    shown = [text for text in lines if text]
    if not shown or not shown[0].startswith("{") or any(parse(text)[0] is not None for text in shown):
        return "lines"
    return "object"


def read_json_lines(path: Path, source: str) -> Iterator[Entry | Dropped]:
    """One object a line; a line that is not one is a dropped row."""
    for number, line in read_lines(path):
        text = line.rstrip("\r\n")
        if text.strip():
            values, reason = parse(text)
            yield entry_or_drop(values, reason, text, number, path, source)


def read_array(path: Path, source: str) -> Iterator[Entry | Dropped]:
    """The objects of an array. After a fault in its grammar nothing can be trusted: that is an error."""
    stream = _Stream(path)
    stream.take("[")
    while not stream.done("]"):
        value, text = stream.value()
        reason = fault_of(value, text)
        yield entry_or_drop(None if reason else value, reason, text, stream.number, path, source)


def read_object(path: Path, source: str, key: str) -> Iterator[Entry | Dropped]:
    """The objects an object holds by name; the name is given as their field `key`."""
    stream = _Stream(path)
    stream.take("{")
    while not stream.done("}"):
        name, _ = stream.value()
        stream.take(":")
        value, text = stream.value()
        reason = fault_of(value, text)
        values = None if reason else {key: name} | value
        yield entry_or_drop(values, reason, text, stream.number, path, source)


def entry_or_drop(
    values: dict[str, Any] | None, reason: str, text: str, number: int, path: Path, source: str
) -> Entry | Dropped:
    if values is not None:
        return Entry(number, values, str(path), source)
    fault = Fault.ENCODING if "surrogate" in reason else Fault.NOT_JSON
    return Dropped(row=number, source=source, file=str(path), fault=fault, reason=reason, raw=text)


def parse(line: str) -> tuple[dict[str, Any] | None, str]:
    """The object of a line, or why it is none."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        return None, f"not JSON: {error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:
        return None, f"not readable as JSON: {error}"
    reason = fault_of(value, line)
    return (None, reason) if reason else (value, "")


def fault_of(value: Any, text: str) -> str:
    """Why a value cannot be a row, or nothing."""
    if not isinstance(value, dict):
        return "not a JSON object"
    if text.count("[") + text.count("{") > DEEPEST and depth(value) > DEEPEST:
        return f"nested more than {DEEPEST} levels deep"
    return "half a character (a lone surrogate)" if "\\u" in text and not is_writable(value) else ""


def is_writable(value: Any) -> bool:
    """False where a text holds half a character, which no file can."""
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return False
    return True


def depth(value: Any) -> int:
    """Levels of nesting, found without recursion."""
    level, deepest = [value], 0
    while level:
        deepest += 1
        inner = [child for one in level for child in (one.values() if isinstance(one, dict) else one)]
        level = [child for child in inner if isinstance(child, dict | list)]
    return deepest


class _Stream:
    """The values of a JSON text that is read piece by piece."""

    def __init__(self, path: Path) -> None:
        self._path, self._pieces = path, read_pieces(path)
        self._text, self._at = "", 0
        self.number = 0

    def _more(self) -> bool:
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self._text, self._at = self._text[self._at :] + piece, 0
        return True

    def _next(self) -> str:
        """The next character that is no blank, not taken; nothing at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n":
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def take(self, sign: str) -> None:
        found = self._next()
        if found != sign:
            raise self._broken(f'"{sign}" expected, "{found}" found' if found else "the file ends too early")
        self._at += 1

    def done(self, closing: str) -> bool:
        """True after the closing bracket, which must end the file; else the next row begins, after a comma."""
        found = self._next()
        if found == closing:
            self._at += 1
            if self._next():
                raise self._broken(f'more text after the closing "{closing}"')
            return True
        self.number += 1
        if self.number > 1:
            self.take(",")
        return False

    def value(self) -> tuple[Any, str]:
        """The next value and its text."""
        self._next()
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if not self._may_be_cut(error) or not self._more():
                    raise self._broken(error.msg) from None
                continue
            except (ValueError, RecursionError) as error:
                raise self._broken(str(error)) from None
            if end == len(self._text) and self._more():
                continue
            text, self._at = self._text[self._at : end], end
            return value, text

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether more text could heal the fault; a record beyond all bounds is not waited for."""
        at_end = error.pos >= len(self._text) - 16 or "Unterminated string" in error.msg
        return at_end and len(self._text) - self._at < LONGEST

    def _broken(self, what: str) -> DataError:
        where = f"{self._path}, row {max(self.number, 1)}"
        return DataError(f"not JSON: {what}", where=where, todo="repair the file, or fetch it again")
