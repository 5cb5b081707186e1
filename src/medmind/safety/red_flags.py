"""Whether a message tells of an emergency someone has now: fixed rules, no model, the same answer every time."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from medmind.safety.rules import Kind, Rules, plain, read_rules

LANGUAGES = ("en", "es", "fr", "it", "de")
END = 1 << 14
"""Characters at either end of a long message; what lies between is not read, which would take minutes."""
SENTENCE = 1000
"""Characters around a phrase that may deny it: one sentence without a dot must not cost its square."""


@dataclass(frozen=True)
class RedFlag:
    kind: Kind
    language: str
    """Of the rule that saw it: the text is shown in it."""


def find_red_flag(text: str) -> RedFlag | None:
    """The first kind, in the order of `Kind`, that a user's message tells of; None where nobody present is in need."""
    order = list(Kind)
    flags = [
        RedFlag(kind, language)
        for language in LANGUAGES
        for kind in kinds(read_rules(language), ends(plain(ends(text), language)))
    ]
    return min(flags, key=lambda flag: order.index(flag.kind), default=None)


def ends(text: str) -> str:
    return text if len(text) <= 2 * END else f"{text[:END]} . {text[-END:]}"


def kinds(rules: Rules, message: str) -> Iterator[Kind]:
    """Every kind of emergency in a message of plain words; each sentence begins after a dot, the first one too."""
    message = f" . {message}"
    if rules.exam.search(message):
        return
    if any(not denied(rules, message, match) for match in rules.wish.finditer(message)):
        yield Kind.SUICIDE
    if rules.study.search(message):
        return
    for kind, pattern in rules.said.items():
        if said(rules, message, pattern):
            yield kind
    needed = bool(rules.need.search(message))
    for kind, pattern in rules.sign.items():
        for match in pattern.finditer(message):
            if meant(rules, message, match) and (needed or rules.who.search(before(message, match).rstrip())):
                yield kind
    if rules.person.search(message):
        for kind, parts in rules.pair:
            if all(said(rules, message, part) for part in parts):
                yield kind
        alarms = list(signs(rules, message))
        if len(alarms) > 1:
            yield from alarms


def signs(rules: Rules, message: str) -> Iterator[Kind]:
    """The kinds of the lesser signs, one for each that has words of its own."""
    taken = 0
    for kind, pattern in rules.alarm:
        for match in pattern.finditer(message):
            words = (1 << match.end()) - (1 << match.start())
            if not words & taken and meant(rules, message, match):
                taken |= words
                yield kind
                break


def said(rules: Rules, message: str, pattern: re.Pattern[str]) -> bool:
    return any(meant(rules, message, match) for match in pattern.finditer(message))


def meant(rules: Rules, message: str, match: re.Match[str]) -> bool:
    """Neither denied nor long ago."""
    rest = message[match.end() : match.end() + SENTENCE].partition(" . ")[0]
    sentence = before(message, match) + match.group() + rest
    gone = rules.past.search(sentence) and not rules.present.search(sentence)
    return not gone and not denied(rules, message, match)


def denied(rules: Rules, message: str, match: re.Match[str]) -> bool:
    return bool(rules.denied.search(before(message, match).rstrip()))


def before(message: str, match: re.Match[str]) -> str:
    """The words of the same sentence that stand before."""
    return message[max(0, match.start() - SENTENCE) : match.start()].rpartition(" . ")[2]
