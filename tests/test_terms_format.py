"""The strict four-part form: one table of what has it and what nearly has it."""

import pytest

from medmind.core.types import Example, Message, Outcome
from medmind.prompts.tasks.terms import Terms, four_parts, render
from medmind.prompts.wording import read_reply

D = "**Definition**: Edema is swelling caused by fluid."
E = "**Explanation**: Fluid leaks from small vessels into tissue."
C = "**Clinical Relevance**: It may point to heart failure."
N = "**Note**: This is educational information only."
GOOD = "\n\n".join((D, E, C, N))
EXAMPLE = Example(
    id="1", source="t", task="terms", turns=(Message(role="user", text="Explain the medical term: Edema"),), target=GOOD
)

TRUE = {
    "as published": GOOD,
    "single line breaks": "\n".join((D, E, C, N)),
    "windows line breaks": GOOD.replace("\n", "\r\n"),
    "body on the next line": GOOD.replace("**: ", "**:\n"),
    "no blank after the colon": GOOD.replace("**: ", "**:"),
    "blanks around it": f" {GOOD}\n\n",
    "exactly three words": "\n".join((D, "**Explanation**: Fluid leaks out.", C, N)),
    "several paragraphs": GOOD.replace("into tissue.", "into tissue.\n\nGravity adds to it.\n- legs\n- ankles"),
    "Educational with a capital": GOOD.replace("This is educational", "Educational"),
    "a part's name in a sentence": GOOD.replace("It may", "Note: it may"),
    "a heading of its own inside": GOOD.replace("into tissue.", "into tissue.\n**Causes**: heart, kidney, liver."),
    "letters with accents": GOOD.replace("Edema", "Œdème"),
    "rendered by us": render("Edema is swelling.", "Fluid leaks out.", "It may matter.", "Only educational use."),
}

MISSES = {
    "empty": "",
    "blanks": " \n ",
    "prose": "Edema is swelling caused by fluid in tissue.",
    "no Definition": "\n\n".join((E, C, N)),
    "no Explanation": "\n\n".join((D, C, N)),
    "no Clinical Relevance": "\n\n".join((D, E, N)),
    "no Note": "\n\n".join((D, E, C)),
    "only the headings": "**Definition**:\n**Explanation**:\n**Clinical Relevance**:\n**Note**:",
    "Explanation first": "\n\n".join((E, D, C, N)),
    "Note before Clinical Relevance": "\n\n".join((D, E, N, C)),
    "reversed": "\n\n".join((N, C, E, D)),
    "Definition twice": "\n\n".join((D, D, E, C, N)),
    "Note twice": f"{GOOD}\n\n{N}",
    "the whole reply twice": f"{GOOD}\n\n{GOOD}",
    "a heading again inside a line": GOOD.replace("It may", "See **Definition**: it may"),
    "a greeting before": f"Sure! Here it is:\n\n{GOOD}",
    "a title before": f"# Edema\n{GOOD}",
    "a stray mark before": f"- {GOOD}",
    "all on one line": " ".join((D, E, C, N)),
    "one heading inside a line": f"{D} {E}\n\n{C}\n\n{N}",
    "indented heading": GOOD.replace("**Explanation**", "  **Explanation**"),
    "bulleted headings": GOOD.replace("**Explanation**", "- **Explanation**"),
    "numbered headings": GOOD.replace("**Definition**", "1. **Definition**"),
    "no bold": GOOD.replace("**", ""),
    "markdown headings": GOOD.replace("**Definition**:", "## Definition"),
    "colon inside the bold": GOOD.replace("**:", ":**"),
    "no colon": GOOD.replace("**Note**:", "**Note**"),
    "blank before the colon": GOOD.replace("**Note**:", "**Note** :"),
    "one star": GOOD.replace("**Note**", "*Note*"),
    "underscores for bold": GOOD.replace("**Note**", "__Note__"),
    "blanks within the bold": GOOD.replace("**Note**", "** Note **"),
    "lower case": GOOD.replace("**Definition**", "**definition**"),
    "upper case": GOOD.replace("**Note**", "**NOTE**"),
    "plural": GOOD.replace("**Note**", "**Notes**"),
    "another name": GOOD.replace("Clinical Relevance", "Clinical Significance"),
    "a shorter name": GOOD.replace("Clinical Relevance", "Relevance"),
    "the seed's longer name": GOOD.replace("**Note**", "**Safety Note**"),
    "two blanks in the name": GOOD.replace("Clinical Relevance", "Clinical  Relevance"),
    "empty part": "\n\n".join((D, "**Explanation**:", C, N)),
    "one word": "\n\n".join((D, "**Explanation**: Fluid.", C, N)),
    "two words": "\n\n".join((D, "**Explanation**: Fluid leaks.", C, N)),
    "an apostrophe makes no word": "\n\n".join((D, "**Explanation**: It's fluid.", C, N)),
    "a hyphen makes no word": "\n\n".join((D, "**Explanation**: Long-term swelling.", C, N)),
    "digits are no words": "\n\n".join((D, "**Explanation**: 1. 2. 3.", C, N)),
    "dashes are no words": "\n\n".join((D, "**Explanation**: ___ --- ...", C, N)),
    "not educational": GOOD.replace("educational", "general"),
    "educational elsewhere": GOOD.replace("educational", "general").replace("It may", "For educational use, it may"),
    "education is not educational": GOOD.replace("educational", "education and"),
    "another language": GOOD.replace("Definition", "Definición"),
    "form feed for a line break": GOOD.replace("\n\n**Note**", "\f**Note**"),
    "line separator for a line break": GOOD.replace("\n\n**Note**", "\u2028**Note**"),
    "control token as text": f"<s>{GOOD}",
}


@pytest.mark.parametrize("text", TRUE.values(), ids=TRUE.keys())
def test_four_parts(text: str) -> None:
    found = four_parts(text)
    assert isinstance(found, dict), found
    assert list(found) == ["Definition", "Explanation", "Clinical Relevance", "Note"]
    assert read_reply(Terms(), text, True, EXAMPLE).outcome is Outcome.ANSWERED


@pytest.mark.parametrize("text", MISSES.values(), ids=MISSES.keys())
def test_near_miss(text: str) -> None:
    reason = four_parts(text)
    assert isinstance(reason, str)
    assert reason
    answer = read_reply(Terms(), text, True, EXAMPLE)
    assert (answer.outcome, answer.text) == (Outcome.MALFORMED, "")
    assert answer.reason


def test_the_table_is_as_long_as_contracts_ask() -> None:
    assert len(MISSES) >= 30
    assert not set(TRUE.values()) & set(MISSES.values())


@pytest.mark.parametrize("length", range(0, len(GOOD) + 1, 7))
def test_a_truncated_reply_is_never_well_formed(length: int) -> None:
    answer = read_reply(Terms(), GOOD[:length], False, EXAMPLE)
    assert (answer.outcome, answer.text) == (Outcome.TRUNCATED, "")


def test_a_whole_reply_at_the_length_limit_is_truncated_too() -> None:
    assert read_reply(Terms(), GOOD, False, EXAMPLE).outcome is Outcome.TRUNCATED


@pytest.mark.parametrize("length", range(7, GOOD.index("educational") + len("educational") - 1, 7))
def test_a_prefix_that_ends_by_itself_is_malformed(length: int) -> None:
    assert isinstance(four_parts(GOOD[:length]), str)


def test_the_definition_is_the_answer() -> None:
    assert read_reply(Terms(), GOOD, True, EXAMPLE).text == "Edema is swelling caused by fluid."


REFUSALS = ("I'm sorry, but I can't help with that.", "I cannot answer.", "Sorry, no.", "As an AI language model, I …")


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal_is_told_apart(text: str) -> None:
    assert read_reply(Terms(), text, True, EXAMPLE).outcome is Outcome.REFUSED


def test_a_sorry_state_is_no_refusal() -> None:
    assert read_reply(Terms(), "I canalize fluid.", True, EXAMPLE).outcome is Outcome.MALFORMED
    assert read_reply(Terms(), "Sorryness is a word.", True, EXAMPLE).outcome is Outcome.MALFORMED
