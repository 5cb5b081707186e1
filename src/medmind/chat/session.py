"""The conversation in a terminal or a pipe: lines in, replies out, and what begins with a slash is for the chat."""

import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from medmind.chat.saved import Saved, is_text, load, save
from medmind.chat.show import Screen, tell
from medmind.chat.speaker import Speaker
from medmind.core.errors import MedmindError, UsageError
from medmind.core.registry import did_you_mean
from medmind.core.types import Message
from medmind.safety.texts import Additions

SHOWN = 200
"""Characters of a sample question that are printed; asked, it is whole."""
COMMANDS = {
    "help": "what can be said here",
    "samples": "questions to begin with; /1, /2 … asks one",
    "compare": "base beside tuned, or tuned alone; a new conversation",
    "system": "show the system prompt; with a text: change it; off: none",
    "retry": "ask the last question again; the same prompt gets the same reply, nothing is drawn by chance",
    "context": "how much of each model's context is taken",
    "save": "write the conversation to a file, which nobody else may read",
    "load": "take up a saved conversation, with those who were in it",
    "clear": "a new conversation; so does /reset",
    "quit": "the end",
}


class Chat:
    """Reads lines until they end: on a terminal with prompts, in a pipe only replies on stdout."""

    def __init__(
        self,
        speakers: Sequence[Speaker],
        samples: Sequence[str],
        interactive: bool,
        additions: Additions | None = None,
        markdown: bool = False,
        hearer: str = "",
    ) -> None:
        """`hearer` is the address of the server that hears what is said, if it is one."""
        self._all = list(speakers)
        self._speakers = list(speakers)
        self._samples = list(samples)
        self._interactive = interactive
        self._additions = additions or Additions()
        self._screen = Screen(markdown)
        self._place = f"what you say goes to {hearer}" if hearer else "nothing leaves this machine"
        self._last = ""
        self._commands: dict[str, Callable[[str], None]] = {
            "help": self.help,
            "samples": self.show_samples,
            "compare": self.toggle,
            "system": self.set_system,
            "context": self.show_context,
            "save": self.save,
            "load": self.load,
            "clear": self.clear,
            "reset": self.clear,
        }

    def run(self) -> None:
        if self._interactive:
            self.show_samples()
            tell(f"Ask, or /help. Not medical advice; {self._place}, and nothing is kept here.")
        while (line := self.read_line()) is not None:
            if line.split(None, 1)[:1] == ["/quit"]:
                return
            if line.startswith("/"):
                self.command(line)
            elif line:
                self.ask(line)

    def read_line(self) -> str | None:
        """None when the conversation is over: end of input, or Ctrl-C at the prompt."""
        if not self._interactive:
            line = sys.stdin.readline()
            return line.strip() if line else None
        try:
            return input("\nyou: ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return None

    def command(self, line: str) -> None:
        """No fault of a command ends the conversation."""
        name, _, rest = line[1:].partition(" ")
        numbered = {str(number): question for number, question in enumerate(self._samples, start=1)}
        question = numbered.get(name, "")
        try:
            if name == "retry":
                question = self.retried()
            elif name in self._commands:
                self._commands[name](rest.strip())
            elif not question:
                known = ", ".join(f"/{one}" for one in COMMANDS)
                hint = did_you_mean(name[:SHOWN], COMMANDS)
                raise UsageError(f'no command "/{shorten(name)}"{hint}', todo=f"known: {known}")
        except BrokenPipeError:
            raise
        except Exception as error:
            tell(f"error: {as_told(error)}", style="red")
        if question:
            self.ask(question)

    def ask(self, question: str) -> None:
        """A question counts as asked when everyone has answered: Ctrl-C stops the answer and takes it back."""
        self._last = question
        self.warn(question)
        try:
            check_text(question, "the question")
            for speaker in self._speakers:
                self.answer(speaker, question)
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            tell("(stopped; this question is forgotten, /retry asks it again)", style="yellow")
            return
        except Exception as error:
            if not self._interactive:
                raise
            tell(f"error: {as_told(error)}", style="red")
            return
        if note := max((self._additions.after(speaker.reply.text) for speaker in self._speakers), default=""):
            tell(note)
        for speaker in self._speakers:
            speaker.remember(question)

    def warn(self, question: str) -> None:
        """The emergency text goes where the answer goes, whatever the answer will be, and is no part of it."""
        text, kind = self._additions.before(question)
        if text:
            label = f"medmind ({kind})"
            self._screen.show(label, iter([text]))

    def answer(self, speaker: Speaker, question: str) -> None:
        label = speaker.name if self._interactive or len(self._speakers) > 1 else ""
        with closing(speaker.stream(question)) as pieces:
            self._screen.show(label, pieces)
        if not speaker.reply.stopped:
            tell(f"({speaker.name}: cut after {speaker.reply.tokens} tokens)")

    def help(self, _: str = "") -> None:
        for name, meaning in COMMANDS.items():
            tell(f"  /{name:<8} {meaning}", style=None)

    def show_samples(self, _: str = "") -> None:
        if not self._samples:
            tell("no sample questions here")
            return
        tell("Sample questions; /1, /2 … asks one:")
        for number, question in enumerate(self._samples, start=1):
            tell(f"  /{number}  {shorten(' '.join(question.split()))}", style=None)

    def toggle(self, _: str) -> None:
        """Base beside tuned, or tuned alone; a new conversation, since the two must have heard the same."""
        if len(self._all) == 1:
            todo = "chat with a run or an adapter to compare, with a GGUF add --set serve.base=true"
            raise UsageError("there is only one model here", todo=todo)
        self._speakers = list(self._all) if len(self._speakers) == 1 else self._all[-1:]
        tell(f"now answering: {names(self._speakers)}")
        self.clear()

    def set_system(self, text: str) -> None:
        check_text(text, "the system prompt")
        if text:
            for speaker in self._all:
                speaker.system = "" if text == "off" else text
        tell(f"system prompt: {self._all[-1].system or 'none'}")

    def retried(self) -> str:
        """The last question, which is to be asked as if it had not been."""
        if not self._last:
            raise UsageError("nothing was asked yet")
        for speaker in self._speakers:
            if speaker.turns and speaker.turns[-2].text == self._last:
                speaker.forget(1)
        return self._last

    def show_context(self, _: str) -> None:
        for speaker in self._speakers:
            tell(f"{speaker.name}: {speaker.room()}")

    def save(self, name: str) -> None:
        system = {speaker.name: speaker.system for speaker in self._all}
        turns = {speaker.name: tuple(speaker.turns) for speaker in self._all}
        save(path_of(name), Saved(system=system, turns=turns))
        tell(f"saved: {name}")

    def load(self, name: str) -> None:
        """Whoever took part goes on; both do only if they were asked the same."""
        saved, here = load(path_of(name)), {speaker.name for speaker in self._all}
        strangers = sorted(saved.turns.keys() - here)
        if not here & saved.turns.keys():
            raise UsageError("nobody here took part in it", where=f"{name} (of {', '.join(strangers) or 'nobody'})")
        for speaker in self._all:
            speaker.turns = list(saved.turns.get(speaker.name, ()))
            speaker.system = saved.system.get(speaker.name, speaker.system)
        heard = [speaker for speaker in self._all if speaker.turns]
        if not same_questions([speaker.turns for speaker in heard]):
            heard = heard[-1:]
        self.answer_with(heard or self._speakers)
        self._last = heard[-1].turns[-2].text if heard else ""
        counts = {speaker.name: len(speaker.turns) // 2 for speaker in heard}
        most = max(counts.values(), default=0)
        fewer = [f"of these {one} has the last {count}" for one, count in counts.items() if count < most]
        tell("; ".join([f"loaded: {most} questions", *fewer, *(f"of {one} nothing, not here" for one in strangers)]))

    def answer_with(self, speakers: Sequence[Speaker]) -> None:
        """The others did not hear the same and keep silent."""
        silent = [speaker for speaker in self._all if speaker not in speakers]
        for speaker in silent:
            speaker.forget()
        if list(speakers) == self._speakers:
            return
        self._speakers = list(speakers)
        why = f": {names(silent)} did not hear the same; /compare begins anew with both" if silent else ""
        tell(f"now answering: {names(speakers)}{why}", style="yellow")

    def clear(self, _: str = "") -> None:
        for speaker in self._all:
            speaker.forget()
        tell("a new conversation")


def as_told(error: Exception) -> str:
    if isinstance(error, MedmindError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f", {error.filename}" if error.filename else ""
        return f"cannot be used: {error.strerror}{where}, check the path and its permissions"
    return f"internal error: {type(error).__name__}: {error}".strip().splitlines()[0]


def names(speakers: Sequence[Speaker]) -> str:
    return " and ".join(speaker.name for speaker in speakers)


def shorten(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} …"


def same_questions(talks: Sequence[Sequence[Message]]) -> bool:
    """But for the oldest, which one may have had to drop before the other."""
    asked = [[message.text for message in turns[::2]] for turns in talks]
    shortest = min(map(len, asked), default=0)
    return len({tuple(texts[-shortest:]) for texts in asked}) <= 1


def check_text(text: str, what: str) -> None:
    if not is_text(text):
        raise UsageError(f"{what} is not UTF-8", where="stdin", todo="convert it, for example with iconv")


def path_of(name: str) -> Path:
    if not name:
        raise UsageError("which file?", todo="/save FILE or /load FILE")
    if "\0" in name:
        raise UsageError("no file has a NUL in its name", where=name)
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise UsageError("no such user, or one without a home", where=name) from None
