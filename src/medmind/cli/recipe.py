"""`medmind recipe`: discover a recipe, show it as it would run, copy it to change it; never imports torch."""

import argparse
import json
from pathlib import Path

from medmind.cli.common import add_sets
from medmind.core.errors import UsageError
from medmind.core.jsonl import write_text
from medmind.core.log import say
from medmind.recipe.load import copy_of, dump_recipe, list_presets, load_recipe

HELP = "list, show and copy recipes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    words = parser.add_subparsers(dest="word", metavar="WORD", required=True)
    ls = words.add_parser("ls", help="the recipes that ship, one a line")
    show = words.add_parser("show", help="every setting of a recipe as it would run")
    show.add_argument("target", metavar="TARGET", help="a preset name, a YAML file or a run directory")
    add_sets(show)
    for word in (ls, show):
        word.add_argument("--json", action="store_true", help="as JSON")
    new = words.add_parser("new", help="a file of your own that extends a preset")
    new.add_argument("name", metavar="NAME", help="the preset to start from")
    new.add_argument("file", metavar="FILE", type=Path, help="the file to write, for example mine.yaml")


def run(args: argparse.Namespace) -> int:
    return {"ls": ls, "show": show, "new": new}[args.word](args)


def ls(args: argparse.Namespace) -> int:
    presets = list_presets()
    if args.json:
        print(json.dumps(presets, ensure_ascii=False))
        return 0
    width = max(map(len, presets))
    for name, description in presets.items():
        print(f"{name:<{width}}  {description}")
    return 0


def show(args: argparse.Namespace) -> int:
    recipe = load_recipe(args.target, args.sets)
    print(recipe.model_dump_json(indent=2) if args.json else dump_recipe(recipe), end="\n" if args.json else "")
    return 0


def new(args: argparse.Namespace) -> int:
    file: Path = args.file
    if file.suffix not in (".yaml", ".yml"):
        raise UsageError("a recipe's file ends in .yaml", where=str(file))
    if file.exists():
        raise UsageError("the file exists already", where=str(file), todo="choose another name, or remove it")
    write_text(file, copy_of(args.name, file))
    say(f"{file} extends {args.name}; change what you like, then: medmind run {file}")
    return 0
