"""`medmind evaluate`: that one stage, on every suite or on those named."""

import argparse
import json

from medmind.cli.common import add_recipe_arguments, run_one_stage

HELP = "the evaluation stage: base and tuned under the same prompts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument(
        "--suite",
        dest="suites",
        action="append",
        default=[],
        metavar="NAME",
        help="this suite alone, for example canary; may be repeated (the same as --set evaluate.suites=[NAME])",
    )


def run(args: argparse.Namespace) -> int:
    if args.suites:
        args.sets.append(f"evaluate.suites={json.dumps(args.suites)}")
    return run_one_stage(args, "evaluate")
