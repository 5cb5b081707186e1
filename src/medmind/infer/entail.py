"""How likely one text follows from another, by a sequence classifier of the user's own (natural language inference)."""

from collections.abc import Sequence
from typing import Any

import torch

from medmind.core.errors import UsageError
from medmind.core.log import say
from medmind.core.protocols import Progress
from medmind.models.load import load_classifier

YES = ("entailment", "supported", "consistent")
"""What such models call the class that means: it follows."""
IDS = 4096
"""Ids read at once, padding included."""
USUAL_LIMIT = 512
"""Of a model whose configuration names none."""


class Entailer:
    """Called with (premise, hypothesis) pairs; the chance that each hypothesis follows, in their order."""

    def __init__(self, model: Any, tokenizer: Any, where: str) -> None:
        self._model, self._tokenizer = model.train(False), tokenizer
        self._yes = place_of_yes(model.config, where)
        self._longest = most_tokens(model, tokenizer)

    @torch.inference_mode()
    def __call__(self, pairs: Sequence[tuple[str, str]], progress: Progress | None = None) -> list[float]:
        """The longest first; of a pair that is too long the longer text loses its end, and it is said how often."""
        rows = [self._tokenizer(*pair)["input_ids"] for pair in pairs]
        cut = sum(len(ids) > self._longest for ids in rows)
        if cut:
            say(f"{cut} of {len(pairs)} texts exceed the support model's {self._longest} tokens: cut at the end")
        order = sorted(range(len(pairs)), key=lambda place: -len(rows[place]))
        found: dict[int, float] = {}
        while len(found) < len(order):
            width = min(len(rows[order[len(found)]]), self._longest)
            places = order[len(found) : len(found) + max(1, IDS // width)]
            found |= dict(zip(places, self._chances([pairs[place] for place in places]), strict=True))
            if progress:
                progress(len(found), len(pairs))
        return [found[place] for place in range(len(pairs))]

    def _chances(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        premises, hypotheses = (list(side) for side in zip(*pairs, strict=True))
        read = self._tokenizer(
            premises,
            hypotheses,
            padding=True,
            truncation="longest_first",
            max_length=self._longest,
            return_tensors="pt",
        ).to(self._model.device)
        logits = self._model(**read).logits.float()
        shares = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)
        found: list[float] = shares[:, self._yes].tolist()
        return found


def most_tokens(model: Any, tokenizer: Any) -> int:
    """Of a premise and a hypothesis together; models of RoBERTa's kind count positions from behind their padding's."""
    places = getattr(model.config, "max_position_embeddings", None)
    if not places:
        return min(int(tokenizer.model_max_length), USUAL_LIMIT)
    skipped = getattr(getattr(model.base_model, "embeddings", None), "padding_idx", None)
    return min(int(tokenizer.model_max_length), int(places) - (0 if skipped is None else int(skipped) + 1))


def place_of_yes(config: Any, where: str) -> int:
    """A single output is the chance itself."""
    names = {int(place): str(name).lower() for place, name in config.id2label.items()}
    found = [place for place, name in names.items() if name in YES]
    if len(names) == 1:
        return 0
    if len(found) != 1:
        said = f"none of its classes is called {' or '.join(YES)}: {', '.join(names.values())}"
        raise UsageError(said, where=where, todo="name a model trained on natural language inference")
    return found[0]


def open_entailer(source: str) -> Entailer:
    model, tokenizer = load_classifier(source)
    return Entailer(model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer, source)
