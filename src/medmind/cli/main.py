"""The door: finds the verb, runs it, and turns every error into one line and an exit code; nothing else does.

A verb lives in medmind.cli.<verb>, imported only when chosen, with `HELP`, `add_arguments(parser)` and
`run(args) -> int`. It imports torch and its kin inside `run`, after the recipe said whether the Hub is wanted.
"""

import argparse
import errno
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from medmind.core.errors import EnvironmentFault, Interrupted, MedmindError, UsageError
from medmind.core.kernels import keep_few_kernels
from medmind.core.offline import keep_quiet

VERBS = {
    "run": "every stage of a recipe; skips what is up to date, resumes what was killed",
    "data": "the data stage, and tools to look at data",
    "train": "the training stage",
    "evaluate": "the evaluation stage: base and tuned on the same prompts",
    "export": "the export stage: merged weights, GGUF, Modelfile, parity check",
    "serve": "answer through the APIs of OpenAI and Ollama, on this machine",
    "chat": "talk to what was trained, beside its base",
    "compare": "runs, or files of predictions, side by side with paired statistics",
    "recipe": "list, show and copy recipes",
    "runs": "list and remove runs",
    "models": "list base models; show a conversation as one of them is shown it",
    "estimate": "memory, disk and time a recipe's training needs on this machine",
    "doctor": "what medmind finds on this machine, and whether it works",
}
EXAMPLES = """examples:
  medmind run demo                               data, training, evaluation, export and report in runs/demo
  medmind recipe show terms --set model=nano     every setting of a recipe as it would run
"""
KNOWN_WORDS = {"--help", "-h", "--version", "--debug"}
"""With nothing else in it a command says nothing that could be a patient's, and needs no screen, which takes time."""
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_SPACE_SIGNS = ("(os error 28)", "inline_container.cc")
"""How safetensors and torch.save say it: with errors of their own."""


class Parser(argparse.ArgumentParser):
    """argparse, whose complaints become errors like any other."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, todo=f'see "{self.prog} --help"')


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code (0, 1, 2, 3 or 130, as contracts.md has them)."""
    if words is None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop is told like Ctrl-C
        words = sys.argv[1:]
    words = list(words)
    debug = "--debug" in words
    try:
        if not KNOWN_WORDS.issuperset(words):
            importlib.import_module("medmind.privacy.logs").install()
        code = dispatch([word for word in words if word != "--debug"])
        print(end="", flush=True)  # not sys.stdout.flush(): a closed stdout is None
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # a reader that has seen enough, as rich says it
            return 0
        raise
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            traceback.print_exc()
        told = as_told(error)
        print(told if isinstance(told, Interrupted) else f"error: {told}", file=sys.stderr)
        return told.exit_code


def as_told(error: BaseException) -> MedmindError:
    """What the user hears of any error."""
    if isinstance(error, MedmindError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted; the same command resumes")
    if isinstance(error, OSError) and error.filename and error.errno not in NO_SPACE:
        todo = "check the path and its permissions"
        return EnvironmentFault(f"cannot be used: {error.strerror}", where=str(error.filename), todo=todo)
    if getattr(error, "errno", None) in NO_SPACE or any(sign in str(error) for sign in NO_SPACE_SIGNS):
        where, todo = str(getattr(error, "filename", None) or ""), "free some and run the same command again"
        return EnvironmentFault("no space left on the device", where=where, todo=todo)
    cause = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return MedmindError(f"internal error: {cause}", todo="run with --debug for the traceback")


def dispatch(words: list[str]) -> int:
    """Runs the verb the words begin with; what stands before a verb can only be --help or --version."""
    if not words:
        frame().print_help(sys.stderr)
        return UsageError.exit_code
    verb = words[0]
    if verb.startswith("-"):
        frame().parse_args(words)
        raise UsageError("no verb", todo=f"known: {', '.join(VERBS)}")
    if verb not in VERBS:
        from medmind.core.registry import did_you_mean

        raise UsageError(f'unknown verb "{verb}"{did_you_mean(verb, VERBS)}', todo=f"known: {', '.join(VERBS)}")
    keep_quiet(allow_hub=False)
    keep_few_kernels()
    module = importlib.import_module(f"medmind.cli.{verb}")
    parser = Parser(prog=f"medmind {verb}", description=module.HELP)
    module.add_arguments(parser)
    # Flags may stand between the words; a parser with words of its own (recipe) refuses to be read that way.
    parse = parser.parse_args if parser._subparsers else parser.parse_intermixed_args
    code: int = module.run(parse(words[1:]))
    return code


def frame() -> Parser:
    """The parser of the bare command: its help shows every verb."""
    verbs = "".join(f"  {verb:<10} {text}\n" for verb, text in VERBS.items())
    parser = Parser(
        prog="medmind",
        usage="medmind [--help] [--version] [--debug] VERB …",
        description="From a medical question-answering data set to a private, measured, local language model.",
        epilog=f"verbs (medmind VERB --help says more):\n{verbs}\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=Version, nargs=0, help="show the version and exit")
    parser.add_argument("--debug", action="store_true", help="show tracebacks; goes with every verb")
    return parser


class Version(argparse.Action):
    """Looks the version up only when asked: reading package metadata costs start-up time."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"medmind {version('medmind')}")
        parser.exit()
