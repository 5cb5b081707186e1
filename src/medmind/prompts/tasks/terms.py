"""Medical terms explained in four parts, and the strict rule for what counts as that form."""

import re

from medmind.core.types import Answer, Example, Outcome
from medmind.prompts.wording import Task

PARTS = ("Definition", "Explanation", "Clinical Relevance", "Note")
MIN_WORDS = 3
HEADING = re.compile(r"^\*\*(" + "|".join(PARTS) + r")\*\*:", re.MULTILINE)


def four_parts(text: str) -> dict[str, str] | str:
    """The parts of a well-formed reply, or the first reason why it is not one.

    Each heading exactly once, at the start of a line, in order, nothing but blanks before the first; at least
    three words (a word holds a letter) under each; the note says "educational".
    """
    text = text.strip()
    headings = list(HEADING.finditer(text))
    for part in PARTS:
        count = text.count(f"**{part}**:")
        if count != 1:
            return f"**{part}**: stands {count} times"
    if [heading.group(1) for heading in headings] != list(PARTS):
        return "the headings are out of order or not at the start of a line"
    if headings[0].start() != 0:
        return "text before the first heading"
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    parts = {h.group(1): text[h.end() : end].strip() for h, end in zip(headings, ends, strict=True)}
    for part, body in parts.items():
        if sum(any(map(str.isalpha, word)) for word in body.split()) < MIN_WORDS:
            return f"fewer than {MIN_WORDS} words under {part}"
    if "educational" not in parts["Note"].lower():
        return 'the note does not say "educational"'
    return parts


def render(definition: str, explanation: str, relevance: str, note: str) -> str:
    bodies = (definition, explanation, relevance, note)
    return "\n\n".join(f"**{part}**: {body}" for part, body in zip(PARTS, bodies, strict=True))


class Terms(Task):
    name = "terms"

    def read(self, text: str, example: Example) -> Answer:
        parts = four_parts(text)
        if isinstance(parts, str):
            return Answer(text="", outcome=Outcome.MALFORMED, reason=parts)
        return Answer(text=parts["Definition"], outcome=Outcome.ANSWERED)
