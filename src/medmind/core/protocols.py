"""The few real seams: an interface stands here only where two implementations exist."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from medmind.core.types import Completion, Message

Progress = Callable[[int, int], None]
"""Called with (done, total) while long work goes on."""


class Generator(Protocol):
    """Anything that continues token ids: transformers, llama.cpp, a fake. Ids in, ids out, never a string."""

    name: str
    """What engine this is, as scores.json names it."""
    dtype: str
    context: int
    """The most tokens a prompt and its reply may have together."""

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, progress: Progress | None = None
    ) -> list[Completion]:
        """Greedy continuations, in the order of the prompts, ended by a stop id or by the limit."""
        ...

    def log_likelihoods(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """For every (context ids, continuation ids): the natural-log probability of each continuation token."""
        ...


@runtime_checkable
class Sampler(Protocol):
    """A Generator that also answers by chance."""

    context: int

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        temperature: float,
        seeds: Sequence[int],
        progress: Progress | None = None,
    ) -> list[Completion]:
        """Drawn continuations, in the order of the prompts; each hangs on its prompt and its seed alone."""
        ...


@runtime_checkable
class Converser(Protocol):
    """A Generator that cannot be given ids: it makes its own prompt of a conversation."""

    def converse(
        self, conversations: Sequence[Sequence[Message]], max_new_tokens: int, progress: Progress | None = None
    ) -> list[Completion]:
        """Greedy replies, in the order of the conversations."""
        ...


class Tokenizer(Protocol):
    """Text to ids and back. `encode` never makes a control token: a look-alike in the text stays text."""

    vocab_size: int
    control: dict[str, int]
    """The control tokens by name."""
    blank: str
    """What its model expects before the first word of a text: SentencePiece's blank, or nothing. `encode` adds none."""

    def encode(self, text: str) -> list[int]: ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """What `encode` gives for each, on all cores."""
        ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def decode_batch(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """What `decode` gives for each, on all cores."""
        ...

    def token_id(self, name: str) -> int:
        """The id of a control token such as `[INST]`."""
        ...

    def token_text(self, token: int) -> str:
        """One token as a person reads it, control tokens included."""
        ...
