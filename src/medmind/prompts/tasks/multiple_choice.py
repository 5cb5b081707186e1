"""An exam question with lettered options, answered by the letter: `B. <option>`, then why."""

import re

from medmind.core.types import Answer, Example, Outcome
from medmind.prompts.wording import Task

LETTERS = tuple("ABCDEFGHIJ")
ASK = {
    "en": "Answer with the {} of the right option.",
    "es": "Responde con {} de la opción correcta.",
    "fr": "Réponds par {} de la bonne réponse.",
    "it": "Rispondi con {} dell'opzione corretta.",
}
SIGN = {
    "en": ("letter", "number"),
    "es": ("la letra", "el número"),
    "fr": ("la lettre", "le numéro"),
    "it": ("la lettera", "il numero"),
}


def labels(example: Example) -> tuple[str, ...]:
    """What the options are called: letters, unless the source has its own (explanations refer to them)."""
    own = example.metadata.get("labels")
    return tuple(map(str, own)) if own else LETTERS[: len(example.options)]


class MultipleChoice(Task):
    name = "multiple_choice"

    def ask(self, example: Example) -> str:
        shown = "\n".join(f"{label}. {text}" for label, text in zip(labels(example), example.options, strict=True))
        language = example.language if example.language in ASK else "en"
        sign = SIGN[language][labels(example)[0].isdigit()]
        return f"{example.turns[-1].text}\n\n{shown}\n\n{ASK[language].format(sign)}"

    def reply(self, example: Example) -> str:
        text = example.options[labels(example).index(example.target)]
        why = f"\n\n{example.reasoning}" if example.reasoning else ""
        return f"{example.target}. {text}{why}"

    def read(self, text: str, example: Example) -> Answer:
        """The label must stand first, alone or in brackets, and a mark or the end must follow it."""
        first = re.match(r"\(?(\w+)\)?\s*(?:[.,:;)]|$)", text.strip())
        label = first.group(1).upper() if first else ""
        if label in labels(example):
            return Answer(text=label, outcome=Outcome.ANSWERED)
        return Answer(text="", outcome=Outcome.MALFORMED, reason="the reply does not begin with an option's label")
