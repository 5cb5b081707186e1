"""One console for people (stderr) and one logger; results meant for programs go to stdout only."""

import logging
import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger("medmind")


@cache
def console() -> "Console":
    """The terminal people read; imported late, because it costs start-up time."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())


def say(text: str, style: str | None = None) -> None:
    """One line of the story a run tells; `text` is data, never markup."""
    console().print(text, style=style, markup=False)
