"""What the screen answers: a stretch of the text as given, and which kind of identifier stands there.

The kinds are the HIPAA Safe-Harbor list (45 CFR 164.514(b)(2)) as far as a text can hold them: biometric data and
photographs cannot stand in one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Category(StrEnum):
    NAME = "name"
    PLACE = "place"
    POSTCODE = "postcode"
    DATE = "date"
    AGE = "age"
    """Over 89 only; younger ages are no identifiers."""
    PHONE = "phone"
    FAX = "fax"
    EMAIL = "email"
    SSN = "ssn"
    RECORD = "record"
    PLAN = "plan"
    ACCOUNT = "account"
    LICENCE = "licence"
    VEHICLE = "vehicle"
    DEVICE = "device"
    URL = "url"
    IP = "ip"
    OTHER = "other"


BY_NER = (Category.NAME, Category.PLACE)
"""What no rule can see."""


@dataclass(frozen=True, slots=True)
class Span:
    """`start` and `end` count characters of the original text, as a slice does."""

    start: int
    end: int
    category: Category


def merge(spans: Iterable[Span]) -> list[Span]:
    """Sorted and disjoint: what overlaps becomes one span, of the category that began first or covers more."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if merged and span.start < merged[-1].end:
            last = merged[-1]
            merged[-1] = Span(last.start, max(last.end, span.end), last.category)
        else:
            merged.append(span)
    return merged
