"""`medmind data RECIPE` runs the data stage; `medmind data preview TARGET` shows rows as the model will see them."""

import argparse
import json

from medmind.cli.common import add_recipe_arguments, open_run, run_one_stage
from medmind.core.errors import UsageError
from medmind.core.jsonl import read_jsonl
from medmind.core.rundir import RunDir
from medmind.core.types import Example
from medmind.recipe.load import run_directory
from medmind.recipe.schema import Recipe

HELP = "Read, check and split the data of a recipe; or preview rows, token by token, with the supervised ones coloured."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("word", nargs="?", choices=("preview",), help="preview: show rows instead of writing them")
    add_recipe_arguments(parser)
    parser.add_argument("--rows", type=int, default=3, metavar="N", help="how many rows to preview (default: 3)")


def run(args: argparse.Namespace) -> int:
    return preview_rows(args) if args.word == "preview" else run_one_stage(args, "data")


def preview_rows(args: argparse.Namespace) -> int:
    """A run directory shows the rows it has, a recipe those it would make; nothing is written."""
    from rich.console import Console

    from medmind.data.preview import preview, show
    from medmind.models.catalog import find_model
    from medmind.models.tokenizer import open_tokenizer
    from medmind.prompts.families import open_renderer

    if args.rows < 1:
        raise UsageError("--rows must be at least 1")
    recipe, rundir = open_run(args)
    is_run = run_directory(args.target) is not None and not args.sets
    examples, where = training_rows(recipe, rundir if is_run else None)
    spec = find_model(recipe.model)
    renderer = open_renderer(spec.renderer, open_tokenizer(spec))
    rows = preview(examples, renderer, recipe.data.system_prompt, args.rows, recipe.seed)
    if args.json:
        print(json.dumps([row.as_json() for row in rows], ensure_ascii=False))
    else:
        show(rows, len(examples), where, Console(highlight=False, markup=False))
    return 0


def training_rows(recipe: Recipe, rundir: RunDir | None) -> tuple[list[Example], str]:
    """The training rows of a run, or of a recipe that is read now, and where they come from in words."""
    from medmind.data.prepare import assemble

    if rundir and rundir.split("train").exists():
        file = rundir.split("train")
        return [Example.model_validate(row) for row in read_jsonl(file)], str(file)
    return assemble(recipe.data, recipe.seed).parts["train"], f"training rows of {recipe.data.source}"
