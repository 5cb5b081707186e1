"""The sources by name."""

from collections.abc import Iterator
from pathlib import Path

from medmind.core.jsonl import read_json
from medmind.core.registry import Registry
from medmind.data.config import DataConfig
from medmind.data.sources import nano_corpus
from medmind.data.sources.alpaca import ALPACA
from medmind.data.sources.casimedicos import CASIMEDICOS
from medmind.data.sources.columns import MAPPED
from medmind.data.sources.conversations import CONVERSATIONS
from medmind.data.sources.four_part import FOUR_PART
from medmind.data.sources.medmcqa import MEDMCQA
from medmind.data.sources.medqa import MEDQA
from medmind.data.sources.medquad import MEDQUAD
from medmind.data.sources.mmlu import MMLU_MEDICAL
from medmind.data.sources.prose import PROSE
from medmind.data.sources.pubmedqa import PUBMEDQA
from medmind.data.sources.reasoning import MEDICAL_O1
from medmind.data.sources.seam import Origin, Row, Source
from medmind.data.sources.synthetic_qa import SYNTHETIC_QA
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
    return [Origin(folder / name, licences.get(name, config.licence or "not stated")) for name in names]


SOURCES: Registry[Source] = Registry("data.source")
for source in (
    TERMS,
    FOUR_PART,
    MEDQUAD,
    PUBMEDQA,
    MEDICAL_O1,
    SYNTHETIC_QA,
    MEDQA,
    MEDMCQA,
    MMLU_MEDICAL,
    CASIMEDICOS,
    PROSE,
    *MAPPED,
    ALPACA,
    *CONVERSATIONS,
    Source("nano_corpus", "", _read_nano_corpus, _nano_corpus_origins),
):
    SOURCES.add(source.name, source)
