"""Rows without a group may still be about one thing: the same name asked about in the words of several templates."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from medmind.core.types import Example
from medmind.data.split import normalise_name

FAMILY = 20
"""Questions that begin with the same words before those are a template."""
LONGEST = 6
"""Words of a template."""

Asked = tuple[str, ...]


def words_of(example: Example) -> Asked:
    return tuple(normalise_name(example.turns[-1].text).split()) if example.turns else ()


def shared_topics(held_out: Iterable[Example], learnt: Iterable[Example]) -> list[str]:
    """For every held-out row that asks about a thing training rows ask about too, that thing.

    A template is what at least FAMILY different questions begin with, the more words the better; the thing is the rest
    of the question, if it follows two templates.
    """
    sides = [[words_of(example) for example in held_out], [words_of(example) for example in learnt]]
    starts = Counter(
        asked[:size] for asked in {*sides[0], *sides[1]} for size in range(1, min(LONGEST + 1, len(asked)))
    )
    held, known = ([cut(asked, starts) for asked in side] for side in sides)
    templates: defaultdict[Asked, set[Asked]] = defaultdict(set)
    for template, topic in (*held, *known):
        templates[topic].add(template)
    topics = {topic for _, topic in known if topic and len(templates[topic]) > 1}
    return [" ".join(topic) for _, topic in held if topic in topics]


def cut(asked: Asked, starts: Counter[Asked]) -> tuple[Asked, Asked]:
    """The longest template a question begins with, and the rest; no template, no rest."""
    for size in range(min(LONGEST, len(asked) - 1), 0, -1):
        if starts[asked[:size]] >= FAMILY:
            return asked[:size], asked[size:]
    return asked, ()
