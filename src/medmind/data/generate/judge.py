"""What a model's answer must be before it becomes a row: in four parts, whole, about the term, and new."""

import re
from collections.abc import Iterable
from enum import StrEnum

from medmind.core.types import Record
from medmind.data.generate.variants import Fact
from medmind.data.split import normalise_name
from medmind.prompts.tasks.terms import four_parts, render

NEAR = 0.8
"""Jaccard similarity of two answers' word 5-grams from which the second is no new answer."""
GRAM = 5
REFUSES = re.compile(
    r"(?:^|[.!?:*,;]\s*)I(?:(?: am|'m) (?:sorry|afraid|unable|not able)| cannot| can not| can't| won't| do not| don't)"
    r"|\b[Aa]s an? (?:AI|(?:large )?language model)\b|^\W*(?:[Ss]orry|[Uu]nfortunately)\b",
    re.MULTILINE,
)
"""The first person at the start of a clause: "type I cannot" is no refusal."""
DAMAGED = re.compile(r"[\0\ufffd]")
ENDS = re.compile(r"[.!?][\"')\]*]*$")


class Reason(StrEnum):
    """Why something did not become a row; the report counts by these."""

    KNOWN = "a term that ships"
    TWICE = "term named twice"
    NO_ANSWER = "no answer"
    SERVER = "server error"
    GARBAGE = "not a chat reply"
    TRUNCATED = "cut short"
    REFUSAL = "refusal"
    FORM = "not in four parts"
    NAME = "definition does not name the term"
    REPEAT = "near-duplicate"


class Rejected(Record):
    """One line of OUT.rejected.jsonl; `attempt` counts from 1, 0 is a term that was not asked."""

    term: str
    category: str
    attempt: int
    reason: Reason
    detail: str
    raw: str


Answers = list[tuple[str, frozenset[tuple[str, ...]]]]
"""Accepted answers: the term of each and its word 5-grams."""


def judge(text: str, finished: bool, term: str, accepted: Answers) -> str | tuple[Reason, str]:
    """The answer as the set writes it, or the first reason why it cannot stand there, with its detail."""
    if damage := DAMAGED.search(text):
        return Reason.GARBAGE, f"a damaged character (U+{ord(damage.group()):04X})"
    if found := REFUSES.search(text.replace("’", "'")):
        return Reason.REFUSAL, f'it says "{found.group().strip()}"'
    if not finished:
        return Reason.TRUNCATED, "the endpoint says that the reply did not end by itself"
    parts = four_parts(text)
    if isinstance(parts, str):
        return Reason.FORM, parts
    for part, body in parts.items():
        if "\n" in body:
            return Reason.FORM, f"{part} is more than one paragraph"
        if not ENDS.search(body):
            return Reason.TRUNCATED, f"{part} ends in the middle of a sentence"
    if not any(f" {name} " in f" {normalise_name(parts['Definition'])} " for name in names_of(term)):
        return Reason.NAME, parts["Definition"]
    own = grams(text)
    for other, theirs in accepted:
        if len(own & theirs) >= NEAR * len(own | theirs):
            return Reason.REPEAT, f'says nearly what the answer about "{other}" says'
    return render(*parts.values())


def grams(text: str) -> frozenset[tuple[str, ...]]:
    """Word 5-grams of a four-part answer; the note, which all share, is left out."""
    words = normalise_name(text.partition("**Note**:")[0]).split()
    return frozenset(tuple(words[place : place + GRAM]) for place in range(max(1, len(words) - GRAM + 1)))


def names_of(term: str) -> set[str]:
    """What a term is called: "ECG or EKG" is either, brackets hold another name, an article is none of it."""
    parts = {term, re.sub(r"\(.*?\)", " ", term), *re.findall(r"\((.*?)\)", term)}
    parts |= {half for part in parts for half in re.split(r"\bor\b|/", part)}
    return {re.sub(r"^(the|an|a) (?=.)", "", normalise_name(part)) for part in parts} - {""}


def names_of_facts(facts: Iterable[Fact]) -> set[str]:
    """Every name of the packaged terms, and what the abbreviations stand for."""
    found: set[str] = set()
    for fact in facts:
        found |= names_of(fact["term"])
        if long := re.search(r" stands for ([^,.]+)", fact["definition"]):
            found |= names_of(long.group(1))
    return found
