"""The gate of an export: what people will run says the same as what was trained, greedily and to the end.

A first difference is a tie when the reference itself hardly preferred its own token, else it is wrong.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from medmind.core.protocols import Generator, Progress
from medmind.core.types import Message, Record
from medmind.infer.llamacpp import LlamaCppGenerator
from medmind.models.load import load_tokenizer
from medmind.prompts.chat import Renderer

TIE_NATS = 0.02


class Agreement(StrEnum):
    EQUAL = "equal"
    TIE = "tie_diverged"
    WRONG = "wrong"


class PromptParity(Record):
    """One prompt: where the replies first differ, and by how many nats the reference preferred its own token."""

    id: str
    outcome: Agreement
    position: int | None = None
    margin: float | None = None


class Parity(Record):
    reference: str
    reference_dtype: str
    candidate: str
    candidate_dtype: str
    bound: float
    n: int
    equal: int
    tie_diverged: int
    wrong: int
    prompts: tuple[PromptParity, ...]

    @property
    def passed(self) -> bool:
        return self.wrong == 0 and self.n > 0

    def __str__(self) -> str:
        return f"{self.equal} equal, {self.tie_diverged} tie-diverged, {self.wrong} wrong"


class TokenParity(Record):
    """Prompt ids made three ways. A look-alike names a control token in its text: templates read it, we do not."""

    n: int
    equal: int
    look_alike: int
    wrong: int
    wrong_ids: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return self.wrong == 0


Replies = dict[str, tuple[int, ...]]
"""Prompt id → the ids of the reply, the stop id among them if it ended by itself."""


def write_out(
    generator: Generator,
    prompts: Mapping[str, Sequence[int]],
    max_new_tokens: int,
    progress: Progress | None = None,
) -> Replies:
    replies = generator.generate(list(prompts.values()), max_new_tokens, progress)
    return {
        name: reply.ids if reply.stop_id is None else (*reply.ids, reply.stop_id)
        for name, reply in zip(prompts, replies, strict=True)
    }


def compare(
    reference: Generator,
    expected: Replies,
    candidate: Generator,
    got: Replies,
    prompts: Mapping[str, Sequence[int]],
) -> Parity:
    """Judges two sets of replies; the margins come from the reference."""
    places = {name: first_difference(expected[name], got[name]) for name in prompts}
    margins = measure_margins(reference, expected, got, prompts, places)
    rows = []
    for name, place in places.items():
        margin = margins.get(name)
        tie = margin is not None and margin < TIE_NATS
        outcome = Agreement.EQUAL if place is None else Agreement.TIE if tie else Agreement.WRONG
        rows.append(PromptParity(id=name, outcome=outcome, position=place, margin=margin))
    counts = Counter(row.outcome for row in rows)
    return Parity(
        reference=reference.name,
        reference_dtype=reference.dtype,
        candidate=candidate.name,
        candidate_dtype=candidate.dtype,
        bound=TIE_NATS,
        n=len(rows),
        equal=counts[Agreement.EQUAL],
        tie_diverged=counts[Agreement.TIE],
        wrong=counts[Agreement.WRONG],
        prompts=tuple(rows),
    )


def first_difference(expected: Sequence[int], got: Sequence[int]) -> int | None:
    for place, (one, other) in enumerate(zip(expected, got, strict=False)):
        if one != other:
            return place
    return None if len(expected) == len(got) else min(len(expected), len(got))


def measure_margins(
    reference: Generator,
    expected: Replies,
    got: Replies,
    prompts: Mapping[str, Sequence[int]],
    places: Mapping[str, int | None],
) -> dict[str, float]:
    """The reference's log-likelihood of its own token less that of the candidate's, where they first differ.

    A reply that merely ends early has no token there and so no margin: it is wrong.
    """
    rows: dict[str, list[tuple[list[int], list[int]]]] = {}
    for name, place in places.items():
        if place is not None and place < min(len(expected[name]), len(got[name])):
            context = [*prompts[name], *expected[name][:place]]
            rows[name] = [(context, [expected[name][place]]), (context, [got[name][place]])]
    values = iter(reference.log_likelihoods([row for pair in rows.values() for row in pair]) if rows else [])
    return {name: next(values)[0] - next(values)[0] for name in rows}


def check_tokens(
    conversations: Mapping[str, Sequence[Message]], renderer: Renderer, merged: Path, candidate: LlamaCppGenerator
) -> TokenParity:
    """Prompt ids of the renderer, of transformers with the checkpoint's template, of llama.cpp with the GGUF's."""
    tokenizer = load_tokenizer(merged)
    control = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    look_alike, wrong = 0, []
    for name, messages in conversations.items():
        if any(text in message.text for message in messages for text in control):
            look_alike += 1
            continue
        chat = [{"role": message.role, "content": message.text} for message in messages]
        ours = list(renderer.prompt(messages))
        theirs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        text = tokenizer.apply_chat_template(
            chat, chat_template=candidate.chat_template, add_generation_prompt=True, tokenize=False
        )
        without_bos = text.removeprefix(renderer.bos) if renderer.adds_bos else text
        if not ours == theirs == candidate.encode_template(without_bos):
            wrong.append(name)
    return TokenParity(
        n=len(conversations),
        equal=len(conversations) - look_alike - len(wrong),
        look_alike=look_alike,
        wrong=len(wrong),
        wrong_ids=tuple(wrong),
    )
