"""The one renderer: messages → token ids, loss mask and stop ids, and a reply's ids back to text.

Training, evaluation, chat and the exported templates all come from here, so they cannot drift apart.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from medmind.core.errors import DataError
from medmind.core.protocols import Tokenizer
from medmind.core.types import Message


@dataclass(frozen=True)
class Piece:
    """A stretch of a prompt: either plain text or exactly one control token, and who speaks."""

    role: str
    text: str
    control: bool = False
    supervised: bool = False


@dataclass(frozen=True)
class Rendered:
    """Token ids with, for each, its role and whether the loss sees it."""

    ids: tuple[int, ...]
    roles: tuple[str, ...]
    loss_mask: tuple[bool, ...]


class Renderer(ABC):
    """One model family's chat format over one tokenizer."""

    bos: str
    eos: str
    chat_template: str
    """The same format in Jinja, for Hugging Face checkpoints and GGUF files."""
    ollama_template: str
    """The same format as Ollama's Go template; BOS is left to the runtime."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @abstractmethod
    def pieces(self, messages: Sequence[Message]) -> list[Piece]:
        """The conversation without BOS; the last message, if the assistant's, is the supervised one."""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return (self.tokenizer.token_id(self.eos),)

    def render(self, messages: Sequence[Message]) -> Rendered:
        """Ends with the user: a prompt to be answered. Ends with the assistant: a row to be learnt."""
        return self._encode([Piece("control", self.bos, control=True), *self.pieces(join_same_role(messages))])

    def text(self, messages: Sequence[Message]) -> str:
        """The same conversation as a person reads it, control tokens by name."""
        return self.bos + "".join(piece.text for piece in self.pieces(join_same_role(messages)))

    def prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        if not messages or messages[-1].role != "user":
            raise DataError("a prompt must end with a user message")
        return self.render(messages).ids

    def passage(self, text: str) -> Rendered:
        """Plain text between BOS and EOS, every token after the first supervised."""
        body = [Piece("text", text, supervised=True), Piece("text", self.eos, control=True, supervised=True)]
        return self._encode([Piece("control", self.bos, control=True), *body])

    def read(self, ids: Sequence[int]) -> str:
        """The text of a generated reply; what follows the first stop id is not part of it."""
        ends = [place for place, token in enumerate(ids) if token in self.stop_ids]
        return self.tokenizer.decode(ids[: ends[0]] if ends else ids).strip()

    def _encode(self, pieces: Sequence[Piece]) -> Rendered:
        ids: list[int] = []
        roles: list[str] = []
        mask: list[bool] = []
        for piece in pieces:
            part = [self.tokenizer.token_id(piece.text)] if piece.control else self.tokenizer.encode(piece.text)
            ids += part
            roles += [piece.role] * len(part)
            mask += [piece.supervised] * len(part)
        return Rendered(tuple(ids), tuple(roles), tuple(mask))


def join_same_role(messages: Sequence[Message]) -> list[Message]:
    """Neighbouring messages of one role become one, a blank line between them, as every runtime does."""
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1].role == message.role:
            joined[-1] = Message(role=message.role, text=f"{joined[-1].text}\n\n{message.text}")
        else:
            joined.append(message)
    return joined
