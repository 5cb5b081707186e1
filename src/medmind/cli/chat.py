"""`medmind chat`: talk to what a run trained, beside its base, or to a base model alone."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from medmind.cli.common import add_sets, open_run
from medmind.core.errors import MedmindError, UsageError
from medmind.core.jsonl import read_jsonl
from medmind.core.log import console, say
from medmind.core.offline import keep_quiet
from medmind.core.protocols import Generator
from medmind.core.rundir import RunDir
from medmind.core.sampling import sample
from medmind.core.types import Completion, Example, Message
from medmind.models.catalog import find_model, names_a_model
from medmind.prompts.chat import Renderer
from medmind.prompts.tasks.known import TASKS
from medmind.recipe.load import load_recipe
from medmind.recipe.schema import Recipe

HELP = "talk to what was trained, beside its base"
COMMANDS = "/samples, /compare (base beside tuned, on or off), /reset (a new conversation), /quit"
SAMPLES = 3
SHOWN = 200
"""Characters of a sample question that are printed; asked, it is whole."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="a run directory, a recipe that has run, or a model's name")
    add_sets(parser)
    parser.set_defaults(out=None)


def run(args: argparse.Namespace) -> int:
    recipe, rundir = open_target(args)
    speakers = open_speakers(recipe, rundir)
    Chat(speakers, read_samples(rundir, recipe.seed), interactive=sys.stdin.isatty()).run()
    return 0


def open_target(args: argparse.Namespace) -> tuple[Recipe, RunDir | None]:
    """The settings and, unless a base model is named, the run, which must have finished training."""
    if names_a_model(args.target):
        recipe = load_recipe("base", [*args.sets, f"model={args.target}"])
        keep_quiet(allow_hub=not find_model(recipe.model).local)
        return recipe, None
    recipe, rundir = open_run(args)
    if "train" not in rundir.read_manifest().get("stages", {}):
        raise UsageError(
            "this run has not finished training",
            where=str(rundir.root),
            todo=f"medmind run {args.target} starts it or takes it up where it stopped; "
            f"medmind chat {recipe.model} talks to the base model",
        )
    return recipe, rundir


def open_speakers(recipe: Recipe, rundir: RunDir | None) -> "list[Speaker]":
    from medmind.infer.open import open_generator
    from medmind.recipe.stages import open_model, trained_folder

    spec, renderer = open_model(recipe)
    trained = {"base": None} | ({"tuned": trained_folder(recipe, rundir)} if rundir else {})
    speakers = []
    for name, folder in trained.items():
        say(f"loading {spec.id}, {name}")
        generator = open_generator(spec, folder, renderer, batch_size=1)
        speakers.append(Speaker(name, generator, renderer, recipe.data.system_prompt, recipe.evaluate.max_new_tokens))
    return speakers


def read_samples(rundir: RunDir | None, seed: int) -> list[str]:
    """A few questions of the test split, in full."""
    if rundir is None or not rundir.split("test").is_file():
        return []
    examples = [Example.model_validate(row) for row in read_jsonl(rundir.split("test"))]
    chosen = [examples[place] for place in sample(len(examples), SAMPLES, seed)]
    return [TASKS.get(example.task).question(example) for example in chosen]


class Speaker:
    """One model and its own side of the conversation."""

    def __init__(
        self, name: str, generator: Generator, renderer: Renderer, system_prompt: str, max_new_tokens: int
    ) -> None:
        self.name = name
        self._generator = generator
        self._renderer = renderer
        self._system = [Message(role="system", text=system_prompt)] if system_prompt else []
        self._max_new_tokens = max_new_tokens
        self._turns: list[Message] = []

    def answer(self, question: str) -> Completion:
        """Drops the oldest turns, and says so, when no room for a reply would be left."""
        asked = Message(role="user", text=question)
        prompt = self._renderer.prompt([*self._system, *self._turns, asked])
        room = min(self._max_new_tokens, self._generator.context // 2)
        dropped = 0
        while self._turns and len(prompt) + room > self._generator.context:
            self._turns = self._turns[2:]
            dropped += 1
            prompt = self._renderer.prompt([*self._system, *self._turns, asked])
        if dropped:
            limit = self._generator.context
            say(f"({self.name}: dropped the oldest {dropped} turns, which no longer fit {limit} tokens)")
        return self._generator.generate([prompt], self._max_new_tokens)[0]

    def remember(self, question: str, reply: str) -> None:
        self._turns += [Message(role="user", text=question), Message(role="assistant", text=reply)]

    def forget(self) -> None:
        self._turns = []


class Chat:
    """Reads lines until they end: on a terminal with prompts, in a pipe only answers on stdout."""

    def __init__(self, speakers: Sequence[Speaker], samples: Sequence[str], interactive: bool) -> None:
        self._all = list(speakers)
        self._speakers = list(speakers)
        self._samples = list(samples)
        self._interactive = interactive

    def run(self) -> None:
        if self._interactive:
            self.show_samples()
            say(f"Ask, or {COMMANDS}.", style="dim")
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
        if line == "/reset":
            self.reset()
        elif line == "/samples":
            self.show_samples()
        elif line == "/compare":
            self.toggle()
        elif line[1:].isdigit() and 1 <= int(line[1:]) <= len(self._samples):
            self.ask(self._samples[int(line[1:]) - 1])
        else:
            say(f'no command "{line}"; known: {COMMANDS}', style="yellow")

    def ask(self, question: str) -> None:
        """A question counts as asked when everyone has answered: Ctrl-C takes it back."""
        replies = []
        try:
            for speaker in self._speakers:
                with console().status(f"{speaker.name} …") if self._interactive else nullcontext():
                    reply = speaker.answer(question)
                self.show(speaker, reply)
                replies.append(reply.text)
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            say("(stopped; this question is forgotten)", style="yellow")
            return
        except MedmindError as error:
            if not self._interactive:
                raise
            say(f"({error})", style="yellow")
            return
        for speaker, text in zip(self._speakers, replies, strict=True):
            speaker.remember(question, text)

    def show(self, speaker: Speaker, reply: Completion) -> None:
        label = f"{speaker.name}: " if self._interactive or len(self._speakers) > 1 else ""
        print(f"{label}{reply.text}", flush=True)
        if not reply.stopped:
            say(f"({speaker.name}: cut after {len(reply.ids)} tokens)", style="dim")

    def show_samples(self) -> None:
        if not self._samples:
            say("no sample questions: this is a base model without a run", style="dim")
            return
        say("Questions of the test split; /1, /2 … asks one:", style="dim")
        for number, question in enumerate(self._samples, start=1):
            flat = " ".join(question.split())
            say(f"  /{number}  {flat if len(flat) <= SHOWN else f'{flat[:SHOWN]} …'}")

    def toggle(self) -> None:
        """Base beside tuned, or tuned alone; a new conversation, since the two must have heard the same."""
        if len(self._all) == 1:
            say("there is only the base model here; chat with a run to compare", style="yellow")
            return
        self._speakers = self._all if len(self._speakers) == 1 else self._all[-1:]
        say(f"now answering: {' and '.join(speaker.name for speaker in self._speakers)}", style="dim")
        self.reset()

    def reset(self) -> None:
        for speaker in self._all:
            speaker.forget()
        say("a new conversation", style="dim")
