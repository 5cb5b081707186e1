"""What the tests of the chat share: a model that says what it is told."""

from collections.abc import Callable

from medmind.infer.decode_fake import FakeDecoder
from medmind.prompts.chat import Renderer


class FakeModel(FakeDecoder):
    """`write` gives the reply to a prompt's text."""

    def __init__(self, renderer: Renderer, write: Callable[[str], str], *, context: int = 4096) -> None:
        super().__init__(renderer.tokenizer, write, renderer.stop_ids[0], slots=1, context=context)
        self._renderer = renderer

    @property
    def heard(self) -> list[str]:
        return [self._renderer.tokenizer.decode(ids) for ids in self.asked]
