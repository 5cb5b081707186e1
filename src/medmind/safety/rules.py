"""What the red-flag rules of a language are, and how they see a message: plain words, one blank apart."""

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
GAP = r"(?: (?!(?:\.|never) )\S+){0,5}?"
"""A tilde in a rule: up to five words of the same sentence."""


class Kind(StrEnum):
    """What an emergency is about; where a message tells of several, the first of these is named."""

    SUICIDE = "suicidality or self-harm"
    POISON = "overdose or poisoning"
    ALLERGY = "anaphylaxis"
    BREATHING = "breathing difficulty"
    UNCONSCIOUS = "unconsciousness or seizure"
    CHEST = "chest pain"
    INJURY = "severe injury"
    STROKE = "stroke signs"
    BLEEDING = "severe bleeding"
    PREGNANCY = "pregnancy emergency"
    INFANT = "fever in an infant"
    MENINGITIS = "meningitis signs"


Pattern = re.Pattern[str]


@dataclass(frozen=True)
class Rules:
    """The rules of one language, as its file has them."""

    language: str
    said: dict[Kind, Pattern]
    """Phrases that tell of a present emergency by themselves."""
    sign: dict[Kind, Pattern]
    """Names of what is felt or seen: they count where someone present has it, or help is asked for."""
    pair: tuple[tuple[Kind, tuple[Pattern, ...]], ...]
    """Signs of someone present: one that is plain by itself, or several only together."""
    alarm: tuple[tuple[Kind, Pattern], ...]
    """Lesser signs: of someone present, any two of them together."""
    wish: Pattern
    """The writer wishes to die, or hurts themselves: counts whatever else the message is about."""
    who: Pattern
    """Ends what stands before a sign: someone present has it."""
    need: Pattern
    """Somewhere: the writer asks for help now."""
    person: Pattern
    """Somewhere: someone present is spoken of."""
    denied: Pattern
    """Ends what stands before a sign: there is none."""
    past: Pattern
    present: Pattern
    """Undoes `past` in the same sentence."""
    study: Pattern
    """Somewhere: a case, a text, or what to do if ever."""
    exam: Pattern
    """Somewhere: a question of an exam, in which even a wish to die is somebody else's."""


@cache
def read_rules(language: str) -> Rules:
    """A rules file: macros `NAME = pattern`, then sections `[name]` or `[name: kind]` with one pattern a line."""
    macros: dict[str, str] = {}
    sections: dict[str, list[str]] = {}
    section = ""
    for line in (FOLDER / f"{language}.rules").read_text(encoding="utf-8").splitlines():
        macro = re.fullmatch(r"([A-Z]+) = (.*)", line)
        if macro:
            macros[macro.group(1)] = fill(macro.group(2), macros)
        elif line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            sections.setdefault(section, []).append(fill(line, macros))
    pairs = [(kind, line.split(" && ")) for kind in Kind for line in sections.get(f"pair: {kind}", [])]
    alarms = [(kind, line) for kind in Kind for line in sections.get(f"alarm: {kind}", [])]
    return Rules(
        language=language,
        said=by_kind("said", sections),
        sign=by_kind("sign", sections),
        pair=tuple((kind, tuple(map(phrase, parts))) for kind, parts in pairs),
        alarm=tuple((kind, phrase(line)) for kind, line in alarms),
        wish=phrase(*sections["wish"]),
        who=phrase(*sections["who"]),
        need=phrase(*sections["need"]),
        person=phrase(*sections["person"]),
        denied=phrase(*sections["denied"]),
        past=phrase(*sections["past"]),
        present=phrase(*sections["present"]),
        study=phrase(*sections["study"]),
        exam=phrase(*sections["exam"]),
    )


def by_kind(part: str, sections: dict[str, list[str]]) -> dict[Kind, Pattern]:
    return {kind: phrase(*sections[name]) for kind in Kind if (name := f"{part}: {kind}") in sections}


def fill(pattern: str, macros: dict[str, str]) -> str:
    return re.sub(r"\{([A-Z]+)\}", lambda name: macros[name.group(1)], pattern)


def phrase(*lines: str) -> Pattern:
    """Any of the lines, as whole words."""
    whole = "|".join(line.replace(" ~ ", f"{GAP} ") for line in lines)
    return re.compile(rf"(?<!\S)(?:{whole})(?!\S)")


SHORT = {
    "im": "i am", "ive": "i have", "id": "i would", "hes": "he is", "shes": "she is", "theyre": "they are",
    "theyve": "they have", "weve": "we have", "thats": "that is", "whats": "what is", "theres": "there is",
    "its": "it is", "cant": "cannot", "wont": "will not", "wanna": "want to", "gonna": "going to",
    "pls": "please", "plz": "please", "anymore": "any more",
} | {
    f"{verb}nt": f"{verb} not"
    for verb in ("is", "are", "was", "do", "does", "did", "could", "have", "has", "had", "would", "should")
}  # fmt: skip
"""English as it is typed, with or without apostrophes."""


def plain(text: str, language: str) -> str:
    """Lower case, without accents or punctuation but "." between sentences; within numbers "·"."""
    folded = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(char for char in folded if not unicodedata.combining(char))
    bare = re.sub(r"(?<=\d)[.,](?=\d)", "·", re.sub(r"[’‘`´ʼ]", "'", bare))
    bare = re.sub(r"[^\w.'·]+", " ", re.sub(r"[.!?;\n…]+", " . ", bare)).replace("_", " ")
    if language == "en":
        bare = re.sub(r"\bcan not\b", "cannot", bare)
        bare = " ".join(SHORT.get(word.replace("'", ""), word) for word in bare.split())
    return " ".join(bare.replace("'", " ").split())
