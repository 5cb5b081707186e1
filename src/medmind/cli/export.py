"""`medmind export`: that one stage."""

import argparse

from medmind.cli.common import add_recipe_arguments, run_one_stage

HELP = "the export stage: merge, GGUF, Modelfile, parity"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)


def run(args: argparse.Namespace) -> int:
    return run_one_stage(args, "export")
