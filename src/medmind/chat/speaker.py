"""One model and its own side of a conversation: what it has heard, what still fits, and its reply as it comes."""

from bisect import bisect_left
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from medmind.core.errors import EnvironmentFault
from medmind.core.log import say
from medmind.core.types import Message
from medmind.infer.decoder import Decoder, Work, write_alone
from medmind.infer.limits import reply_limit
from medmind.prompts.chat import Renderer
from medmind.serve.text import Pipe


@dataclass
class Reply:
    """Grows while it is streamed."""

    text: str = ""
    tokens: int = 0
    stopped: bool = False


class Speaker:
    """`decoder` has one slot, `voice` is whose of the models in it."""

    def __init__(
        self, name: str, decoder: Decoder, renderer: Renderer, system: str, max_new_tokens: int, voice: str = ""
    ) -> None:
        self.name = name
        self.system = system
        self.turns: list[Message] = []
        self._decoder, self._voice = decoder, voice
        self._renderer = renderer
        self._max_new_tokens = max_new_tokens
        self.reply = Reply()

    def stream(self, question: str) -> Generator[str]:
        """The reply in pieces of whole characters; `reply` holds all of it that has come."""
        prompt = self.fit(question)
        limit = reply_limit(self._decoder.context, prompt, self._max_new_tokens)
        stops, heard = frozenset(self._renderer.stop_ids), tuple(self.conversation(question))
        work = Work(prompt, limit, stops, voice=self._voice, messages=heard)
        pipe, self.reply = Pipe(self._renderer.tokenizer, (), trim=True), Reply()
        for step in write_alone(self._decoder, work):
            if step.fault:
                raise EnvironmentFault(step.fault, todo="see to that server, then ask again")
            self.reply.stopped = step.end == "stop"
            said = step.new is not None and step.new.token not in stops
            self.reply.tokens += said or bool(step.text)
            yield from self._grow(pipe.feed(step.new.token) if step.new and said else pipe.feed_text(step.text))
        yield from self._grow(pipe.close())

    def _grow(self, piece: str) -> Iterator[str]:
        self.reply.text += piece
        if piece:
            yield piece

    def fit(self, question: str) -> tuple[int, ...]:
        """The prompt; drops the oldest turns, and says how much, when no room for a reply would be left.

        None are dropped for a question that does not even fit alone.
        """
        context = self._decoder.context
        room = min(self._max_new_tokens, context // 2)
        whole = self.prompt(question)
        if not self.turns or len(whole) + room <= context:
            return whole
        # By halves: a long conversation is not tokenised again for each of its turns.
        counts = range(1, len(self.turns) // 2)
        dropped = 1 + bisect_left(counts, True, key=lambda count: len(self.prompt(question, count)) + room <= context)
        prompt = self.prompt(question, dropped)
        if len(prompt) < context:
            del self.turns[: 2 * dropped]
            lost = len(whole) - len(prompt)
            turns = "question and its answer" if dropped == 1 else f"{dropped} questions and their answers"
            say(f"({self.name}: the oldest {turns}, {lost} tokens, no longer fit {context} tokens and are dropped)")
        return prompt

    def conversation(self, question: str, dropped: int = 0) -> list[Message]:
        """Without the oldest so many questions and answers."""
        system = [Message(role="system", text=self.system)] if self.system else []
        return [*system, *self.turns[2 * dropped :], Message(role="user", text=question)]

    def prompt(self, question: str, dropped: int = 0) -> tuple[int, ...]:
        return self._renderer.prompt(self.conversation(question, dropped))

    def room(self) -> str:
        """How full the context is."""
        return f"{len(self.turns) // 2} turns, {len(self.prompt(''))} of {self._decoder.context} tokens"

    def remember(self, question: str) -> None:
        """The question and what was replied to it, as the model said it."""
        self.turns += [Message(role="user", text=question), Message(role="assistant", text=self.reply.text)]

    def forget(self, turns: int | None = None) -> None:
        """Everything, or the last so many questions with their answers."""
        del self.turns[0 if turns is None else max(0, len(self.turns) - 2 * turns) :]
