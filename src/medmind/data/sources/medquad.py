"""MedQuAD as published in XML, as Kaggle's CSV and as the copies on the Hub, cut once by the focus alone.

One of these copies (qtype, question, answer) lost the focus: there the question's own wording tells it, or the row is
left out, for a guess could put a topic on both sides of the split.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medmind.core.types import Example, Message
from medmind.data.config import DataConfig
from medmind.data.sources.files import TABLES, Input, find_files, origins_of
from medmind.data.sources.medquad_xml import ARCHIVES, is_xml, read_pairs
from medmind.data.sources.seam import Dropped, Entry, Fault, Origin, Row, Source, fold, make_id, words
from medmind.data.sources.tables import find_columns, open_table, value_at
from medmind.data.split import medquad_part

ENDINGS = (*TABLES, "xml", *ARCHIVES)
SPELLINGS = {
    "question": ("question",),
    "answer": ("answer",),
    "focus": ("focus_area", "question_focus", "focus"),
    "collection": ("source", "document_source"),
    "type": ("qtype", "question_type"),
    "url": ("url", "document_url"),
}
WITHDRAWN = ("ADAM", "MPlusDrugs", "MPlusHerbsSupplements")
"""Collections whose answers upstream took out, to comply with MedlinePlus's copyright."""
WORDINGS = re.compile(
    r"What (?:is \(are\)|are the (?:symptoms of|treatments for|stages of|complications of)|causes) (?P<a>.+) \?"
    r"|What (?:are the genetic changes related to|is the outlook for|to do for) (?P<b>.+) \?"
    r"|Is (?P<c>.+) inherited \?|How many people are affected by (?P<d>.+) \?|How to (?:diagnose|prevent) (?P<e>.+) \?"
    r"|what research \(or clinical trials\) is being done for (?P<f>.+) \?|Who is at risk for (?P<g>.+)\? \?"
    r"|Do you have information about (?P<h>.+)"
)
"""The questions MedQuAD's makers generated from a focus, as they stand in the files: 16,369 of 16,412."""


def read(config: DataConfig) -> Iterator[Row | Dropped]:
    files = find_files(config, ENDINGS)
    xml = [file for file in files if is_xml(file.path)]
    if xml:
        columns = {role: role for role in SPELLINGS}
        for entry in read_pairs([file.path for file in xml], Path(config.path)):
            yield to_row(entry, columns) if isinstance(entry, Entry) else entry
        return
    for file in files:
        yield from read_table(file)


def read_table(file: Input) -> Iterator[Row | Dropped]:
    table = open_table(file.path, "medquad")
    columns = find_columns(table, SPELLINGS, optional=("collection", "url", *missing_focus(table.columns)))
    for entry in table.entries:
        yield to_row(entry, columns) if isinstance(entry, Entry) else entry


def missing_focus(columns: list[str]) -> tuple[str, ...]:
    """Roles that may be absent: the focus only in the copy that has the type of question in its place."""
    return ("focus",) if "qtype" in (name.casefold() for name in columns) else ("type",)


def to_row(entry: Entry, columns: Mapping[str, str]) -> Row | Dropped:
    said = {role: words(value_at(entry, columns, role)) for role in SPELLINGS}
    odd = [role for role, text in said.items() if text is None]
    if odd:
        return entry.drop(Fault.NOT_TEXT, f'column "{columns[odd[0]]}" is neither a text nor a number')
    text = {role: fold(value or "") for role, value in said.items()}
    focus = text["focus"] if "focus" in columns else focus_of(text["question"])
    question = text["question"].replace(" ?", "?")
    example = Example(
        id=make_id("medquad", question, text["answer"]),
        source="medquad",
        task="qa",
        turns=(Message(role="user", text=question),),
        target=text["answer"],
        group=focus,
        metadata=metadata(text),
    )
    row = entry.row(example, medquad_part(focus))
    if not text["answer"] and text["collection"] in WITHDRAWN:
        return row.drop(Fault.WITHDRAWN, f"upstream has withdrawn the answers of {text['collection']}")
    if focus:
        return row
    reason = "no focus, which decides its part" if "focus" in columns else "its wording does not tell its focus"
    return row.drop(Fault.NO_GROUP, reason)


def focus_of(question: str) -> str:
    """What a generated question is about; nothing for one in other words."""
    found = WORDINGS.fullmatch(question)
    return next((text for text in found.groups() if text), "") if found else ""


def metadata(text: Mapping[str, str]) -> dict[str, Any]:
    known = {"category": text["collection"], "type": text["type"], "url": text["url"]}
    return {name: value for name, value in known.items() if value or name == "category"}


def origins(config: DataConfig) -> list[Origin]:
    """Thousands of pages are one origin: their folder."""
    found = origins_of(config, "CC BY 4.0", ENDINGS)
    pages = [one for one in found if one.path.suffix == ".xml"]
    if len(pages) < 2:
        return found
    folder = os.path.commonpath([one.path for one in pages])
    return [replace(pages[0], path=Path(folder)), *(one for one in found if one not in pages)]


CREDIT = (
    "MedQuAD by Asma Ben Abacha and Dina Demner-Fushman (arXiv:1901.08079), https://github.com/abachaa/MedQuAD; texts "
    "of the US National Institutes of Health, the page of each in metadata.url or metadata.category"
)
MEDQUAD = Source("medquad", "medquad", read, origins, credit=CREDIT)
