"""Template families: questions that are one once the name of their group is masked ("What are the symptoms of X?")."""

from medmind.core.types import Example
from medmind.data.split import normalise_name

MEMBERS = 20
"""Groups asked about in the same words make a family."""
MASK = "\N{FULL BLOCK}"


def question_text(example: Example) -> str:
    """What the user says, all turns, without case, blanks and punctuation."""
    return normalise_name(" ".join(turn.text for turn in example.turns if turn.role == "user"))


def template(question: str, group: str) -> str:
    """The normalised question with the normalised group's name masked; nothing where it does not name the group."""
    before, found, after = f" {question} ".partition(f" {group} ")
    return f"{before} {MASK} {after}".strip() if group and found else ""


def fits(question: str, of_template: str) -> bool:
    """Whether a normalised question is the template with something in the place of the mask."""
    before, _, after = of_template.partition(MASK)
    return len(question) > len(before) + len(after) and question.startswith(before) and question.endswith(after)


def names(question: str, group: str) -> bool:
    return f" {group} " in f" {question} "


class Families:
    """Counts the groups asked about by each template it watches."""

    def __init__(self) -> None:
        self._groups: dict[str, set[str]] = {}

    def watch(self, question: str, group: str) -> str:
        """The question's template, whose groups count from now on."""
        found = template(question, group)
        if found:
            self._groups.setdefault(found, set()).add(group)
        return found

    def count(self, question: str, group: str) -> None:
        groups = self._groups.get(template(question, group))
        if groups is not None and len(groups) < MEMBERS:
            groups.add(group)

    def is_family(self, of_template: str) -> bool:
        return len(self._groups.get(of_template, ())) >= MEMBERS
