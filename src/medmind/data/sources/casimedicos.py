"""CasiMedicos: Spanish specialty exams with doctors' explanations, parallel in English, Spanish, French and Italian."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from medmind.data.config import DataConfig
from medmind.data.sources.exams import Question, to_row
from medmind.data.sources.files import Input, find_files, origins_of
from medmind.data.sources.published import USUAL
from medmind.data.sources.seam import Dropped, Entry, Fault, Origin, Row, Source, words
from medmind.data.sources.tables import find_columns, open_table, value_at

SPELLINGS = {
    "id": ("id",),
    "language": ("lang", "language"),
    "split": ("split",),
    "type": ("type",),
    "case": ("clinical_case",),
    "question": ("question", "full_question"),
    "options": ("options",),
    "right": ("correct_answer", "correct_option"),
    "explanation": ("explanation", "full_answer"),
}
OPTIONAL = ("language", "split", "type", "case", "explanation")
LANGUAGES = ("en", "es", "fr", "it")


def read(config: DataConfig) -> Iterator[Row | Dropped]:
    for file in find_files(config):
        table = open_table(file.path, "casimedicos")
        columns = find_columns(table, SPELLINGS, OPTIONAL)
        for entry in table.entries:
            yield question_of(entry, columns, file) if isinstance(entry, Entry) else entry


def question_of(entry: Entry, columns: Mapping[str, str], file: Input) -> Row | Dropped:
    item, case, asked, right, kind, split = (
        words(value_at(entry, columns, role)) for role in ("id", "case", "question", "right", "type", "split")
    )
    language = words(value_at(entry, columns, "language")) or language_of(file)
    options: Any = value_at(entry, columns, "options")
    name = f"casimedicos-{language}-{item}"
    if language not in LANGUAGES:
        return entry.drop(Fault.NOT_TEXT, f"the language is none of {', '.join(LANGUAGES)}", name)
    if not item or asked is None or case is None or right is None or not isinstance(options, dict):
        return entry.drop(Fault.NOT_TEXT, "id, question and right answer must be texts and the options an object", name)
    part = USUAL.get((split or file.split).lower())
    question = Question(
        "\n\n".join(filter(None, (case, asked))),
        {str(label): option for label, option in options.items() if str(option).lower() != "nan"},  # four of five
        right or None,
        name=name,
        explanation=value_at(entry, columns, "explanation"),
        group=f"casimedicos-{item}",  # the same question in four languages stays on one side of a split
        language=language,
        metadata={"category": language, "type": kind or ""},
    )
    return to_row(entry, question, part)


def language_of(file: Input) -> str:
    """From a file's name, where its rows do not say."""
    found = re.findall(r"(?<![a-z])(en|es|fr|it)(?![a-z])", file.path.name.lower())
    return str(found[0]) if found else ""


def origins(config: DataConfig) -> list[Origin]:
    return origins_of(config, "CC BY 4.0")


CREDIT = "Antidote CasiMedicos by Rodrigo Agerri et al. (arXiv:2306.06029), https://huggingface.co/datasets/HiTZ/casimedicos-exp"
CASIMEDICOS = Source("casimedicos", "casimedicos", read, origins, credit=CREDIT)
