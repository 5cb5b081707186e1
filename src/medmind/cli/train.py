"""`medmind train`: the training stage, on data that is read first where that was not done."""

import argparse

from medmind.cli.common import add_recipe_arguments, run_one_stage

HELP = "the training stage: LoRA or full, resumes what was killed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)


def run(args: argparse.Namespace) -> int:
    return run_one_stage(args, "train")
