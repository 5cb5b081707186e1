"""The seam for what no rule can see, names and places: a named-entity model, kept behind `medmind[ner]`."""

import re
from collections.abc import Collection
from typing import Protocol

from medmind.core.errors import EnvironmentFault
from medmind.privacy.spans import BY_NER, Category, Span

EPONYM = re.compile(
    r"(?:['’]s?|-[A-Z][\wé]+)?\s+(?:disease|syndrome|sign|test|palsy|lymphoma|score|scale|criteria|procedure|manoeuvre|maneuver"
    r"|catheter|thyroiditis|curves?|regression|spots|body|bodies|classification|fracture|phenomenon|reflex|method|stain)\b"
)
"""What follows a name that has become a word of medicine."""
MODEL = "en_core_web_lg"
LABELS = {"PERSON": Category.NAME, "GPE": Category.PLACE, "LOC": Category.PLACE, "FAC": Category.PLACE}


class Ner(Protocol):
    """Finds names and places; offsets are those of the text."""

    def find(self, text: str) -> list[Span]: ...


class Spacy:
    """spaCy's English model. It is loaded, never fetched."""

    def __init__(self) -> None:
        try:
            import spacy

            self._model = spacy.load(MODEL)
        except (ImportError, OSError) as error:
            raise EnvironmentFault(
                f"names and places cannot be seen, for the named-entity model is missing: {str(error).splitlines()[0]}",
                todo=f"pip install 'medmind[ner]' and python -m spacy download {MODEL}, or shorten data.phi.require",
            ) from None

    def find(self, text: str) -> list[Span]:
        found = [(entity.start_char, entity.end_char, LABELS.get(entity.label_)) for entity in self._model(text).ents]
        return drop_eponyms(text, [Span(start, end, category) for start, end, category in found if category])


def drop_eponyms(text: str, spans: Collection[Span]) -> list[Span]:
    return [span for span in spans if span.category != Category.NAME or not EPONYM.match(text, span.end)]


def open_ner(required: Collection[Category]) -> Ner | None:
    """The model, if what is required needs one; without it the answer is an error, never a screen that sees less."""
    return Spacy() if set(required) & set(BY_NER) else None
