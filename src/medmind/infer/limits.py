"""What fits a model's context: one rule and one wording for every engine."""

from collections.abc import Sequence

from medmind.core.errors import DataError

PROBE = "Chest pain, 38.5 °C (naïve): β-blocker 20 mg?\n"
"""A text that tells tokenizers apart."""


def reply_limit(context: int, prompt: Sequence[int], max_new_tokens: int) -> int:
    """How many tokens this reply may have: the context is never exceeded."""
    room = context - len(prompt)
    if not prompt or room < 1:
        what = "an empty prompt" if not prompt else f"a prompt of {len(prompt)} tokens leaves no room for a reply"
        raise DataError(what, where=f"the model's context is {context} tokens", todo="shorten the prompt")
    return min(max_new_tokens, room)


def check_rows(context: int, rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> None:
    """Refuses a row whose log-likelihood cannot be had: its last token is judged and never read."""
    for before, continuation in rows:
        if not before or not continuation:
            raise DataError("a log-likelihood needs at least one token of context and one of continuation")
        if len(before) + len(continuation) > context + 1:
            what = f"a row of {len(before)} + {len(continuation)} tokens does not fit"
            raise DataError(what, where=f"the model's context is {context} tokens", todo="shorten the row")
