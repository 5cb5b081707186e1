"""A question with named options, answered `<decision>. <why>`: PubMedQA's yes, no and maybe."""

import re

from medmind.core.types import Answer, Example, Outcome
from medmind.prompts.wording import Task


class Choice(Task):
    name = "choice"

    def ask(self, example: Example) -> str:
        return f"{example.turns[-1].text}\nAnswer {', '.join(example.options[:-1])} or {example.options[-1]}."

    def reply(self, example: Example) -> str:
        decision = example.target.capitalize()
        return f"{decision}. {example.reasoning}" if example.reasoning else f"{decision}."

    def read(self, text: str, example: Example) -> Answer:
        """The first word must be an option, and a full stop, comma or the end must follow it."""
        first = re.match(r"(\w+)\s*(?:[.,:;!]|$)", text.strip())
        word = first.group(1).lower() if first else ""
        if word in example.options:
            return Answer(text=word, outcome=Outcome.ANSWERED)
        return Answer(text="", outcome=Outcome.MALFORMED, reason="the reply does not begin with one of the options")
