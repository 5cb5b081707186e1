"""What nano is pre-trained on: MedQuAD's pre-training groups and openly licensed prose, as plain passages.

A share of the passages comes once more, its beginning written twice, so that a model this small learns to look back.
Held out, and read by no training: passages of MedQuAD's test groups, and whatever bears the title of one of five
trial reports in a thousand.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import zstandard

from medmind.core.errors import DataError
from medmind.core.types import Example
from medmind.data.sources.seam import Dropped, fold
from medmind.data.sources.tables import open_csv, require
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
TWICE = 0.3
"""Of the MedQuAD passages; the beginning alone, so that both copies lie in one row."""
BEGINNING = 600
"""Characters, to the end of a word."""
FETCH_AGAIN = "fetch the folder's file again"
HELD_OUT_ROWS = 150
"""Of MedQuAD: enough for a curve, quick enough to be measured often."""


def place(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 1_000_000 / 1_000_000


def passage(source: str, name: str, text: str, group: str) -> Example:
    digest = hashlib.sha256(f"{name}\n{text}".encode()).hexdigest()[:12]
    return Example(id=f"{source}-{digest}", source=source, task="text", target=text, group=group)


def written_twice(example: Example) -> Example:
    beginning = example.target[:BEGINNING].rpartition(" ")[0]
    return passage("twice", str(example.group), f"{beginning}\n{beginning}", str(example.group))


def read_medquad(folder: Path) -> Iterator[tuple[Example, str]]:
    """(passage, part) of the pre-training groups, and of some test groups as held-out text."""
    held_out = 0
    table = open_csv(folder / "medquad" / "medquad_kaggle_form.csv.gz", "medquad")
    require(table, {name: name for name in ("question", "answer", "focus_area")})
    for entry in table.entries:
        if isinstance(entry, Dropped):
            raise DataError(entry.reason, where=f"{entry.file}, row {entry.row}", todo=FETCH_AGAIN)
        row = entry.values
        part = medquad_part(row["focus_area"])
        question, answer = fold(row["question"]).replace(" ?", "?"), fold(row["answer"])
        example = passage("medquad", row["focus_area"], f"{question}\n{answer}", row["focus_area"])
        if part == PRETRAIN:
            yield example, "train"
            if place(f"twice {example.id}") < TWICE:
                yield written_twice(example), "train"
        elif part == TEST and held_out < HELD_OUT_ROWS and place(example.id) < 0.2:
            held_out += 1
            yield example, "validation"


def read_prose(folder: Path, name: str, share: float) -> Iterator[tuple[Example, str]]:
    """Whole documents of one file of prose; title alone decides which."""
    for title, text in read_documents(folder / f"{name}.jsonl.zst"):
        example = passage(name.rpartition("/")[2], title, f"{title.rpartition(' > ')[2]}\n{text}", title)
        order = place(f"share {title}")
        if order < share:
            yield example, "train"
        elif order >= HELD_OUT and name.endswith("trials"):
            yield example, "validation"


def read_documents(path: Path) -> Iterator[tuple[str, str]]:
    """(title, text) of every line."""
    number = 1
    try:
        with open(path, "rb") as raw:
            stream = zstandard.ZstdDecompressor().stream_reader(raw)
            for line in io.TextIOWrapper(stream, encoding="utf-8", newline="\n"):
                row = json.loads(line)
                text = row.get("text") or "\n".join(f"{part['label']}: {part['text']}" for part in row["sections"])
                yield str(row["title"]), text
                number += 1
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path), todo=FETCH_AGAIN) from None
    except (zstandard.ZstdError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise DataError(f"damaged: {error!r:.100}", where=f"{path}, line {number}", todo=FETCH_AGAIN) from None


def read(path: str) -> Iterator[tuple[Example, str]]:
    """All passages with their part; `path` is the folder of real data (its README says what lies there)."""
    folder = Path(path)
    if not (folder / "medquad").is_dir():
        raise DataError("not the folder of pre-training data", where=str(folder), todo="set data.path to it")
    yield from read_medquad(folder)
    for name, share in SHARES.items():
        yield from read_prose(folder, name, share)
