"""What nano is pre-trained on: MedQuAD's pre-training groups and openly licensed prose, as plain passages.

Held out, and read by no training: passages of MedQuAD's test groups, and three trial reports in a thousand.
"""

import csv
import gzip
import hashlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import zstandard

from medmind.core.errors import DataError
from medmind.core.types import Example
from medmind.data.split import PRETRAIN, TEST, medquad_part

SHARES = {
    "prose_medical/openstax_medical": 0.7,
    "prose_medical/openstax_biology": 0.3,
    "prose_medical/pmc_structured_abstracts": 0.6,
    "prose_medical/pmc_ccby_trials": 0.06,
    "prose_general/openstax_general": 0.04,
    "prose_general/african_storybook_en": 1.0,
}
"""How much of each file is read, whole documents, so that MedQuAD is about three tenths of the mixture."""
HELD_OUT_REPORTS = 0.003
HELD_OUT_ROWS = 150
"""Of each kind: enough for a curve, quick enough to be measured often."""


def place(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 1_000_000 / 1_000_000


def passage(source: str, name: str, text: str, group: str) -> Example:
    digest = hashlib.sha256(f"{name}\n{text}".encode()).hexdigest()[:12]
    return Example(id=f"{source}-{digest}", source=source, task="text", target=text, group=group)


def read_medquad(folder: Path) -> Iterator[tuple[Example, str]]:
    """(passage, part) of the pre-training groups, and of some test groups as held-out text."""
    csv.field_size_limit(sys.maxsize)
    held_out = 0
    with gzip.open(folder / "medquad" / "medquad_kaggle_form.csv.gz", "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            part = medquad_part(row["focus_area"])
            question, answer = " ".join(row["question"].split()).replace(" ?", "?"), " ".join(row["answer"].split())
            example = passage("medquad", row["focus_area"], f"{question}\n{answer}", row["focus_area"])
            if part == PRETRAIN:
                yield example, "train"
            elif part == TEST and held_out < HELD_OUT_ROWS and place(example.id) < 0.2:
                held_out += 1
                yield example, "validation"


def read_prose(folder: Path, name: str, share: float) -> Iterator[tuple[Example, str]]:
    """Whole documents of one file of prose; those held out are chosen by their title alone."""
    held_out = 0
    with open(folder / f"{name}.jsonl.zst", "rb") as raw:
        stream = zstandard.ZstdDecompressor().stream_reader(raw)
        for line in io.TextIOWrapper(stream, encoding="utf-8", newline="\n"):
            row = json.loads(line)
            title = str(row["title"])
            text = row.get("text") or "\n".join(f"{part['label']}: {part['text']}" for part in row["sections"])
            example = passage(name.rpartition("/")[2], title, f"{title.rpartition(' > ')[2]}\n{text}", title)
            if name.endswith("trials") and place(title) < HELD_OUT_REPORTS:
                held_out += 1
                if held_out <= HELD_OUT_ROWS:
                    yield example, "validation"
            elif place(f"share {title}") < share:
                yield example, "train"


def read(path: str) -> Iterator[tuple[Example, str]]:
    """All passages with their part; `path` is the folder of real data (its README says what lies there)."""
    folder = Path(path)
    if not (folder / "medquad").is_dir():
        raise DataError("not the folder of pre-training data", where=str(folder), todo="set data.path to it")
    yield from read_medquad(folder)
    for name, share in SHARES.items():
        yield from read_prose(folder, name, share)
