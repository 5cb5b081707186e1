"""MedQA (USMLE), with four or five options: the original JSON lines and copies with the options as a list."""

from collections.abc import Iterator, Mapping
from typing import Any

from medmind.data.config import DataConfig
from medmind.data.sources.exams import Question, to_row
from medmind.data.sources.files import find_files, origins_of
from medmind.data.sources.published import USUAL
from medmind.data.sources.seam import Dropped, Entry, Fault, Origin, Part, Row, Source, words
from medmind.data.sources.tables import find_columns, open_table, value_at

SPELLINGS = {
    "question": ("question",),
    "options": ("options",),
    "label": ("answer_idx",),
    "answer": ("answer",),
    "step": ("meta_info",),
}


def read(config: DataConfig) -> Iterator[Row | Dropped]:
    for file in find_files(config):
        table = open_table(file.path, "medqa")
        columns = find_columns(table, SPELLINGS, optional=("label", "step"))
        for entry in table.entries:
            yield question_of(entry, columns, USUAL.get(file.split)) if isinstance(entry, Entry) else entry


def question_of(entry: Entry, columns: Mapping[str, str], part: Part | None) -> Row | Dropped:
    options = options_of(value_at(entry, columns, "options"))
    if options is None:
        return entry.drop(Fault.NOT_TEXT, "options must be an object, or a list of key and value")
    label, answer = (words(value_at(entry, columns, role)) for role in ("label", "answer"))
    if not label:  # the first release gives the right answer's text alone
        holders = [name for name, option in options.items() if words(option) == answer]
        label = holders[0] if answer and len(holders) == 1 else None
    elif answer and words(options.get(label)) not in (answer, None):
        return entry.drop(Fault.KEY, f'answer_idx is "{label}", whose text is not the answer\'s')
    step = words(value_at(entry, columns, "step")) or ""
    return to_row(
        entry,
        Question(value_at(entry, columns, "question"), options, label, metadata={"category": step}),
        part,
    )


def options_of(value: Any) -> dict[str, Any] | None:
    """Label → text; a copy with a fixed shape fills up with null."""
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        value = {str(one.get("key")): one.get("value") for one in value}
    if not isinstance(value, dict):
        return None
    return {str(label): option for label, option in value.items() if option is not None}


def origins(config: DataConfig) -> list[Origin]:
    return origins_of(config, "MIT")


CREDIT = "MedQA by Di Jin et al. (arXiv:2009.13081), https://github.com/jind11/MedQA"
MEDQA = Source("medqa", "medqa", read, origins, credit=CREDIT)
