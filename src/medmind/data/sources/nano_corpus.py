"""What nano is pre-trained on: MedQuAD's pre-training groups and openly licensed prose, as plain passages.

Held out, and read by no training: passages of MedQuAD's test groups, and whatever bears the title of one of five
trial reports in a thousand.
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
    "prose_medical/openstax_medical": 0.99,
    "prose_medical/openstax_biology": 0.99,
    "prose_medical/pmc_structured_abstracts": 0.99,
    "prose_medical/pmc_ccby_trials": 0.25,
    "prose_general/openstax_general": 0.1,
    "prose_general/african_storybook_en": 0.99,
}
"""How much of each file is read, whole documents in the order of a number that their titles give them."""
HELD_OUT = 0.995
"""From this number on a title is held out, in every file: no share reaches it."""
HELD_OUT_ROWS = 150
"""Of MedQuAD: enough for a curve, quick enough to be measured often."""


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
    """Whole documents of one file of prose; title alone decides which."""
    with open(folder / f"{name}.jsonl.zst", "rb") as raw:
        stream = zstandard.ZstdDecompressor().stream_reader(raw)
        for line in io.TextIOWrapper(stream, encoding="utf-8", newline="\n"):
            row = json.loads(line)
            title = str(row["title"])
            text = row.get("text") or "\n".join(f"{part['label']}: {part['text']}" for part in row["sections"])
            example = passage(name.rpartition("/")[2], title, f"{title.rpartition(' > ')[2]}\n{text}", title)
            order = place(f"share {title}")
            if order < share:
                yield example, "train"
            elif order >= HELD_OUT and name.endswith("trials"):
                yield example, "validation"


def read(path: str) -> Iterator[tuple[Example, str]]:
    """All passages with their part; `path` is the folder of real data (its README says what lies there)."""
    folder = Path(path)
    if not (folder / "medquad").is_dir():
        raise DataError("not the folder of pre-training data", where=str(folder), todo="set data.path to it")
    yield from read_medquad(folder)
    for name, share in SHARES.items():
        yield from read_prose(folder, name, share)
