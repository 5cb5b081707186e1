"""`medmind export parity A B`: whether two forms of a model say the same; exit code 1 where they do not."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pydantic import ValidationError

from medmind.core.errors import DataError, UsageError
from medmind.core.jsonl import read_jsonl
from medmind.core.offline import keep_quiet
from medmind.core.rundir import RunDir
from medmind.core.types import Example
from medmind.export.config import GgufKind
from medmind.recipe.load import load_recipe
from medmind.recipe.schema import Recipe

if TYPE_CHECKING:
    from medmind.export.parity.diagnose import Adapter


def compare(args: argparse.Namespace) -> int:
    """The rows are those of the run that A or B lies in, or of --rows; nothing is written, --json prints it all."""
    if not args.other:
        raise UsageError("one side is missing", todo="medmind export parity A B")
    if args.bundle or args.ollama or args.dry_run or args.out:
        raise UsageError("parity writes nothing", todo="only --rows, --as, --set and --json go with it")
    if args.kind and args.kind not in get_args(GgufKind):
        raise UsageError(f'unknown kind "{args.kind}"', todo=f"known: {', '.join(get_args(GgufKind))}")
    keep_quiet(allow_hub=False)
    from medmind.export.parity.pair import compare_pair, order

    pair = order(args.target, args.other)
    run = find_run(args.target) or find_run(args.other)
    recipe = load_recipe(str(run.root) if run else "base", args.sets)
    rows = args.rows or (run.split("test") if run else None)
    if rows is None:
        raise UsageError(
            "neither lies in a run directory, so there is nothing to ask", todo="name rows with --rows FILE"
        )
    examples = read_rows(rows)
    adapter = adapter_of(recipe, run) if run and run.merged.resolve() == pair.reference.resolve() else None
    proof = compare_pair(pair, examples, recipe.data.system_prompt, recipe.export, args.kind, recipe.seed, adapter)
    if args.json:
        print(json.dumps(proof.as_json()))
    proof.refuse(f"{args.target}, {args.other}")
    return 0


def read_rows(path: Path) -> list[Example]:
    """Without plain passages: nothing is asked there."""
    if not path.is_file():
        raise UsageError("no such file of rows", where=str(path), todo="name one with --rows FILE")
    examples = []
    for number, line in enumerate(read_jsonl(path), start=1):
        try:
            examples.append(Example.model_validate(line))
        except ValidationError as error:
            what = f"not a row to ask: {error.errors()[0]['msg']}"
            raise DataError(what, where=f"{path}, row {number}", todo="rows are as data/test.jsonl has them") from None
    if not (asked := [one for one in examples if one.task != "text"]):
        raise DataError("no row to ask", where=str(path), todo="name another with --rows FILE")
    return asked


def adapter_of(recipe: Recipe, run: RunDir) -> "Adapter | None":
    """What the run's merged checkpoint holds beside its base, where both are still there."""
    from medmind.export.parity.prove import read_adapter
    from medmind.models.catalog import find_model
    from medmind.models.files import is_here
    from medmind.models.weights import INDEX, WEIGHTS
    from medmind.recipe.stages import trained_folder

    spec = find_model(recipe.model)
    here = is_here(spec, WEIGHTS) or is_here(spec, INDEX)
    return read_adapter(spec, trained_folder(recipe, run)) if here else None


def find_run(name: str) -> RunDir | None:
    """The run directory that a file or folder lies in."""
    if "://" in name:
        return None
    folders = [folder for folder in Path(name).resolve().parents if RunDir(folder).recipe.is_file()]
    return RunDir(folders[0]) if folders else None
