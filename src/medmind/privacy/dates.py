"""Dates finer than a year, and ages over 89, in English and Spanish; bare years and younger ages stay."""

import re

from medmind.privacy.rules import MONTH, NTHS, Rule, after, before
from medmind.privacy.spans import Category

YEAR = r"(?:1[89]|20)\d\d"
DAY = r"(?:3[01]|[12]\d|0?[1-9])"
NTH = r"(?:st|nd|rd|th|o|er)?"
OF = r"(?:(?:of|del?|in)\s+)?(?:(?:the\s+year|ano)\s+(?:of\s+|de\s+)?)?"
TIME = r"(?:(?:t|,?\s(?:at\s|a\slas\s)?)[0-2]?\d:[0-5]\d(?::[0-5]\d(?:\.\d+)?)?(?:\s?[ap]\.?m\b\.?|z\b)?)?"
AMBIGUOUS = ("may", "march", "mar", "sep", "dec", "ago", "oct", "apr", "jan", "nov", "dic", "ene")
"""Also words or abbreviations: without a year they need a capital, and not only capitals."""
UNIT = re.compile(
    r"\s?(?:%|m[glm]\b|mc?g|ug|kg|g\b|l\b|cm|i?u\b|units?|(?:month|week|day|hour|year|minute|dose)s?\b|meses|dias)"
)
FREE_START = r"(?<![\w.,/])(?<!\d-)"
SPOKEN_DAY = rf"(?:(?:twenty|thirty)[- ])?(?:{NTHS})"
SPOKEN_YEAR = (
    r"(?:,?\s(?:nineteen|twenty|two\sthousand)"
    r"(?:[- ](?:and|hundred|oh|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|[a-z]+teen|[a-z]+ty))*)?"
)
EVENT = (
    r"(?:admi(?:tted|ssion)|discharged?|seen|presented|visit(?:ed)?|born|died|death|diagnosed|surgery|operat(?:ed|ion)"
    r"|transplant(?:ed)?|appointment|follow-up|scheduled|hospitali[sz]ed|ingres[oa]\w*|alta|operad[oa]|nacid[oa]|fallec\w+)"
)
DATED = (
    r"(?:dob|d\.o\.b\.?|dod|date\sof\s[a-z]+|birth\s?(?:date|day)|fecha(?:\sde\s[a-z]+|\snac\.?)?|f\.\s?nac\.?"
    r"|born(?:\son)?|(?:admitted|discharged)(?:\son)?|nacid[oa]\sel)"
)
LIMIT = re.compile(r"(?:than|over|above|under|below|least|most|beyond|[<>≥≤=]|\d\s?(?:-|to|and|a|y))\s?$")


def is_date(match: re.Match[str]) -> bool:
    """Day and month in either order; a short year must look written as one."""
    first, second, year = int(match["a"]), int(match["b"]), match["y"]
    if not (1 <= first <= 31 and 1 <= second <= 31 and min(first, second) <= 12):
        return False
    if len(year) == 4:
        return year[:2] in ("18", "19", "20")
    if before(match, 8).strip(": ").endswith("apgar"):
        return False
    padded = len(match["a"]) == len(match["b"]) == 2
    return (match["s"] == "/" or padded) and not UNIT.match(after(match, 10))


def is_month(match: re.Match[str]) -> bool:
    """Not the verb may, a march, OCT the scan or MAR the chart."""
    word, year = match["m"].rstrip("."), match["y"]
    if year and len(year) == 4:
        return True
    if word.lower() in AMBIGUOUS and (word.islower() or (word.isupper() and len(word) <= 4)):
        return False
    return not UNIT.match(after(match, 10))


def is_written_date(match: re.Match[str]) -> bool:
    """More than a year."""
    return len(match["v"]) > 5 or any(sign in match["v"] for sign in "/-")


def is_one_person(match: re.Match[str]) -> bool:
    """A limit (over 90, 18 to 95) is an age of a group."""
    return not LIMIT.search(before(match, 10))


def in_words(pattern: str) -> Rule:
    return Rule(Category.DATE, re.compile(pattern, re.IGNORECASE), "month", cased=True, check=is_month)


RULES = (
    Rule(
        Category.DATE,
        re.compile(rf"{FREE_START}(?P<v>{YEAR}\s?([-/.])\s?(?:1[0-2]|0?[1-9])\s?\2\s?{DAY}{TIME})(?![\w/]|-\d)"),
        "pair",
        joins=True,
    ),
    Rule(
        Category.DATE,
        re.compile(
            rf"{FREE_START}(?P<v>(?P<a>\d\d?)\s?(?P<s>[/.-])\s?(?P<b>\d\d?)\s?(?P=s)/?\s?(?P<y>\d{{4}}|\d\d){TIME})"
            r"(?![\w/%]|[-.,]\d)"
        ),
        "pair",
        joins=True,
        check=is_date,
    ),
    Rule(
        Category.DATE,
        re.compile(rf"{FREE_START}(?P<v>(?:0[1-9]|1[0-2])[/-]{YEAR})(?![\w/]|[-.,]\d|\s(?:patients|women|men|cases))"),
        "pair",
    ),
    Rule(
        Category.DATE,
        re.compile(rf"\b{DATED}\s*[:=-]?\s*(?P<v>\d[\d/. -]{{2,12}}\d)(?!\d)"),
        "pair",
        check=is_written_date,
    ),
    in_words(
        rf"(?<![\w.,/])(?P<v>{DAY}{NTH}[\s,-]*(?:(?:day\s)?of\s|de\s)?(?P<m>{MONTH})"
        rf"(?:[\s,-]*{OF}(?P<y>{YEAR}|'?\d\d)(?![\d%/]|[.,]\d))?{TIME})(?!\w)"
    ),
    in_words(
        rf"(?<!\w)(?P<v>(?P<m>{MONTH})[\s,-]+(?:the\s)?{DAY}{NTH}(?![\d:%/]|[.,-]\d)(?:,?\s*{OF}(?P<y>{YEAR}|'\d\d))?{TIME})(?!\w)"
    ),
    in_words(rf"(?<!\w)(?P<v>(?P<m>{MONTH})[\s,/-]+{OF}(?P<y>{YEAR}|'\d\d))(?![\d%]|[.,]\d)"),
    in_words(rf"\b(?:mes\sde|month\sof)\s(?P<v>(?P<m>{MONTH})(?P<y>))(?!\w)"),
    in_words(
        rf"\b{EVENT}\b[^.\n]{{0,40}}?\b(?:in|since|until|last|this|early|late|mid|en|desde)[\s-]"
        rf"(?P<v>(?P<m>{MONTH})(?P<y>))(?![\w-])"
    ),
    in_words(rf"\b(?P<v>(?:the\s)?{SPOKEN_DAY}\s(?:day\s)?of\s(?P<m>{MONTH})(?P<y>){SPOKEN_YEAR})(?!\w)"),
    in_words(rf"\b(?P<v>(?P<m>{MONTH})\s(?:the\s)?{SPOKEN_DAY}(?P<y>){SPOKEN_YEAR})(?!\w)"),
    Rule(
        Category.AGE,
        re.compile(
            r"(?<![\w.,/-])(?P<v>(?:9\d|1[01]\d)[-\s]?(?:(?:years?|yrs?|y)[-\s]?(?:old|of\sage|/?o\b)|y/?o\b|anos\sde\sedad))"
        ),
        "ninety",
        check=is_one_person,
    ),
    Rule(
        Category.AGE,
        re.compile(
            r"\b(?:aged?|turned|turning|edad)[:\s]{1,3}(?:of\s)?(?P<v>(?:9\d|1[01]\d)(?:\s(?:anos|years?))?)(?![\d/%]|[.,]\d|\s?(?:-|to)\s?\d)"
        ),
        "ninety",
    ),
    Rule(Category.AGE, re.compile(r"\bde\s(?P<v>(?:9\d|1[01]\d)\sanos)\b"), "ninety"),
    Rule(
        Category.AGE,
        re.compile(
            r"\b(?P<v>(?:ninety|(?:one|a)\shundred(?:\sand)?)(?:[-\s](?:one|two|three|four|five|six|seven|eight|nine|ten))?"
            r"[-\s]years?[-\s](?:old|of[-\s]age)|noventa(?:\sy\s[a-z]+)?\sanos)\b"
        ),
        "ninety",
        check=is_one_person,
    ),
)
