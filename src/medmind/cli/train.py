"""`medmind train`: the training stage, on data that is read first where that was not done; or only what it would do."""

import argparse
import json

from medmind.cli.common import add_recipe_arguments, open_run, run_one_stage
from medmind.core.heap import share_heap

HELP = "the training stage: full, LoRA or over quantised weights; resumes what was killed"
SHOWN = 3
"""Rows a dry run shows."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="plan, estimate and three rows; writes nothing")


def run(args: argparse.Namespace) -> int:
    share_heap()
    return rehearse(args) if args.dry_run else run_one_stage(args, "train")


def rehearse(args: argparse.Namespace) -> int:
    from rich.console import Console

    from medmind.data.preview import preview, show
    from medmind.estimate.predict import estimate, open_subject
    from medmind.estimate.show import as_lines

    recipe, rundir = open_run(args)
    subject = open_subject(recipe, rundir)
    found = estimate(subject, rundir)
    examples = subject.work.examples
    rows = preview(examples, subject.renderer, recipe.data.system_prompt, SHOWN, recipe.seed)
    if args.json:
        shown = [row.as_json() for row in rows]
        print(json.dumps({"estimate": found.as_json(), "rows": shown}, ensure_ascii=False))
    else:
        print("\n".join(as_lines(found)), end="\n\n")
        show(rows, len(examples), subject.work.source, Console(highlight=False, markup=False))
    return 0 if found.fits else 1
