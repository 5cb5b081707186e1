"""Splits as the files' names tell them, for whoever published a data set in parts."""

from collections.abc import Mapping, Sequence

from medmind.data.sources.files import Input
from medmind.data.sources.seam import Part

USUAL: Mapping[str, Part] = {
    "train": "train",
    "dev": "validation",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


def part_by_name(files: Sequence[Input]) -> list[tuple[Input, Part | None]]:
    """The user's files: parts are named by them only where train and test both are, and every file says which it is."""
    parts = [USUAL.get(file.split) for file in files]
    named = {"train", "test"} <= {*parts} and None not in parts
    return [(file, part if named else None) for file, part in zip(files, parts, strict=True)]
