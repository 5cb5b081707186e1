"""What stands beside format adherence: a reply can have the form and be about something else."""

import re

from medmind.core.types import Example, Outcome, Prediction


def asked_term(example: Example) -> str:
    """The term a question is about: named by the data, or what follows the question's colon; else empty."""
    named = str(example.metadata.get("term", ""))
    return named or example.turns[-1].text.partition(":")[2].strip()


def names_term(prediction: Prediction, term: str) -> bool:
    """Whether the Definition (of a malformed reply: the first sentence) holds the term as whole words."""
    well_formed = prediction.outcome is Outcome.ANSWERED
    place = prediction.answer if well_formed else first_sentence(prediction.text)
    words = f" {plain(place)} "
    return any(f" {name} " in words for name in spellings(term))


def spellings(term: str) -> set[str]:
    """ "ECG or EKG" is named by either; "Type 2 Diabetes (T2D)" without or within its brackets; no article."""
    parts = {term, re.sub(r"\(.*?\)", " ", term), *re.findall(r"\((.*?)\)", term)}
    parts |= {half for part in parts for half in re.split(r"\bor\b|/", part)}
    return {re.sub(r"^(the|an|a) (?=.)", "", plain(part)) for part in parts} - {""}


def first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s", text.strip(), maxsplit=1)[0]


def plain(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()
