"""`medmind evaluate`: that one stage."""

import argparse

from medmind.cli.common import add_recipe_arguments, run_one_stage

HELP = "the evaluation stage: base and tuned under the same prompts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)


def run(args: argparse.Namespace) -> int:
    return run_one_stage(args, "evaluate")
