"""`medmind run`: every stage of a recipe, from the data to the report."""

import argparse
import json

from medmind.cli.common import add_recipe_arguments, open_run
from medmind.core.heap import share_heap

HELP = "every stage of a recipe; skips what is up to date, resumes what was killed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)


def run(args: argparse.Namespace) -> int:
    share_heap()
    from medmind.recipe.stages import run_stages
    from medmind.report.terminal import show_summary

    recipe, rundir = open_run(args)
    run_stages(recipe, rundir, recipe.stages)
    show_summary(rundir)
    if args.json:
        print(json.dumps({"run": str(rundir.root), "stages": rundir.read_manifest()["stages"]}))
    return 0
