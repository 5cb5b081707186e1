"""Plain passages, for pre-training of one's own or to see what a training made a model forget: `text` and a title."""

from collections.abc import Iterator, Mapping

from medmind.core.types import Example
from medmind.data.config import DataConfig
from medmind.data.sources.files import find_files, origins_of
from medmind.data.sources.published import part_by_name
from medmind.data.sources.seam import Dropped, Entry, Fault, Origin, Part, Row, Source, make_id, words
from medmind.data.sources.tables import find_columns, open_table, value_at

SPELLINGS = {"text": ("text", "content", "passage"), "title": ("title", "name")}


def read(config: DataConfig) -> Iterator[Row | Dropped]:
    for file, part in part_by_name(find_files(config)):
        table = open_table(file.path, "prose")
        columns = find_columns(table, SPELLINGS, optional=("title",))
        for entry in table.entries:
            yield to_row(entry, columns, part) if isinstance(entry, Entry) else entry


def to_row(entry: Entry, columns: Mapping[str, str], part: Part | None) -> Row | Dropped:
    """Passages of one title stay on one side of a split."""
    text, title = (words(value_at(entry, columns, role)) for role in ("text", "title"))
    if text is None or title is None:
        return entry.drop(Fault.NOT_TEXT, "text and title must be texts")
    name = make_id("prose", title, text)
    return entry.row(Example(id=name, source="prose", task="text", target=text, group=title), part)


def origins(config: DataConfig) -> list[Origin]:
    return origins_of(config, "not stated")


PROSE = Source("prose", "prose", read, origins)
