"""Files in Alpaca's schema: instruction, input (which may be empty) and output."""

from collections.abc import Iterator, Mapping

from medmind.core.types import Example, Message
from medmind.data.config import DataConfig
from medmind.data.sources.files import find_files, origins_of
from medmind.data.sources.published import part_by_name
from medmind.data.sources.seam import Dropped, Entry, Fault, Origin, Part, Row, Source, make_id, words
from medmind.data.sources.tables import find_columns, open_table, value_at

SPELLINGS = {"instruction": ("instruction",), "input": ("input",), "output": ("output",)}


def read(config: DataConfig) -> Iterator[Row | Dropped]:
    for file, part in part_by_name(find_files(config)):
        table = open_table(file.path, config.source)
        columns = find_columns(table, SPELLINGS, optional=("input",))
        for entry in table.entries:
            yield to_row(entry, columns, config, part) if isinstance(entry, Entry) else entry


def to_row(entry: Entry, columns: Mapping[str, str], config: DataConfig, part: Part | None) -> Row | Dropped:
    instruction, given, output = (words(value_at(entry, columns, role)) for role in SPELLINGS)
    if instruction is None or given is None or output is None:
        return entry.drop(Fault.NOT_TEXT, "instruction, input and output must be texts")
    question = "\n".join(filter(None, (instruction, given)))
    example = Example(
        id=make_id(config.source, question, output),
        source=config.source,
        task=config.task,
        turns=(Message(role="user", text=question),),
        target=output,
    )
    return entry.row(example, part)


def origins(config: DataConfig) -> list[Origin]:
    return origins_of(config, "not stated")


ALPACA = Source("alpaca", "custom", read, origins)
