"""A text in which control tokens are spelled out, as Hugging Face reads and writes one.

For clients that count or score by themselves; nothing that a model is to answer is read so.
"""

import re
from collections.abc import Sequence
from itertools import groupby

from medmind.core.protocols import Tokenizer


def read(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokenizer's blank comes before a first word, none before a control token."""
    longest_first = sorted(tokenizer.control, key=len, reverse=True)
    first, *rest = re.split(f"({'|'.join(map(re.escape, longest_first))})", text) if longest_first else [text]
    ids = tokenizer.encode(tokenizer.blank + first) if first else []
    for part in rest:
        ids += [tokenizer.control[part]] if part in tokenizer.control else tokenizer.encode(part)
    return ids


def write(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    control = {token: name for name, token in tokenizer.control.items()}
    parts = []
    for name, row in groupby(ids, control.get):
        run = list(row)
        parts.append(name * len(run) if name is not None else tokenizer.decode(run))
    return "".join(parts).removeprefix(tokenizer.blank)
