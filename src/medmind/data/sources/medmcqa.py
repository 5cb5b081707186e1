"""MedMCQA: the original JSON lines, whose right answers (cop) count from 1, and the Hub's copy, which counts from 0.

What upstream calls dev and the Hub validation is the set everyone is tested on: the test set's answers are secret.
"""

from collections.abc import Iterator, Mapping
from itertools import chain

from medmind.data.config import DataConfig
from medmind.data.sources.exams import Question, as_number, counts_from, letter, lettered, to_row
from medmind.data.sources.files import Input, find_files, origins_of
from medmind.data.sources.published import USUAL
from medmind.data.sources.seam import Dropped, Entry, Fault, Origin, Part, Row, Source, words
from medmind.data.sources.tables import find_columns, open_table, value_at

SPELLINGS = {
    "id": ("id",),
    "question": ("question",),
    **{f"op{name}": (f"op{name}",) for name in "abcd"},
    "right": ("cop",),
    "explanation": ("exp",),
    "subject": ("subject_name",),
    "topic": ("topic_name",),
    "kind": ("choice_type",),
}
OPTIONAL = ("explanation", "subject", "topic", "kind")
PARTS: Mapping[str, Part] = {**USUAL, "dev": "test", "validation": "test", "valid": "test", "val": "test"}


def read(config: DataConfig) -> Iterator[Row | Dropped]:
    files = find_files(config)
    first = first_option(files, config)
    for file in files:
        table = open_table(file.path, "medmcqa")
        columns = find_columns(table, SPELLINGS, OPTIONAL + ("right",) * (file.split == "test"))
        for entry in table.entries:
            yield question_of(entry, columns, first, PARTS.get(file.split)) if isinstance(entry, Entry) else entry


def first_option(files: list[Input], config: DataConfig) -> int:
    """From all files together, in a first pass."""
    if config.first_option is not None:
        return config.first_option
    entries = chain.from_iterable(open_table(file.path, "medmcqa").entries for file in files)
    answers = (as_number(entry.values.get("cop")) for entry in entries if isinstance(entry, Entry))
    return counts_from({answer for answer in answers if answer is not None}, 4, config.path)


def question_of(entry: Entry, columns: Mapping[str, str], first: int, part: Part | None) -> Row | Dropped:
    name, subject, topic, kind = (words(value_at(entry, columns, role)) for role in ("id", "subject", "topic", "kind"))
    given = value_at(entry, columns, "right")
    number = as_number(given)
    if given is not None and number is None:
        return entry.drop(Fault.KEY, f"cop is no number: {given!r:.40}", name or "")
    question = Question(
        value_at(entry, columns, "question"),
        lettered([value_at(entry, columns, f"op{place}") for place in "abcd"]),
        letter(number, first),
        name=name or "",
        explanation=value_at(entry, columns, "explanation"),
        metadata={"category": subject or "", "topic": topic or "", "choice_type": kind or ""},
    )
    return to_row(entry, question, part)


def origins(config: DataConfig) -> list[Origin]:
    return origins_of(config, "MIT (its card on the Hub says Apache-2.0)")


CREDIT = "MedMCQA by Ankit Pal et al. (CHIL 2022), https://github.com/medmcqa/medmcqa"
MEDMCQA = Source("medmcqa", "medmcqa", read, origins, credit=CREDIT)
