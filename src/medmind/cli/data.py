"""`medmind data RECIPE` runs the data stage; `preview TARGET` shows rows as the model will see them, `generate FILE`
grows the packaged terms.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from medmind.cli.common import add_recipe_arguments, open_run, run_one_stage
from medmind.core.errors import UsageError
from medmind.core.rundir import RunDir
from medmind.core.types import Example
from medmind.recipe.load import load_recipe, run_directory
from medmind.recipe.schema import Recipe

HELP = (
    "Read, check and split the data of a recipe; preview rows, token by token, with the supervised ones coloured; "
    "or generate more rows like the packaged terms into a file."
)
GENERATE_ONLY = ("count", "endpoint", "model", "terms")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "word",
        nargs="?",
        choices=("check", "preview", "generate", "licences", "phi", "leaks"),
        help="check: what is the matter with a file; preview: show rows instead of writing them; licences: what may be "
        "shipped; phi: patient identifiers in a file; leaks: TARGET against test sets; generate: fill the file TARGET",
    )
    add_recipe_arguments(parser)
    parser.add_argument(
        "evaluation", nargs="*", metavar="EVAL", help="leaks: files or runs the training set TARGET is compared with"
    )
    parser.add_argument("--rows", type=int, default=3, metavar="N", help="how many rows to preview (default: 3)")
    screen = parser.add_argument_group("phi")
    screen.add_argument("--redact", type=Path, metavar="OUT", help="write TARGET there without patient identifiers")
    screen.add_argument("--show", action="store_true", help="print the identifiers themselves too")
    group = parser.add_argument_group("generate")
    group.add_argument("--count", type=int, metavar="N", help="rows made from the packaged facts (default: 500)")
    group.add_argument("--endpoint", metavar="URL", help="your own server, OpenAI-compatible or Ollama, to ask as well")
    group.add_argument("--model", metavar="NAME", help="the model to ask there")
    group.add_argument("--terms", type=Path, metavar="FILE", help="what to ask for: category, tab, term, one a line")


def run(args: argparse.Namespace) -> int:
    if args.word == "generate":
        return generate_rows(args)
    for name in GENERATE_ONLY:
        if getattr(args, name) is not None:
            raise UsageError(f"--{name} goes with `medmind data generate`")
    if args.word == "leaks":
        from medmind.cli.data_leaks import find_leaks

        return find_leaks(args)
    if args.evaluation:
        raise UsageError(f"one word too many: {args.evaluation[0]}", todo="only medmind data leaks takes several files")
    if args.word == "check":
        from medmind.cli.data_check import check_file

        return check_file(args)
    if args.word == "phi":
        from medmind.cli.data_phi import screen_file

        return screen_file(args)
    if args.redact or args.show:
        raise UsageError("--redact and --show go with `medmind data phi`")
    if args.word == "licences":
        from medmind.cli.data_licences import show_licences

        return show_licences(args)
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


def training_rows(recipe: Recipe, rundir: RunDir | None) -> tuple[Sequence[Example], str]:
    """The training rows of a run, or of a recipe that is read now, and where they come from in words."""
    from medmind.data.stage.assemble import assemble
    from medmind.data.stage.spool import rows_of

    if rundir and rundir.split("train").exists():
        file = rundir.split("train")
        return rows_of(file), str(file)
    return assemble(recipe.data, recipe.seed).parts["train"], f"training rows of {recipe.data.source}"


def generate_rows(args: argparse.Namespace) -> int:
    """TARGET is the file that is written; of the settings only the seed matters."""
    from medmind.data.generate.ask import find_endpoint
    from medmind.data.generate.run import PATIENCE, generate, read_terms

    out = Path(args.target)
    if out.suffix != ".jsonl" or out.is_dir():
        raise UsageError(f'"{out}" is no file to write', todo="name one that ends in .jsonl")
    if args.out:
        raise UsageError("--out has no effect with generate", todo="the file to write is the word after it")
    other = [text for text in args.sets if text.partition("=")[0] != "seed"]
    if other:
        raise UsageError(f"--set {other[0]} has no effect with generate", todo="only seed=… has")
    asked = [name for name in GENERATE_ONLY[1:] if getattr(args, name) is not None]
    if asked and len(asked) < len(GENERATE_ONLY[1:]):
        raise UsageError("--endpoint, --model and --terms go together", todo=f"given: --{', --'.join(asked)}")
    report = generate(
        out,
        500 if args.count is None else args.count,
        load_recipe("terms", args.sets).seed,
        read_terms(args.terms) if asked else (),
        (lambda: find_endpoint(args.endpoint, args.model, PATIENCE)) if asked else None,
    )
    if args.json:
        print(json.dumps(report, ensure_ascii=False))
    return 0
