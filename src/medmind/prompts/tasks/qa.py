"""A free question with a free answer: the whole reply is the answer."""

from medmind.core.types import Answer, Example, Outcome
from medmind.prompts.wording import Task


class QuestionAnswer(Task):
    name = "qa"

    def read(self, text: str, example: Example) -> Answer:
        return Answer(text=text.strip(), outcome=Outcome.ANSWERED)
