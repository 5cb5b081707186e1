"""The conversation in a terminal or a pipe: lines in, replies out, and what begins with a slash is for the chat."""

import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from medmind.chat.saved import Saved, load, save
from medmind.chat.show import Screen
from medmind.chat.speaker import Speaker
from medmind.core.errors import MedmindError, UsageError
from medmind.core.log import say
from medmind.core.registry import did_you_mean
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
    "load": "take up a saved conversation",
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
            "retry": self.retry,
            "context": self.show_context,
            "save": self.save,
            "load": self.load,
            "clear": self.clear,
            "reset": self.clear,
        }

    def run(self) -> None:
        if self._interactive:
            self.show_samples()
            say(f"Ask, or /help. Not medical advice; {self._place}, and nothing is kept here.", style="dim")
        while (line := self.read_line()) is not None:
            if line == "/quit":
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
        name, _, rest = line[1:].partition(" ")
        try:
            if name.isdecimal() and 1 <= int(name) <= len(self._samples):
                self.ask(self._samples[int(name) - 1])
            elif name in self._commands:
                self._commands[name](rest.strip())
            else:
                known = ", ".join(f"/{one}" for one in COMMANDS)
                hint = did_you_mean(name, self._commands)
                raise UsageError(f'no command "/{name}"{hint}', todo=f"known: {known}")
        except (MedmindError, OSError) as error:
            say(str(error), style="yellow")

    def ask(self, question: str) -> None:
        """A question counts as asked when everyone has answered: Ctrl-C stops the answer and takes it back."""
        self._last = question
        self.warn(question)
        try:
            check_text(question)
            for speaker in self._speakers:
                self.answer(speaker, question)
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            say("(stopped; this question is forgotten, /retry asks it again)", style="yellow")
            return
        except MedmindError as error:
            if not self._interactive:
                raise
            say(f"({error})", style="yellow")
            return
        if note := max((self._additions.after(speaker.reply.text) for speaker in self._speakers), default=""):
            say(note, style="dim")
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
            say(f"({speaker.name}: cut after {speaker.reply.tokens} tokens)", style="dim")

    def help(self, _: str = "") -> None:
        for name, meaning in COMMANDS.items():
            say(f"  /{name:<8} {meaning}")

    def show_samples(self, _: str = "") -> None:
        if not self._samples:
            say("no sample questions here", style="dim")
            return
        say("Sample questions; /1, /2 … asks one:", style="dim")
        for number, question in enumerate(self._samples, start=1):
            flat = " ".join(question.split())
            say(f"  /{number}  {flat if len(flat) <= SHOWN else f'{flat[:SHOWN]} …'}")

    def toggle(self, _: str) -> None:
        """Base beside tuned, or tuned alone; a new conversation, since the two must have heard the same."""
        if len(self._all) == 1:
            raise UsageError("there is only one model here", todo="chat with a run or an adapter to compare")
        self._speakers = self._all if len(self._speakers) == 1 else self._all[-1:]
        say(f"now answering: {' and '.join(speaker.name for speaker in self._speakers)}", style="dim")
        self.clear()

    def set_system(self, text: str) -> None:
        if text:
            for speaker in self._all:
                speaker.system = "" if text == "off" else text
        say(f"system prompt: {self._all[-1].system or 'none'}", style="dim")

    def retry(self, _: str) -> None:
        if not self._last:
            raise UsageError("nothing was asked yet")
        for speaker in self._speakers:
            if speaker.turns and speaker.turns[-2].text == self._last:
                speaker.forget(1)
        self.ask(self._last)

    def show_context(self, _: str) -> None:
        for speaker in self._speakers:
            say(f"{speaker.name}: {speaker.room()}", style="dim")

    def save(self, name: str) -> None:
        system = {speaker.name: speaker.system for speaker in self._all}
        turns = {speaker.name: tuple(speaker.turns) for speaker in self._all}
        save(path_of(name), Saved(system=system, turns=turns))
        say(f"saved: {name}", style="dim")

    def load(self, name: str) -> None:
        saved = load(path_of(name))
        for speaker in self._all:
            speaker.turns = list(saved.turns.get(speaker.name, ()))
            speaker.system = saved.system.get(speaker.name, speaker.system)
        strangers = sorted(set(saved.turns) - {speaker.name for speaker in self._all})
        left = f"; of {', '.join(strangers)} nothing, not here" if strangers else ""
        say(f"loaded: {max(len(speaker.turns) for speaker in self._all) // 2} questions{left}", style="dim")

    def clear(self, _: str = "") -> None:
        for speaker in self._all:
            speaker.forget()
        say("a new conversation", style="dim")


def check_text(question: str) -> None:
    if any("\ud800" <= char <= "\udfff" for char in question):
        raise UsageError("the question is not UTF-8", where="stdin", todo="convert it, for example with iconv")


def path_of(name: str) -> Path:
    if not name:
        raise UsageError("which file?", todo="/save FILE or /load FILE")
    return Path(name).expanduser()
