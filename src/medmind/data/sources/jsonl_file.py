"""data.source jsonl: one object a line."""

from collections.abc import Iterator

from medmind.data.config import DataConfig
from medmind.data.sources.columns import origins, read_mapped
from medmind.data.sources.seam import Dropped, Row, Source
from medmind.data.sources.tables import read_jsonl


def read(config: DataConfig) -> Iterator[Row | Dropped]:
    return read_mapped(config, read_jsonl)


JSONL = Source("jsonl", "custom", read, origins)
