"""`medmind chat`: talk to what a run trained, beside its base, or to a base model alone."""

import argparse
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medmind.chat.samples import read_samples
from medmind.chat.session import Chat
from medmind.chat.speaker import Speaker
from medmind.cli.common import add_sets, open_run
from medmind.core.errors import UsageError
from medmind.core.log import say
from medmind.core.offline import keep_quiet
from medmind.core.rundir import RunDir
from medmind.models.catalog import find_model, names_a_model
from medmind.recipe.load import load_recipe
from medmind.recipe.schema import Recipe

HELP = "talk to what was trained, beside its base"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="a run directory, a recipe that has run, or a model's name")
    add_sets(parser)
    parser.add_argument("--whole", action="store_true", help="all of stdin is one question, not every line one")
    parser.add_argument("--history", type=Path, metavar="FILE", help="keep what you type there; otherwise nowhere")
    parser.set_defaults(out=None)


def run(args: argparse.Namespace) -> int:
    recipe, rundir = open_target(args)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # what is not UTF-8 is said where it is asked
    interactive = sys.stdin.isatty() and not args.whole
    chat = Chat(
        open_speakers(recipe, rundir),
        read_samples(rundir, recipe.data.task, recipe.seed),
        interactive,
        recipe.serve.additions(recipe.data.task if rundir else ""),
        markdown=sys.stdout.isatty(),
    )
    if args.whole:
        chat.ask(sys.stdin.read().strip())
        return 0
    with history(args.history if interactive else None):
        chat.run()
    return 0


@contextmanager
def history(file: Path | None) -> Iterator[None]:
    """The arrow keys find what was typed; on disk it is only where the user says, and nobody else may read it."""
    import readline

    if file is not None and file.exists():
        readline.read_history_file(file)
    try:
        yield
    finally:
        if file is not None:
            file.touch(mode=0o600)
            readline.write_history_file(file)
            file.chmod(0o600)


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


def open_speakers(recipe: Recipe, rundir: RunDir | None) -> list[Speaker]:
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
