"""`medmind data phi FILE` counts patient identifiers; with --redact OUT it writes the file without them."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medmind.core.errors import UsageError
from medmind.core.log import console, say
from medmind.data.config import PhiConfig
from medmind.data.phi.file import FilePass, Hit
from medmind.data.phi.screen import Screen
from medmind.recipe.load import load_recipe


def screen_file(args: argparse.Namespace) -> int:
    """1 when there are identifiers and nothing was done about them."""
    path, out = Path(args.target), args.redact
    config = settings(args)
    hits: list[Hit] = []
    screened = FilePass(path, Screen(config), hits.append if args.show else lambda hit: None)
    if out:
        if out.resolve() == path.resolve():
            raise UsageError("--redact would overwrite what it reads", where=str(out), todo="name another file")
        if out.suffix == ".gz":
            raise UsageError("--redact writes no .gz", where=str(out), todo="leave the ending off")
    with console().status(f"looking through {path}"):
        if out:
            screened.write(out)
        else:
            screened.look()
    result = {
        "file": str(path),
        **screened.screen.summary(),
        "action": config.action if config.action == "pseudonym" else "redact" if out else "report",
        "unreadable": screened.unreadable,
        "out": str(out) if out else None,
    }
    if args.json:
        shown = {"found": [asdict(hit) for hit in hits]} if args.show else {}
        print(json.dumps(result | shown, ensure_ascii=False))
    else:
        show_table(result, hits)
    tell(result)
    return 1 if result["rows_with"] and not out else 0


def settings(args: argparse.Namespace) -> PhiConfig:
    """What --set says of data.phi: kinds that must be looked for, and pseudonyms where --redact shall write them."""
    other = [text for text in args.sets if not text.startswith("data.phi.")]
    if other:
        raise UsageError(f"--set {other[0]} has no effect with phi", todo="only data.phi.… has")
    if args.out:
        raise UsageError("--out has no effect with phi", todo="--redact names the file to write")
    config = load_recipe("base", args.sets).data.phi
    if config.action in ("off", "block"):
        todo = "report, redact or pseudonym"
        raise UsageError(f'data.phi.action "{config.action}" has no effect with phi', todo=todo)
    return config


def show_table(result: dict[str, Any], hits: list[Hit]) -> None:
    """By category: how many, in how many rows, the first of them. The identifiers themselves only with --show."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    table = Table("category", "found", "rows", "first row")
    for name, count in result["by_category"].items():
        table.add_row(name, f"{count['found']:,}", f"{count['rows']:,}", f"{count['first_row']:,}")
    if result["by_category"]:
        console.print(table)
    for hit in hits:
        console.print(f"row {hit.row:,}, {hit.category}: {hit.text}", soft_wrap=True)


def tell(result: dict[str, Any]) -> None:
    """The story, for people."""
    say(f"{result['rows_with']:,} of {result['rows']:,} rows hold a patient identifier")
    if result["unreadable"]:
        say(f"{result['unreadable']:,} of them cannot be read as rows; they were looked through as they are")
    if result["not_seen"]:
        unseen = " and ".join(f"{name}s" for name in result["not_seen"])
        say(f"{unseen} cannot be seen without a named-entity model: medmind[ner], data.phi.require", style="yellow")
    if result["out"]:
        say(f"wrote {result['out']} without them; this is no certified de-identification")
    elif result["rows_with"]:
        say("to write the file without them: --redact OUT")
