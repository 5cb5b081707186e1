"""Who goes where: splits that cannot leak, each decided by a name alone or by a seed."""

import hashlib
import random
import re
from collections.abc import Sequence
from typing import Final, Literal

PRETRAIN: Final = "pretrain"
TRAIN: Final = "train"
TEST: Final = "test"


def normalise_name(name: str) -> str:
    """Case, accents' spelling apart, blanks and punctuation do not make another name."""
    return re.sub(r"[\W_]+", " ", name.casefold()).strip()


def medquad_part(focus: str) -> Literal["pretrain", "train", "test"]:
    """MedQuAD is cut once, by the group's name: 40 % pre-training, 50 % train, 10 % test."""
    place = int(hashlib.sha256(normalise_name(focus).encode()).hexdigest(), 16) % 100
    return PRETRAIN if place < 40 else TRAIN if place < 90 else TEST


def carve(groups: Sequence[str], fraction: float, seed: int) -> set[int]:
    """Indices of about `fraction` of the rows, whole groups only, chosen by the seed; an empty group stands alone."""
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group or f"\0{index}", []).append(index)
    names = sorted(members)
    random.Random(seed).shuffle(names)
    chosen: set[int] = set()
    for name in names:
        if len(chosen) >= round(fraction * len(groups)):
            break
        chosen.update(members[name])
    return chosen
