"""How a reply looks: Markdown that grows on a terminal, plain text in a pipe; no reply steers a terminal."""

import re
import sys
from collections.abc import Iterator

from medmind.core.log import say

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All but tab and line feed."""


def tell(text: str, style: str | None = "dim") -> None:
    """What the chat itself says; names and prompts of a loaded file steer no terminal either."""
    say(CONTROL.sub("", text), style=style)


class Screen:
    """`label` says who speaks, where that is not clear."""

    def __init__(self, markdown: bool) -> None:
        self._markdown = markdown

    def show(self, label: str, pieces: Iterator[str]) -> None:
        if self._markdown:
            self._show_markdown(label, pieces)
        else:
            print(f"{label}: " if label else "", end="", flush=True)
            try:
                for piece in pieces:
                    print(CONTROL.sub("", piece), end="", flush=True)
            finally:
                print(flush=True)

    def _show_markdown(self, label: str, pieces: Iterator[str]) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.markdown import Markdown

        console, text = Console(file=sys.stdout, highlight=False), ""
        if label:
            console.print(f"{label}:", style="bold", markup=False)
        with Live(console=console, refresh_per_second=8, vertical_overflow="visible") as live:
            for piece in pieces:
                text += CONTROL.sub("", piece)
                live.update(Markdown(text))
