"""MMLU's medical subjects: the original files, without header and with letters, and copies with named columns.

Copies give the right answer as a letter or as a number, the options in four columns or in one list; each is told by
the file. Byte-order marks inside a text are taken out.
"""

import ast
import json
from collections.abc import Iterator, Mapping
from typing import Any

from medmind.core.errors import DataError
from medmind.data.config import DataConfig
from medmind.data.kinds import SUBJECTS
from medmind.data.sources.csv_table import CsvRecords
from medmind.data.sources.exams import Question, as_number, counts_from, letter, lettered, to_row
from medmind.data.sources.files import Input, find_files, first_bytes, origins_of
from medmind.data.sources.json_table import is_writable
from medmind.data.sources.published import USUAL
from medmind.data.sources.seam import Dropped, Entry, Fault, Origin, Part, Row, Source, make_id, words
from medmind.data.sources.tables import Table, find_columns, open_table, some, value_at

LABELS = ("A", "B", "C", "D")
HEADERLESS = ["question", *LABELS, "answer"]
SPELLINGS = {
    "question": ("question", "input", "prompt"),
    "choices": ("choices", "options"),
    **{label: (label,) for label in LABELS},
    "answer": ("answer", "target"),
    "subject": ("subject",),
}
PARTS: Mapping[str, Part] = {**USUAL, "dev": "train"}
"""dev holds the five examples each subject is asked after."""


def read(config: DataConfig) -> Iterator[Row | Dropped]:
    files = find_files(config)
    first = first_option(files, config)
    for file in files:
        table = open_mmlu(file)
        columns = columns_of(table)
        for entry in table.entries:
            yield question_of(entry, columns, first, file) if isinstance(entry, Entry) else entry


def open_mmlu(file: Input) -> Table:
    """A first record of six cells whose last is a letter is a question already, not a header."""
    if first_bytes(file.path)[:4] == b"PAR1" or first_bytes(file.path)[:1] in (b"[", b"{"):
        return open_table(file.path, "mmlu_medical")
    records = CsvRecords(file.path, "mmlu_medical")
    cells = records.header()
    if len(cells) != len(HEADERLESS) or cells[-1] not in LABELS:
        return open_table(file.path, "mmlu_medical")
    records = CsvRecords(file.path, "mmlu_medical")
    return Table(file.path, HEADERLESS, some(records.entries(HEADERLESS), file.path, "no rows"))


def columns_of(table: Table) -> dict[str, str]:
    """Where things are; the options stand in one list or in four columns."""
    listed = any(name.casefold() in SPELLINGS["choices"] for name in table.columns)
    absent = LABELS if listed else ("choices",)
    return find_columns(table, {role: names for role, names in SPELLINGS.items() if role not in absent}, ("subject",))


def first_option(files: list[Input], config: DataConfig) -> int:
    """What the first option is called where answers are numbers; any number does where all are letters."""
    if config.first_option is not None:
        return config.first_option
    answers: set[int] = set()
    for file in files:
        table = open_mmlu(file)
        columns = columns_of(table)
        found = (as_number(value_at(entry, columns, "answer")) for entry in table.entries if isinstance(entry, Entry))
        answers.update(number for number in found if number is not None)
    return counts_from(answers, 4, config.path) if answers else 0


def question_of(entry: Entry, columns: Mapping[str, str], first: int, file: Input) -> Row | Dropped:
    subject = words(value_at(entry, columns, "subject")) or subject_of(file)
    options = options_of(entry, columns)
    given = value_at(entry, columns, "answer")
    number = as_number(given)
    right = letter(number, first) if number is not None else (words(given) or None)
    if options is None:
        return entry.drop(Fault.NOT_TEXT, "the choices are no list of texts")
    texts = [value_at(entry, columns, "question"), *options]
    marked = any(isinstance(text, str) and "\ufeff" in text for text in texts)
    asked, *options = [tidy(text) for text in texts]
    metadata = {"category": subject} | ({"repaired": "byte-order mark inside the text"} if marked else {})
    name = make_id("mmlu_medical", subject, *map(str, (asked, *options)))  # 78 questions stand in two subjects
    question = Question(asked, lettered(options), right, name=name, metadata=metadata)
    return to_row(entry, question, PARTS.get(file.split))


def subject_of(file: Input) -> str:
    """From the file's name or its folders'; a file of another subject is not for this source."""
    for part in reversed(file.path.parts):
        found = [subject for subject in SUBJECTS if subject in part.lower()]
        if found:
            return found[0]
    todo = f"name files after their subject, or give a column: {', '.join(SUBJECTS)}"
    raise DataError("none of the six medical subjects", where=str(file.path), todo=todo)


def options_of(entry: Entry, columns: Mapping[str, str]) -> list[Any] | None:
    """The options in order; a CSV may hold their list as JSON or as Python writes it."""
    if "choices" not in columns:
        return [value_at(entry, columns, label) for label in LABELS]
    value = value_at(entry, columns, "choices")
    if isinstance(value, str):
        for reader in (json.loads, ast.literal_eval):
            try:
                value = reader(value)
                break
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
    return value if isinstance(value, list) and is_writable(value) else None


def tidy(text: Any) -> Any:
    """Without byte-order marks, lines ended by a newline alone."""
    return text.replace("\ufeff", "").replace("\r\n", "\n") if isinstance(text, str) else text


def origins(config: DataConfig) -> list[Origin]:
    return origins_of(config, "MIT")


CREDIT = "MMLU by Dan Hendrycks et al. (ICLR 2021), https://github.com/hendrycks/test"
MMLU_MEDICAL = Source("mmlu_medical", "mmlu_medical", read, origins, credit=CREDIT)
