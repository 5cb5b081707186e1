"""A question answered with the reasoning before the answer, between the markers HuatuoGPT-o1 was trained with."""

from medmind.core.types import Answer, Example, Outcome
from medmind.prompts.wording import Task

THINKING = "## Thinking"
RESPONSE = "## Final Response"


class Reasoned(Task):
    name = "reasoned"

    def reply(self, example: Example) -> str:
        return f"{THINKING}\n\n{example.reasoning}\n\n{RESPONSE}\n\n{example.target}"

    def read(self, text: str, example: Example) -> Answer:
        """The answer is what follows the last marker; both markers must stand, each at the start of a line."""
        lines = text.strip().split("\n")
        marks = [line.strip() for line in lines]
        if marks[0] != THINKING or RESPONSE not in marks:
            reason = f'the reply lacks the line "{THINKING}" at its start or "{RESPONSE}"'
            return Answer(text="", outcome=Outcome.MALFORMED, reason=reason)
        place = len(marks) - 1 - marks[::-1].index(RESPONSE)
        answer = "\n".join(lines[place + 1 :]).strip()
        if not answer:
            return Answer(text="", outcome=Outcome.MALFORMED, reason=f'nothing follows "{RESPONSE}"')
        return Answer(text=answer, outcome=Outcome.ANSWERED)
