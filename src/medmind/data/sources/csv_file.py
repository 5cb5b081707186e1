"""data.source csv: a comma-separated table with a header."""

from collections.abc import Iterator

from medmind.data.config import DataConfig
from medmind.data.sources.columns import origins, read_mapped
from medmind.data.sources.seam import Dropped, Row, Source
from medmind.data.sources.tables import read_csv


def read(config: DataConfig) -> Iterator[Row | Dropped]:
    return read_mapped(config, read_csv)


CSV = Source("csv", "custom", read, origins)
