"""Damaged encoding: mojibake, which leaves odd letters, and the silent kind, which leaves none ("Sjgren", "doesnt")."""

import re
from collections.abc import Iterator

from ftfy.badness import BADNESS_RE

from medmind.data.quality.view import Check, Spot, View, quote, spots

CONTRACTIONS = """
aren't can't couldn't didn't doesn't don't hadn't hasn't haven't isn't mustn't needn't shouldn't wasn't weren't won't
wouldn't here's it'll that's there's they'd they'll they're they've we've what's who's you'd you'll you're you've
"""
POSSESSIVES = """
child's children's woman's women's Addison's Alzheimer's Barrett's Crohn's Cushing's Gaucher's Hashimoto's Hodgkin's
Huntington's Kaposi's Parkinson's Raynaud's Tourette's Wegener's
"""
ACCENTED = """
Alström Ångström Bárány Behçet Behçet's Björnstad Déjerine Fröhlich Grönblad Günther Hürthle Kienböck Klüver Köhler
Laënnec Löffler Löfgren Ménétrier Ménière Ménière's Möbius Müller Müllerian Röntgen Schönlein Schüller Sézary Sjögren
Sjögren's Strömme Waldenström Waldenström's
"""
PHRASES = {
    "barr": ("Guillain-Barré", re.compile(r"guillain[- ]barr\b(?!é)", re.IGNORECASE)),
    "caf": ("café au lait", re.compile(r"\bcaf[- ]au[- ]lait", re.IGNORECASE)),
}
"""Damaged words that are right elsewhere (Epstein-Barr): told by their neighbours."""
NOUN_WITH_S = re.compile(r"(?!.*(?:[cprt]h|phr|m|x|dr|t)ys$)[a-z]{2,}[bcdfghjklmnpqrstvwz]ys")
"""A noun in y with an s: "bodys". English makes it bodies; Greek words end so too (didelphys, synophrys)."""


def damaged(words: str) -> dict[str, str]:
    """What is left of each word without its accented letters and apostrophes, in lower case → the word."""
    return {
        "".join(letter for letter in word if letter.isascii() and letter != "'").lower(): word for word in words.split()
    }


LEXICON = damaged(CONTRACTIONS) | damaged(POSSESSIVES)
LEXICON |= {left: word.removesuffix("'s") for left, word in damaged(ACCENTED).items()}
"""Damaged word in lower case → what it should be."""
KEYS = frozenset(LEXICON)


def find_mojibake(view: View) -> Iterator[Spot]:
    for part, text in view.texts:
        if not text.isascii():
            yield from spots(part, text, BADNESS_RE)


def find_dropped_letters(view: View) -> Iterator[Spot]:
    """English only: elsewhere the same letters may be a word."""
    if view.example.language != "en":
        return
    for part, text, words in view.words:
        for left in KEYS.intersection(words.split()):
            yield spot(part, text, left, LEXICON[left])
        for left, (whole, pattern) in PHRASES.items():
            if f" {left} " in words and pattern.search(text):
                yield spot(part, text, left, whole)
        if "ys " in words:
            for word in {word for word in words.split() if word.endswith("ys")}:
                if NOUN_WITH_S.fullmatch(word) and word in text:
                    yield spot(part, text, word, f"{word[:-1]}'s")


def spot(part: str, text: str, left: str, whole: str) -> Spot:
    place = text.lower().find(left)
    return Spot(f"{whole}, {part}", quote(text, place, place + len(left)))


CHECKS: dict[str, Check] = {"mojibake": find_mojibake, "dropped_letters": find_dropped_letters}
