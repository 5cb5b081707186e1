"""What a task says: its question and its reply in words, and how a reply is read back."""

import re
from abc import ABC, abstractmethod

from medmind.core.types import Answer, Example, Message, Outcome

REFUSAL = re.compile(
    r"(?:i['’]?m|i am)?\s*(?:very |so )?sorry\b|i (?:can ?not|can['’]t|won['’]t|will not|am (?:not able|unable))\b"
    r"|i['’]m (?:not able|unable)\b|as an ai\b",
    re.IGNORECASE,
)
"""How a reply begins that refuses; no task's own form begins so."""


class Task(ABC):
    """One kind of question. Wording and parser live side by side, so they cannot disagree."""

    name: str

    def question(self, example: Example) -> str:
        """The user's last message in words, what it is about before it."""
        context = "\n".join(passage.text for passage in example.passages)
        return f"{context}\n\n{self.ask(example)}" if context else self.ask(example)

    def ask(self, example: Example) -> str:
        """The question alone."""
        return example.turns[-1].text

    def reply(self, example: Example) -> str:
        """The reply a model should learn."""
        return example.target

    @abstractmethod
    def read(self, text: str, example: Example) -> Answer:
        """The answer in a complete reply; a reply the length limit cut never gets here."""

    def messages(self, example: Example, system_prompt: str) -> list[Message]:
        """The conversation up to the question: what training, evaluation and chat all show the model."""
        system = [Message(role="system", text=system_prompt)] if system_prompt else []
        question = Message(role="user", text=self.question(example))
        return [*system, *example.turns[:-1], question]

    def learn(self, example: Example, system_prompt: str) -> list[Message]:
        """The same conversation with the reply to be learnt at its end."""
        return [*self.messages(example, system_prompt), Message(role="assistant", text=self.reply(example))]


def read_reply(task: Task, text: str, stopped: bool, example: Example) -> Answer:
    """Truncated before anything else: half an answer is no answer, however it looks."""
    if not stopped:
        return Answer(text="", outcome=Outcome.TRUNCATED, reason="the length limit came before the end")
    if not text.strip():
        return Answer(text="", outcome=Outcome.MALFORMED, reason="empty reply")
    if REFUSAL.match(text.strip()):
        return Answer(text="", outcome=Outcome.REFUSED, reason="the reply begins with a refusal")
    return task.read(text, example)
