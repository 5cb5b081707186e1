"""A generator that says what it is told: tests of every stage above run without a model."""

from collections.abc import Callable, Sequence

from medmind.core.protocols import Progress, Tokenizer
from medmind.core.types import Completion


class FakeGenerator:
    """`write` gives the reply to a prompt's text; `logprob` is the log-likelihood of every token."""

    name = "fake"
    dtype = "float32"

    def __init__(
        self, tokenizer: Tokenizer, write: Callable[[str], str], *, logprob: float = -1.0, context: int = 4096
    ) -> None:
        self._tokenizer = tokenizer
        self._write = write
        self._logprob = logprob
        self.context = context
        self.asked: list[str] = []

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, progress: Progress | None = None
    ) -> list[Completion]:
        completions = []
        for done, prompt in enumerate(prompts, start=1):
            self.asked.append(self._tokenizer.decode(prompt))
            ids = self._tokenizer.encode(self._write(self.asked[-1]))
            limit = min(max_new_tokens, self.context - len(prompt))
            text = self._tokenizer.decode(ids[:limit])
            completions.append(Completion(text=text, ids=tuple(ids[:limit]), stopped=len(ids) < limit))
            if progress:
                progress(done, len(prompts))
        return completions

    def log_likelihoods(self, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        return [[self._logprob] * len(continuation) for _, continuation in rows]
