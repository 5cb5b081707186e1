"""Medical terms in four parts: the facts that ship with the package, or a file in the published schema."""

from collections.abc import Iterator

from medmind.data.config import DataConfig
from medmind.data.sources import four_part
from medmind.data.sources.facts import fact_origins, read_facts
from medmind.data.sources.seam import Dropped, Origin, Row, Source


def read(config: DataConfig) -> Iterator[Row | Dropped]:
    return four_part.read(config) if config.path else read_facts()


def origins(config: DataConfig) -> list[Origin]:
    return four_part.origins(config) if config.path else fact_origins()


TERMS = Source("terms", "terms", read, origins)
