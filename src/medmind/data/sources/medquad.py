"""MedQuAD in Kaggle's form (question, answer, source, focus_area), cut once by the focus alone."""

from collections.abc import Iterator
from pathlib import Path

from medmind.core.types import Example, Message
from medmind.data.config import DataConfig
from medmind.data.sources.columns import make_id
from medmind.data.sources.seam import Dropped, Fault, Origin, Row, Source, fold, input_file
from medmind.data.sources.tables import Entry, read_csv, require
from medmind.data.split import medquad_part

COLUMNS = ("question", "answer", "source", "focus_area")


def read(config: DataConfig) -> Iterator[Row | Dropped]:
    path = input_file(config)
    table = read_csv(path, "medquad")
    require(table, {name: name for name in COLUMNS})
    for entry in table.entries:
        yield to_row(entry, path) if isinstance(entry, Entry) else entry


def to_row(entry: Entry, path: Path) -> Row | Dropped:
    question, answer, collection, focus = (fold(entry.values[name]) for name in COLUMNS)
    question = question.replace(" ?", "?")
    example = Example(
        id=make_id("medquad", question, answer),
        source="medquad",
        task="qa",
        turns=(Message(role="user", text=question),),
        target=answer,
        group=focus,
        metadata={"category": collection},
    )
    row = Row(entry.number, str(path), entry.values, example, medquad_part(focus))
    return row if focus else row.drop(Fault.NO_GROUP, "no focus_area, which decides its part")


def origins(config: DataConfig) -> list[Origin]:
    return [Origin(input_file(config), "CC BY 4.0")]


MEDQUAD = Source("medquad", "medquad", read, origins)
