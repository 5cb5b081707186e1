"""PubMedQA's ori_pqal.json, the question asked with its abstract (the reasoning-required setting).

The official 500 test ids with labels ship beside this file as upstream has them (MIT, copyright 2019 pubmedqa).
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medmind.core.errors import DataError
from medmind.core.types import Example, Message, Passage
from medmind.data.config import DataConfig
from medmind.data.sources.seam import Dropped, Fault, Origin, Row, Source, input_file
from medmind.data.sources.tables import read_text

LABELS = Path(__file__).parent / "pubmedqa_test_ids.json"
LABELS_SHA256 = "939fe566f09017d13b1ca64d2ddfee0bc2374b366048152997669cccedc44d51"
OPTIONS = ("yes", "no", "maybe")
FIELDS = ("QUESTION", "CONTEXTS", "LONG_ANSWER", "final_decision")


def official_labels() -> dict[str, str]:
    """Official test id → decision, in upstream's order, which is sorted by decision."""
    raw = LABELS.read_bytes()
    if hashlib.sha256(raw).hexdigest() != LABELS_SHA256:
        raise DataError("the official test ids are not as shipped", where=str(LABELS), todo="install medmind again")
    labels: dict[str, str] = json.loads(raw)
    return labels


def read(config: DataConfig) -> Iterator[Row | Dropped]:
    path = input_file(config)
    items = read_items(path)
    labels = official_labels()
    check_official(items, labels, path)
    for number, (name, item) in enumerate(items.items(), start=1):
        yield to_row(number, name, item, path, name in labels)


def read_items(path: Path) -> dict[str, Any]:
    todo = "data.path must be ori_pqal.json (or .json.gz) of github.com/pubmedqa/pubmedqa"
    try:
        items = json.loads(read_text(path))
        json.dumps(items, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error.msg}", where=f"{path}, line {error.lineno}", todo=todo) from None
    except (UnicodeEncodeError, RecursionError) as error:
        raise DataError(f"damaged JSON: {error}", where=str(path), todo=todo) from None
    if not isinstance(items, dict) or not all(isinstance(item, dict) for item in items.values()):
        raise DataError("not an object of PubMed id → question", where=str(path), todo=todo)
    absent = [name for name in FIELDS if not any(name in item for item in items.values())]
    if absent:
        raise DataError(f"no row has {', '.join(absent)}", where=str(path), todo=todo)
    return items


def check_official(items: dict[str, Any], labels: dict[str, str], path: Path) -> None:
    """A suite of this name is the official one, whole and with its labels, or there is none."""
    missing = [name for name in labels if name not in items]
    known = [name for name in labels if name in items]
    other = [name for name in known if items[name].get("final_decision") != labels[name]]
    if missing or other:
        what = f"{len(missing)} of the {len(labels)} official test ids are missing, {len(other)} have another label"
        named = ", ".join((missing + other)[:3])
        raise DataError(f"{what} ({named})", where=str(path), todo="fetch ori_pqal.json again")


def to_row(number: int, name: str, item: dict[str, Any], path: Path, official: bool) -> Row | Dropped:
    question, contexts, reasoning, decision = (item.get(field, "") for field in FIELDS)
    strings = isinstance(contexts, list) and all(isinstance(text, str) for text in (*contexts, question, reasoning))
    if not strings or not isinstance(decision, str):
        reason = "QUESTION, LONG_ANSWER, final_decision must be texts and CONTEXTS a list of texts"
        return Dropped(
            row=number, id=name, source="pubmedqa", file=str(path), fault=Fault.NOT_TEXT, reason=reason, raw=item
        )
    titles = [str(title) for title in item.get("LABELS") or []] + [""] * len(contexts)
    example = Example(
        id=name,
        source="pubmedqa",
        task="choice",
        turns=(Message(role="user", text=question.strip()),),
        passages=tuple(
            Passage(id=f"{name}-{place}", text=text, title=titles[place]) for place, text in enumerate(contexts)
        ),
        options=OPTIONS,
        target=decision,
        reasoning=reasoning.strip(),
        metadata={"category": decision},
    )
    return Row(number, str(path), item, example, "test" if official else "train")


def origins(config: DataConfig) -> list[Origin]:
    return [Origin(input_file(config), "MIT"), Origin(LABELS, "MIT")]


PUBMEDQA = Source("pubmedqa", "pubmedqa", read, origins)
