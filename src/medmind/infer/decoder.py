"""The seam below a server: several texts grow at once, each in a slot of its own, and any may begin or leave meanwhile.

A Generator does a whole batch and returns; a Decoder does one step for everyone underway and hands the tokens out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from medmind.core.types import Message

End = Literal["stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """How the next token is picked. Temperature 0 is greedy, and then only the penalties still count."""

    temperature: float = 0.0
    top_k: int = 0
    """0: all."""
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_last_n: int = 64
    """How many tokens back the penalties look, the prompt's among them."""
    seed: int | None = None
    """None: another one each time."""

    @property
    def penalises(self) -> bool:
        return self.repeat_penalty != 1 or bool(self.frequency_penalty or self.presence_penalty)


@dataclass(frozen=True)
class Work:
    """One text to be continued."""

    prompt: tuple[int, ...]
    max_new_tokens: int
    stop_ids: frozenset[int] = frozenset()
    sampling: Sampling = Sampling()
    top_logprobs: int | None = None
    """None: no log-probabilities; 0: of each token its own alone."""
    echo: bool = False
    """Whether the prompt's own tokens are judged too."""
    voice: str = ""
    """Which of the models that share these weights speaks: "" is the first."""
    messages: tuple[Message, ...] = ()
    """The conversation the prompt was made of, for engines that make it themselves; none of a plain text."""


@dataclass(frozen=True)
class Judged:
    """A token and, where asked, the natural log of its probability and of the most probable ones', best first.

    Of the raw logits: no temperature, no penalty. The first token of a prompt has none.
    """

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass
class Step:
    """What one step brought one slot: tokens of the prompt that were read, then at most one new token.

    An engine that is told no tokens gives `text`, and says itself how it ended, or that it came to nothing.
    """

    slot: int
    read: list[Judged] = field(default_factory=list)
    new: Judged | None = None
    text: str = ""
    end: End | None = None
    fault: str = ""


class Decoder(Protocol):
    """Used by one thread only, the one that made it."""

    name: str
    version: str
    """Of what computes; "" where that is not known."""
    dtype: str
    context: int
    """The most tokens of one conversation: its prompt and its reply."""
    slots: int
    can_embed: bool
    can_judge: bool
    """Whether tokens, of prompt or reply, come with their log-probabilities."""
    takes_ids: bool
    """False: it makes its own prompt of `Work.messages`, and knows no plain text."""

    def begin(self, slot: int, work: Work) -> None:
        """Lays the work into an empty slot; its prompt is read by the steps that follow."""
        ...

    def step(self) -> list[Step]:
        """One pass over a bounded number of tokens; nothing to do is an empty list."""
        ...

    def drop(self, slot: int) -> None:
        """Empties a slot, finished or not."""
        ...

    def embed(self, ids: Sequence[int], voice: str = "") -> list[float]:
        """The text's place in the model's own space, of length 1."""
        ...


def end_of(work: Work, written: int, step: Step) -> End | None:
    """What the engine says itself, or what its new token means, the `written`th of this text."""
    if step.new is None:
        return step.end
    if step.new.token in work.stop_ids:
        return "stop"
    return "length" if written >= work.max_new_tokens else None


def write_alone(decoder: Decoder, work: Work) -> Iterator[Step]:
    """One text in an engine that has no other, until its end; whoever stops listening frees the slot."""
    written = 0
    try:
        decoder.begin(0, work)
        while True:
            for step in decoder.step():
                written += step.new is not None
                step.end = end_of(work, written, step)
                yield step
                if step.end or step.fault:
                    return
    finally:
        decoder.drop(0)


def judge(logits: np.ndarray, token: int, top: int) -> Judged:
    """Log-softmax in float64 of one row of logits; `top` of the others beside the token's own."""
    raw = logits.astype(np.float64)
    peak = raw.max()
    logprobs = raw - (peak + np.log(np.exp(raw - peak).sum()))
    best = np.argpartition(-logprobs, top - 1)[:top] if top else np.empty(0, dtype=int)
    ranked = sorted(((int(one), float(logprobs[one])) for one in best), key=lambda pair: (-pair[1], pair[0]))
    return Judged(token, float(logprobs[token]), tuple(ranked))
