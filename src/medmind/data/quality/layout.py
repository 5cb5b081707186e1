"""What a web page leaves behind in a text: tags, entities, attributes, runs of blanks, a blank before the mark."""

import re
from collections.abc import Iterator
from html.entities import html5

from medmind.data.quality.view import Check, Spot, View, quote

TAGS = (
    "a|abbr|b|blockquote|body|br|caption|center|code|dd|div|dl|dt|em|figure|font|footer|form|h[1-6]|head|header|hr|html|i|iframe"
    "|img|input|li|link|meta|nav|ol|option|p|pre|script|section|select|small|span|strike|strong|style|sub|sup|svg|table|tbody|td"
    "|tfoot|th|thead|title|tr|tt|u|ul"
)
TAG = re.compile(rf"</?(?:{TAGS})(?:\s+[\w:-]+\s*=[^<>]*|\s*/?)>|<!--|<!doctype", re.IGNORECASE)
ENTITY = re.compile(r"&(?:#\d{2,6}|#x[0-9a-f]{2,5}|(?P<name>[a-z]+\d{0,2}));", re.IGNORECASE)
ATTRIBUTE = re.compile(r"\b(?:class|href|src|style|colspan|rowspan)=[\"'\w]")
WIKI = re.compile(r"\{\{[#\w]|\[\[\w|\bTemplate:[A-Z]")
BLANK_BEFORE_MARK = (" ?", "\n?", "\t?", "\u00a0?")
RUN_OF_BLANKS = ("   ", "\t", "\n\n\n", "\u00a0\u00a0")
SPACED = ("fr",)
"""Languages that put a blank before the question mark."""


def find_markup(view: View) -> Iterator[Spot]:
    for part, text in view.texts:
        if "<" in text and (match := TAG.search(text)):
            yield Spot(f"tag in the {part}", quote(text, *match.span()))
        if "&" in text and (match := first_entity(text)):
            yield Spot(f"entity in the {part}", quote(text, *match.span()))
        if "=" in text and (match := ATTRIBUTE.search(text)):
            yield Spot(f"attribute in the {part}", quote(text, *match.span()))
        if ("{{" in text or "[[" in text or "Template:" in text) and (match := WIKI.search(text)):
            yield Spot(f"wiki markup in the {part}", quote(text, *match.span()))


def first_entity(text: str) -> re.Match[str] | None:
    return next((one for one in ENTITY.finditer(text) if not one["name"] or f"{one['name']};" in html5), None)


def find_blank_before_mark(view: View) -> Iterator[Spot]:
    if view.example.language not in SPACED:
        yield from in_file(view, BLANK_BEFORE_MARK)


def find_runs_of_blanks(view: View) -> Iterator[Spot]:
    yield from in_file(view, RUN_OF_BLANKS)


def in_file(view: View, signs: tuple[str, ...]) -> Iterator[Spot]:
    """A fault of layout, which a source may mend in reading: looked for in the file's own texts."""
    for raw in view.raw:
        sign = next((sign for sign in signs if sign in raw), "")
        if sign and (part := view.part_of(raw)):
            left = any(sign in text for name, text in view.texts if name == part for sign in signs)
            yield Spot(part, quote(raw, raw.index(sign), raw.index(sign)), mended=not left)


CHECKS: dict[str, Check] = {
    "markup": find_markup,
    "blank_before_mark": find_blank_before_mark,
    "runs_of_blanks": find_runs_of_blanks,
}
