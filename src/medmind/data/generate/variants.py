"""The packaged training facts asked and answered in other words: every sentence stays one that was checked."""

import random
import re
from collections.abc import Iterator
from typing import Any

from medmind.core.errors import UsageError
from medmind.core.jsonl import read_jsonl
from medmind.data.sources.facts import WORDING, fact_files
from medmind.data.sources.seam import make_id
from medmind.data.split import normalise_name
from medmind.prompts.tasks.terms import render
from medmind.safety.texts import NOTE

SAFETY_NOTE = "Educational content only - not for diagnosis or treatment"
"""As the published set says it in every row."""
OTHER_WORDINGS = {
    "medical_terminology": (
        "What does the medical term {} mean?",
        "Define {}.",
        "What is meant by {} in medicine?",
        "Give the medical meaning of {}.",
    ),
    "abbreviations": (
        "What does the medical abbreviation {} stand for?",
        "What does {} mean in medicine?",
        "Define the medical abbreviation {}.",
        "What is meant by {} in a medical record?",
    ),
    "disease_mechanisms": (
        "Explain the mechanism of {}.",
        "What goes wrong in {}?",
        "What happens in the body in {}?",
        "Describe the disease process behind {}.",
    ),
    "anatomy_physiology": (
        "Describe the anatomy of {}.",
        "Explain the structure and function of {}.",
        "What should one know about {}?",
        "Give an overview of {}.",
    ),
    "diagnostic_tests": (
        "Describe the diagnostic test {}.",
        "What is the purpose of {}?",
        "What can be learned from {}?",
        "Define the diagnostic test {}.",
    ),
}
REFERS = re.compile(
    r"^(?:It|Its|They|Their|The|A|An|Both|One|Each|Some|Other|Another|Then|Such|For example)\b"
    r"|\b(?:this|these|those|it|its|they|their|them|also|more|then|instead|however)\b",
    re.IGNORECASE,
)
LOOKS_BACK = re.compile(r"^(?:it|its|they|their)\b|\b(?:this|these|those|such)\b", re.IGNORECASE)
CAVEAT = re.compile(r"\b(?:but|not|no|only|never|cannot)\b", re.IGNORECASE)
FEWEST_TO_DROP = 3
"""An explanation of fewer sentences stays whole."""

Fact = dict[str, Any]


def grow(count: int, seed: int) -> list[dict[str, str]]:
    """`count` different rows about the training terms, as evenly as it goes; each term's own row comes first."""
    facts = [fact for fact in read_all() if fact["split"] == "train"]
    chance = random.Random(seed)
    queues = [list(pairs(fact, chance)) for fact in facts]
    most = sum(map(len, queues))
    if not 1 <= count <= most:
        raise UsageError(f"--count {count} cannot be made", todo=f"choose 1 to {most}")
    chosen: list[tuple[int, int]] = []
    for turn in range(max(map(len, queues))):
        open_facts = [index for index, queue in enumerate(queues) if turn < len(queue)]
        chance.shuffle(open_facts)
        chosen += [(index, turn) for index in open_facts]
    return [as_row(facts[index], *queues[index][turn]) for index, turn in sorted(chosen[:count])]


def read_all() -> Iterator[Fact]:
    """The facts of both splits, in the order of their files."""
    for path in fact_files():
        yield from read_jsonl(path)


def pairs(fact: Fact, chance: random.Random) -> Iterator[tuple[str, str]]:
    """Every (instruction, output) of a fact: the packaged one, then each wording once before any comes again."""
    asked, told = instructions(fact), outputs(fact)
    own = (asked[0], told[0])
    yield own
    chance.shuffle(asked)
    chance.shuffle(told)
    turn = told.index(own[1]) - asked.index(own[0])  # so that the first round holds the fact's own pair
    for shift in range(turn, turn + len(told)):
        for index, instruction in enumerate(asked):
            pair = (instruction, told[(index + shift) % len(told)])
            if pair != own:
                yield pair


def instructions(fact: Fact) -> list[str]:
    """The published wording first; an article within a sentence is small."""
    term, category = str(fact["term"]), str(fact["category"])
    within = re.sub(r"^The ", "the ", term)
    return [f"{WORDING[category]}{term}", *(wording.format(within) for wording in OTHER_WORDINGS[category])]


def outputs(fact: Fact) -> list[str]:
    """The packaged answer first; then without the last sentence of the explanation, and the relevance turned round,
    each only where no other sentence leans on it.
    """
    whole, told = list(fact["explanation"]), list(fact["relevance"])
    explanations = [whole, whole[:-1]] if can_drop_last(fact) else [whole]
    relevances = [told, told[::-1]] if can_turn_round(fact) else [told]
    return [
        render(fact["definition"], " ".join(explanation), " ".join(relevance), NOTE)
        for explanation in explanations
        for relevance in relevances
    ]


def can_drop_last(fact: Fact) -> bool:
    """Whether the explanation's last sentence is an extra: no caveat, not about the term itself (it may be half of a
    contrast), not told in the same breath as the one before, and nothing later takes it up.
    """
    explanation, relevance = fact["explanation"], fact["relevance"]
    if len(explanation) < FEWEST_TO_DROP:
        return False
    last, before = explanation[-1], explanation[-2]
    if CAVEAT.search(last) or names(last, fact["term"]) or last.split()[:2] == before.split()[:2]:
        return False
    if any(map(LOOKS_BACK.search, relevance[:1])):
        return False
    told = set(normalise_name(" ".join([fact["definition"], *explanation[:-1]])).split())
    new = set(normalise_name(last).split()) - told
    return not new & set(re.findall(r"\bthe (\w+)", " ".join(relevance).casefold()))


def can_turn_round(fact: Fact) -> bool:
    """Whether both sentences of the relevance stand alone: neither points elsewhere, the second names the term."""
    relevance = fact["relevance"]
    if len(relevance) != 2 or any(map(REFERS.search, relevance)):
        return False
    return names(relevance[1], fact["term"])


def names(sentence: str, term: str) -> bool:
    """Whether the sentence holds the term, article and plural apart, as whole words."""
    name = re.sub(r"^the ", "", normalise_name(term))
    return bool(re.search(rf"\b{re.escape(name)}s?\b", normalise_name(sentence)))


def as_row(fact: Fact, instruction: str, output: str) -> dict[str, str]:
    return make_row(instruction, output, fact["category"], fact["term"], fact=fact["id"])


def make_row(
    instruction: str, output: str, category: str, term: str, *, fact: str = "", model: str = ""
) -> dict[str, str]:
    """A row in the published schema, with where it comes from: the fact it tells or the model that wrote it."""
    return {
        "instruction": instruction,
        "input": "",
        "output": output,
        "category": category,
        "safety_note": SAFETY_NOTE,
        "id": make_id("four_part", instruction, output),
        "term": term,
        "fact": fact,
        "model": model,
    }
