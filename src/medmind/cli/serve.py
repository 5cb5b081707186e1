"""`medmind serve`: runs, GGUF files, adapters, base models and other servers behind the APIs of OpenAI and Ollama."""

import argparse
import json
from collections.abc import Sequence
from contextlib import suppress

from medmind.cli.common import add_sets
from medmind.cli.targets import TARGET, Target, open_targets, opened
from medmind.core.log import say

HELP = "answer through the APIs of OpenAI and Ollama, on this machine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("targets", metavar="TARGET", nargs="+", help=TARGET)
    parser.add_argument("--port", type=int, metavar="N", help="the same as --set serve.port=N")
    add_sets(parser)


def run(args: argparse.Namespace) -> int:
    if args.port is not None:
        args.sets.append(f"serve.port={json.dumps(args.port)}")
    with opened(args.targets, args.sets) as targets:
        return answer(targets)


def answer(targets: Sequence[Target]) -> int:
    """Until Ctrl-C."""
    from medmind.serve.run import demand_key, open_door, serve
    from medmind.serve.served import Index

    config = targets[0].recipe.serve
    digest = demand_key(config)
    with open_door(config) as door:
        models = open_targets(targets, config)
        for model in models:
            engine = model.engine
            say(f"{model.name}: {engine.name}, {engine.dtype}, context {model.context}, {engine.slots} at a time")
        with suppress(KeyboardInterrupt):
            serve(Index(models), config, digest, door)
    return 0
