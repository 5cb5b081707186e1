"""What a valid row is, and which of two rows that say the same stays."""

import hashlib
from collections.abc import Iterable, Sequence

from medmind.core.types import Example
from medmind.data.sources.seam import Dropped, Fault, Row, fold
from medmind.data.split import normalise_name
from medmind.prompts.tasks.terms import four_parts

DAMAGE = {"\N{REPLACEMENT CHARACTER}": "a character was lost (U+FFFD)", "\0": "a NUL character"}
STRENGTH = {"test": 0, "validation": 1, "train": 2}
"""Of two rows that clash the one in the part with the lower number stays."""


def check_row(row: Row) -> Dropped | None:
    """The first fault of a row taken alone."""
    example = row.example
    if example.task != "text" and not any(turn.text.strip() for turn in example.turns):
        return row.drop(Fault.NO_QUESTION, "the question is empty")
    if not example.target.strip():
        return row.drop(Fault.NO_ANSWER, "the answer is empty")
    texts = (*(turn.text for turn in example.turns), *(passage.text for passage in example.passages), example.target)
    for text in (*texts, example.reasoning):
        for sign, what in DAMAGE.items():
            if sign in text:
                place = text.index(sign)
                return row.drop(Fault.ENCODING, f"{what} in {text[max(0, place - 20) : place + 20]!r}")
    reason = form_fault(example)
    return row.drop(Fault.FORM, reason) if reason else None


def form_fault(example: Example) -> str:
    """Why the reply is not one its task could read back, or nothing."""
    if example.task == "terms":
        parts = four_parts(example.target)
        return parts if isinstance(parts, str) else ""
    if example.task == "choice" and example.target not in example.options:
        return f'"{example.target}" is none of {", ".join(example.options)}'
    return ""


def question_key(example: Example) -> str:
    """Equal for questions that differ in case, blanks or punctuation only; what is asked about is part of them."""
    asked = " ".join(turn.text for turn in example.turns)
    return _digest([normalise_name(asked), *(fold(passage.text) for passage in example.passages)])


def pair_key(example: Example) -> str:
    return _digest([question_key(example) if example.turns else "", fold(example.target).casefold()])


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def drop_repeats(rows: Sequence[Row]) -> tuple[list[Row], list[Dropped]]:
    """Every question with the same answer once, every id once; test rows are kept before all others."""
    pairs: dict[str, Row] = {}
    ids: dict[str, Row] = {}
    kept: list[int] = []
    dropped: list[Dropped] = []
    for index in sorted(range(len(rows)), key=lambda index: (STRENGTH[rows[index].part or "train"], index)):
        row = rows[index]
        first = pairs.setdefault(pair_key(row.example), row)
        if first is not row:
            dropped.append(row.drop(Fault.DUPLICATE, f"same question and answer as {_place(first, row)}"))
            continue
        other = ids.setdefault(row.example.id, row)
        if other is not row:
            dropped.append(row.drop(Fault.SAME_ID, f"id of {_place(other, row)}"))
            continue
        kept.append(index)
    return [rows[index] for index in sorted(kept)], dropped


def _place(first: Row, row: Row) -> str:
    return f"row {first.number}" + ("" if first.file == row.file else f" of {first.file}")


def drop_leaks(rows: Iterable[Row], held_out: Iterable[Row], fault: Fault) -> tuple[list[Row], list[Dropped]]:
    """Takes out of `rows` every one whose question is also asked in the held-out rows."""
    asked = {question_key(row.example): row for row in held_out if row.example.turns}
    kept: list[Row] = []
    dropped: list[Dropped] = []
    for row in rows:
        other = asked.get(question_key(row.example)) if row.example.turns else None
        if other:
            dropped.append(row.drop(fault, f"asked in {_place(other, row)}"))
        else:
            kept.append(row)
    return kept, dropped
