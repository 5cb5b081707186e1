"""Answers nobody can learn from: empty or too short ones, explanations that name the letter, options that are equal."""

import re
from collections import Counter
from collections.abc import Iterator

from medmind.data.quality.view import Check, Spot, View, quote
from medmind.data.split import normalise_name

SHORT = 40
"""Characters below which a reply in words is hardly one."""
IN_WORDS = ("qa", "reasoned", "terms")
"""Tasks whose answer is a text of its own, not a label or a letter."""
REVEALS = re.compile(
    r"\W*(?P<word>ans)|\W*(?:the\s+)?(?:(?:correct|right|best)\s+)?(?:answer|option|choice|key)\b\W*(?:is\b\W*)?[a-e1-5]\b",
    re.IGNORECASE,
)
OPTIONED = ("choice", "multiple_choice")


def find_empty_questions(view: View) -> Iterator[Spot]:
    if view.example.task != "text" and not view.question.strip():
        yield Spot("question", quote(view.answer, 0, 0))


def find_empty_answers(view: View) -> Iterator[Spot]:
    if not view.answer.strip():
        yield Spot("answer", quote(view.question, 0, 0))


def find_short_answers(view: View) -> Iterator[Spot]:
    if view.example.task in IN_WORDS and 0 < len(view.answer.strip()) < SHORT:
        yield Spot("answer", quote(view.answer, 0, SHORT))


def find_revealing(view: View) -> Iterator[Spot]:
    if view.example.task in OPTIONED and (match := REVEALS.match(view.example.reasoning)):
        yield Spot('begins with "Ans"' if match["word"] else "names the answer", quote(match.string, *match.span()))


def find_missing_explanations(view: View) -> Iterator[Spot]:
    if view.example.task in OPTIONED and not view.example.reasoning.strip():
        yield Spot("explanation", quote(view.question, 0, SHORT))


def find_equal_options(view: View) -> Iterator[Spot]:
    options = [" ".join(option.split()).casefold() for option in view.example.options]
    if twice := repeated(options):
        yield Spot("the same", twice)
    elif twice := repeated([normalise_name(option) for option in options]):
        same = [option for option in options if normalise_name(option) == twice]
        yield Spot("but for signs", " | ".join(same))


def repeated(options: list[str]) -> str:
    return next((option for option, count in Counter(options).items() if count > 1), "")


CHECKS: dict[str, Check] = {
    "empty_questions": find_empty_questions,
    "empty_answers": find_empty_answers,
    "short_answers": find_short_answers,
    "revealing_explanations": find_revealing,
    "missing_explanations": find_missing_explanations,
    "equal_options": find_equal_options,
}
