"""The sources by name."""

from collections.abc import Iterator
from pathlib import Path

from medmind.core.jsonl import read_json
from medmind.core.registry import Registry
from medmind.data.config import DataConfig
from medmind.data.sources import nano_corpus
from medmind.data.sources.csv_file import CSV
from medmind.data.sources.four_part import FOUR_PART
from medmind.data.sources.jsonl_file import JSONL
from medmind.data.sources.medquad import MEDQUAD
from medmind.data.sources.pubmedqa import PUBMEDQA
from medmind.data.sources.seam import Origin, Row, Source
from medmind.data.sources.terms import TERMS


def _read_nano_corpus(config: DataConfig) -> Iterator[Row]:
    for number, (example, part) in enumerate(nano_corpus.read(config.path), start=1):
        yield Row(number, config.path, example.target, example, "validation" if part == "validation" else "train")


def _nano_corpus_origins(config: DataConfig) -> list[Origin]:
    """The licence of each file stands in the folder's own MANIFEST.json."""
    folder = Path(config.path)
    manifest = folder / "MANIFEST.json"
    licences = {row["file"]: row["licence"] for row in read_json(manifest)} if manifest.exists() else {}
    names = ["medquad/medquad_kaggle_form.csv.gz", *(f"{name}.jsonl.zst" for name in nano_corpus.SHARES)]
    return [Origin(folder / name, licences.get(name, "not stated")) for name in names]


SOURCES: Registry[Source] = Registry("data.source")
for source in (
    TERMS,
    FOUR_PART,
    MEDQUAD,
    PUBMEDQA,
    JSONL,
    CSV,
    Source("nano_corpus", "", _read_nano_corpus, _nano_corpus_origins),
):
    SOURCES.add(source.name, source)
