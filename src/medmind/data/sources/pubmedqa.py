"""PubMedQA, from GitHub's ori_pqal.json or the Hub's pqa_labeled, asked in one of its three published settings.

The official 500 test ids with labels ship beside this file as upstream has them (MIT, copyright 2019 pubmedqa).
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medmind.core.errors import DataError
from medmind.core.types import Example, Message, Passage
from medmind.data.config import DataConfig
from medmind.data.sources.files import find_files, first_bytes, origins_of
from medmind.data.sources.json_table import is_writable, read_object
from medmind.data.sources.seam import Dropped, Entry, Fault, Origin, Row, Source, words
from medmind.data.sources.tables import Table, find_columns, open_table, some, value_at

LABELS = Path(__file__).parent / "pubmedqa_test_ids.json"
LABELS_SHA256 = "939fe566f09017d13b1ca64d2ddfee0bc2374b366048152997669cccedc44d51"
SPELLINGS = {
    "id": ("pubid",),
    "question": ("question",),
    "contexts": ("contexts", "context"),
    "titles": ("labels",),
    "conclusion": ("long_answer",),
    "decision": ("final_decision",),
}
TODO = "data.path must be ori_pqal.json of github.com/pubmedqa/pubmedqa or pqa_labeled of the Hub's qiaojin/PubMedQA"


def official_labels() -> dict[str, str]:
    """Official test id → decision, in upstream's order, which is sorted by decision."""
    raw = LABELS.read_bytes()
    if hashlib.sha256(raw).hexdigest() != LABELS_SHA256:
        raise DataError("the official test ids are not as shipped", where=str(LABELS), todo="install medmind again")
    labels: dict[str, str] = json.loads(raw)
    return labels


def read(config: DataConfig) -> Iterator[Row | Dropped]:
    labels = official_labels()
    try:
        yield from read_files(config, labels)
    except DataError as error:
        raise DataError(error.what, where=error.where, todo=f"{error.todo}; {TODO}".removeprefix("; ")) from None


def read_files(config: DataConfig, labels: Mapping[str, str]) -> Iterator[Row | Dropped]:
    seen: dict[str, str] = {}
    for file in find_files(config):
        table = open_pubmedqa(file.path)
        columns = find_columns(table, SPELLINGS, optional=("titles",))
        for entry in table.entries:
            if not isinstance(entry, Entry):
                yield entry
                continue
            name = words(value_at(entry, columns, "id")) or ""
            seen[name] = words(value_at(entry, columns, "decision")) or ""
            yield to_row(entry, columns, config, labels)
    check_official(seen, labels, config.path)


def open_pubmedqa(path: Path) -> Table:
    """ori_pqal.json is one object of PubMed id → question; all other copies are rows."""
    if not re.match(rb'\{\s*"\d+"\s*:', first_bytes(path)):
        return open_table(path, "pubmedqa")
    entries = list(read_object(path, "pubmedqa", "pubid"))
    columns = dict.fromkeys(name for entry in entries if isinstance(entry, Entry) for name in entry.values)
    if not columns:
        raise DataError("not an object of PubMed id → question", where=str(path))
    return Table(path, list(columns), some(iter(entries), path, "no rows"))


def check_official(seen: Mapping[str, str], labels: Mapping[str, str], path: str) -> None:
    """A suite of this name is the official one, whole and with its labels, or there is none."""
    missing = [name for name in labels if name not in seen]
    other = [name for name in labels if name in seen and seen[name] != labels[name]]
    if missing or other:
        what = f"{len(missing)} of the {len(labels)} official test ids are missing, {len(other)} have another label"
        named = ", ".join((missing + other)[:3])
        raise DataError(f"{what} ({named})", where=path, todo="fetch it again")


def to_row(entry: Entry, columns: Mapping[str, str], config: DataConfig, official: Mapping[str, str]) -> Row | Dropped:
    name, question, conclusion, decision = (
        words(value_at(entry, columns, role)) for role in ("id", "question", "conclusion", "decision")
    )
    context = value_at(entry, columns, "contexts")
    nested = context if isinstance(context, dict) else {}
    contexts = texts(nested.get("contexts") if nested else context)
    titles = texts(nested.get("labels") if nested else value_at(entry, columns, "titles")) or []
    if name is None or question is None or conclusion is None or decision is None or contexts is None:
        reason = "question, conclusion and decision must be texts and the contexts a list of texts"
        return entry.drop(Fault.NOT_TEXT, reason, name or "")
    options = tuple(config.labels.split("/"))
    if config.setting == "question-only":
        contexts = []
    elif config.setting == "reasoning-free":
        contexts, titles = [conclusion], ["CONCLUSIONS"]
    titles = [*titles, *[""] * len(contexts)]
    example = Example(
        id=name,
        source="pubmedqa",
        task="choice",
        turns=(Message(role="user", text=question),),
        passages=tuple(
            Passage(id=f"{name}-{place}", text=text, title=titles[place]) for place, text in enumerate(contexts)
        ),
        options=options,
        target=decision,
        reasoning="" if config.setting == "reasoning-free" else conclusion,
        metadata={"category": decision, "setting": config.setting},
    )
    row = entry.row(example, "test" if name in official else "train")
    if decision == "maybe" and decision not in options:
        return row.drop(Fault.LEFT_OUT, "decided by maybe, and data.labels is yes/no")
    return row


def texts(value: Any) -> Sequence[str] | None:
    """A list of texts; a CSV holds it as JSON. None for anything else."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if value is None or not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        return None
    return value if is_writable(value) else None


def variant(config: DataConfig) -> str:
    setting = "" if config.setting == "reasoning-required" else f"-{config.setting}"
    return setting + ("-yes-no" if config.labels == "yes/no" else "")


def origins(config: DataConfig) -> list[Origin]:
    return [*origins_of(config, "MIT"), Origin(LABELS, "MIT")]


CREDIT = "PubMedQA by Qiao Jin et al. (EMNLP 2019), https://github.com/pubmedqa/pubmedqa"
PUBMEDQA = Source("pubmedqa", "pubmedqa", read, origins, credit=CREDIT, variant=variant)
