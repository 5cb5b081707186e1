"""Plain passages: nothing is asked, every token is learnt."""

from medmind.core.types import Answer, Example, Outcome
from medmind.prompts.wording import Task


class Text(Task):
    name = "text"

    def read(self, text: str, example: Example) -> Answer:
        return Answer(text=text, outcome=Outcome.ANSWERED)
