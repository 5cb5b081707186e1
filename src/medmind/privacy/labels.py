"""Numbers that a word before them says are somebody's: record, plan, account, licence, vehicle, device and the like."""

import re
from collections.abc import Iterator

from medmind.privacy.rules import count_digits
from medmind.privacy.spans import Category, Span

NUMBERED = r"(?:'?s)?[\s_]?(?:ids?|identifiers?|identification|numbers?|nos?\b\.?|nums?\b\.?|nrs?\b\.?|#)"
N_O = r"(?:n[o.]{0,2}|num(?:ero)?\.?)\s?(?:de(?:l)?\s)?"
FILLER = (
    r"(?:[\s_:#.=,;(-]|\b(?:number|num|no|nos|nr|id|ids|identifier|code|is|was|of|are|the|and|his|her|my|patient|for|on|file"
    r"|card|numero|n|es|de|la|del|nhc)\b)*"
)
UNIT = r"(?:mg|mcg|ml|g|kg|cm|mm|%|years?|anos|days?|hours?|units?)\b"
MORE = rf"(?:[ \t.-]{{1,2}}(?=\d)(?!\d+(?:[.,]\d+)?\s?{UNIT})|\s?\n\s?(?=\d)(?!\d+(?:[.,]\d+)?\s?[a-z%]))\d[\d/-]*"
"""Another group of digits, unless it is a quantity; on the next line, unless words follow it there."""
VALUE = rf"(?P<v>(?=[a-z0-9./-]{{0,8}}\d)[a-z0-9]+(?:[./-][a-z0-9]+)*(?:{MORE})*)"
LABELS = {
    Category.VEHICLE: (
        rf"(?:licen[cs]e|number|registration|car)[\s_]plate|plate{NUMBERED}|vehicle{NUMBERED}|vin\b|vehicle\sregistration"
        r"|matricula"
    ),
    Category.LICENCE: (
        r"(?:driver'?s?'?|driving|medical|nursing|professional|physician|pharmacy|pilot)[\s_]?'?licen[cs]e|licen[cs]e\s(?:is|:)"
        rf"|(?:licen[cs]e|certificat(?:e|ion)|dea|dl|npi){NUMBERED}|dea:|npi:|passport|{N_O}?col(?:egiad[oa])?\b\.?"
        r"|permiso\sde\sconducir"
    ),
    Category.RECORD: (
        r"mrn|m\.r\.n\.|(?:medical|health)[\s_]record|(?:patient|hospital|chart|case|encounter|visit|admission|accession"
        rf"|specimen|sample|study|subject|file|record|unit|episode|laboratory|lab|nhs){NUMBERED}|nhs:|nhc|cipa"
        rf"|historia\sclinica\s?{N_O}|{N_O}historia(?:\sclinica)?|episodio|id\spaciente"
    ),
    Category.PLAN: (
        r"(?:insurance|policy|member(?:ship)?|subscriber|beneficiary|medicare|medicaid|(?:health[\s_])?plan|group|payer|claim)"
        rf"(?:[\s_](?:card|plan|policy|member))?{NUMBERED}|(?:medicare|medicaid|policy|insurance|member)\s?:|mbi\b|hicn|nass"
        rf"|nuss|{N_O}(?:afiliacion|seguridad\ssocial|poliza)|seguridad\ssocial|poliza|tarjeta\ssanitaria"
    ),
    Category.ACCOUNT: (
        rf"(?:account|acct|bank|routing|invoice|bill(?:ing)?|financial|customer|order){NUMBERED}"
        r"|(?:bank\s|checking\s|savings\s)?account:?|acct\.?|iban|sort\scode|swift|numero\sde\scuenta|cuenta|factura"
    ),
    Category.DEVICE: rf"(?:serial|device|implant|pacemaker|pump|model){NUMBERED}|s/n|imei|udi|{N_O}serie",
    Category.SSN: rf"ssn|social\ssecurity(?:{NUMBERED})?",
    Category.OTHER: (
        rf"(?:employee|badge|student|user|tax|national|citizen|personal|biometric|fingerprint|barcode){NUMBERED}|dni|nie|nif|ein"
    ),
}
"""On a lower-cased text without accents. What is also a common word needs \"number\" behind it."""
ANY = "|".join(f"(?P<{category.value}>{label})" for category, label in LABELS.items())
LABELLED = re.compile(rf"(?<![a-z0-9])(?:{ANY})(?![a-z]){FILLER}{VALUE}")
REGISTERED = re.compile(r"(?:nct|isrctn|crd|chictr|eudract)\d")
"""Trials, which are public."""


def find_labelled(lowered: str) -> Iterator[Span]:
    for match in LABELLED.finditer(lowered):
        if count_digits(match["v"]) >= 4 and not REGISTERED.match(match["v"]):
            category = next(category for category in LABELS if match[category.value])
            yield Span(match.start("v"), match.end("v"), category)
