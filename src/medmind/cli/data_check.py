"""`medmind data check FILE`: what is the matter with a file; changes nothing."""

import argparse
import json
from pathlib import Path

from medmind.core.errors import UsageError
from medmind.core.offline import keep_quiet
from medmind.recipe.load import load_recipe


def check_file(args: argparse.Namespace) -> int:
    """0 whatever was found, 1 when more than half of the rows cannot be used; the source is told by the file unless
    --set data.source says it.
    """
    from rich.console import Console

    from medmind.data.check import check
    from medmind.data.quality.lengths import Lengths
    from medmind.data.quality.story import show
    from medmind.data.sniff import sniff
    from medmind.data.sources.hub import is_hub_id
    from medmind.models.catalog import find_model
    from medmind.models.tokenizer import open_tokenizer
    from medmind.prompts.families import open_renderer

    if args.out:
        raise UsageError("--out has no effect with check", todo="it writes nothing; --json prints the report")
    told = {"data.path": args.target}
    if not any(text.partition("=")[0] == "data.source" for text in args.sets):
        found = sniff(Path(args.target))
        told |= {"data.source": found.source} | {f"data.columns.{role}": name for role, name in found.columns.items()}
    recipe = load_recipe("base", [*(f"{key}={json.dumps(value)}" for key, value in told.items()), *args.sets])
    spec = find_model(recipe.model)
    keep_quiet(allow_hub=not spec.local or is_hub_id(args.target))
    renderer = open_renderer(spec.renderer, open_tokenizer(spec))
    report = check(recipe.data, Lengths(renderer, recipe.data.system_prompt))
    if args.json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        show(report, Console(highlight=False, markup=False))
    return int(report["mostly_unusable"])
