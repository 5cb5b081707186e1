"""The published four-part set (instruction, input, output, category, safety_note): all of it to train on.

The test rows are the packaged terms' own, and no training row may ask for one of them.
"""

from collections.abc import Iterator

from medmind.core.types import Example, Message
from medmind.data.config import DataConfig
from medmind.data.sources.facts import asked_term, fact_origins, read_facts
from medmind.data.sources.files import find_files, origins_of
from medmind.data.sources.seam import Dropped, Entry, Fault, Origin, Row, Source, make_id, words
from medmind.data.sources.tables import open_table, require
from medmind.data.split import normalise_name

COLUMNS = ("instruction", "input", "output", "category", "term")
"""What is read of a row; `term`, which `medmind data generate` writes, is told by the question where it is absent."""


def read(config: DataConfig) -> Iterator[Row | Dropped]:
    test = [row for row in read_facts() if row.part == "test"]
    terms = {normalise_name(row.example.metadata["term"]) for row in test}
    for file in find_files(config):
        table = open_table(file.path, "four_part")
        require(table, {"question": "instruction", "answer": "output"})
        for entry in table.entries:
            yield to_row(entry, terms) if isinstance(entry, Entry) else entry
    yield from test


def to_row(entry: Entry, test_terms: set[str]) -> Row | Dropped:
    said = {name: words(entry.values.get(name)) for name in COLUMNS}
    odd = [name for name, text in said.items() if text is None]
    if odd:
        return entry.drop(Fault.NOT_TEXT, f'"{odd[0]}" is neither a text nor a number')
    text = {name: value or "" for name, value in said.items()}
    question = "\n".join(filter(None, (text["instruction"], text["input"])))
    asked = asked_term(question)
    term = text["term"] or asked
    example = Example(
        id=make_id("four_part", question, text["output"]),
        source="four_part",
        task="terms",
        turns=(Message(role="user", text=question),),
        target=text["output"],
        group=term,
        metadata={"category": text["category"], "term": term},
    )
    row = entry.row(example, "train")
    if {normalise_name(asked), normalise_name(term)} & test_terms:
        return row.drop(Fault.TEST_TERM, f'"{term}" is asked in the test rows')
    return row


def origins(config: DataConfig) -> list[Origin]:
    return [*origins_of(config, "not stated"), *fact_origins()]


FOUR_PART = Source("four_part", "terms", read, origins)
