"""`medmind compare`: runs, or files of predictions of one suite, each against the first, with paired statistics."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from medmind.cli.common import print_table
from medmind.core.errors import UsageError
from medmind.core.rundir import RunDir

if TYPE_CHECKING:
    from medmind.core.types import Comparison, Example

HELP = "runs, or files of predictions of one suite, each against the first"
SEED = 0
HEAD = ("against", "suite", "figure", "n", "first", "this", "difference", "95 % interval", "p", "Holm's p", "verdict")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    about = "a run directory (its tuned model), or a file of predictions: all of one kind"
    parser.add_argument("places", metavar="A", nargs="+", type=Path, help=about)
    parser.add_argument(
        "--suite",
        dest="suites",
        action="append",
        default=[],
        metavar="NAME",
        help="of runs: this suite alone, may be repeated; of {id, text} lines: the one they answer",
    )
    parser.add_argument("--margin", type=float, metavar="X", help="a loss up to this is no worse (evaluate.margin)")
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout")


def run(args: argparse.Namespace) -> int:
    from medmind.evaluate.across import compare_files, compare_runs
    from medmind.evaluate.config import EvaluateConfig

    if len(args.places) < 2:
        raise UsageError("one alone cannot be compared", todo="name two or more; a run's own base stands in its report")
    missing = [place for place in args.places if not place.exists()]
    if missing:
        todo = "name run directories, or files of predictions; medmind runs ls has the runs"
        raise UsageError("no such run or file", where=str(missing[0]), todo=todo)
    folders = [place.is_dir() for place in args.places]
    if any(folders) and not all(folders):
        raise UsageError("runs and files do not compare", todo="name the predictions.jsonl of a run")
    margin = EvaluateConfig().margin if args.margin is None else args.margin
    if not 0 < margin < 1:
        raise UsageError("--margin must lie between 0 and 1", where=str(margin))
    if all(folders):
        found = compare_runs(args.places, args.suites, margin, SEED)
    else:
        suite, examples = suite_of(args.suites)
        found = compare_files(args.places, examples, suite, margin, SEED)
    if args.json:
        print(json.dumps([{"against": name} | one.model_dump(mode="json") for name, one in found], ensure_ascii=False))
    else:
        show(found)
    return 0


def suite_of(names: list[str]) -> "tuple[str, list[Example]]":
    """The one suite named, from the run here that has it; without a name, nothing is known of the questions."""
    from medmind.cli.evaluate import run_with
    from medmind.evaluate.run import read_suite

    if len(names) > 1:
        raise UsageError("files of predictions answer one suite", todo="name one")
    if not names:
        return "", []
    return names[0], read_suite(RunDir(Path(run_with(names[0]))), names[0], None, SEED)


def show(found: "list[tuple[str, Comparison]]") -> None:
    """A line a figure: the one that decides, then, set in, those beside it."""
    table: list[tuple[str, ...]] = [HEAD]
    for name, one in found:
        table += [cells(name, one), *(cells("", other) for other in one.others)]
    print_table(table)
    for name, one in found:
        for figure in (one, *one.others):
            smallest = figure.smallest_detectable
            if name and figure is one and smallest is not None:
                print(f"{one.suite or name}: {one.n} items show a difference of {smallest:.3f} four times in five")
            if figure.note:
                print(f"{name}: {one.suite}, {figure.metric}: {figure.note}")


def cells(name: str, one: "Comparison") -> tuple[str, ...]:
    verdict = f"no worse by more than {one.margin}" if one.verdict == "no worse" else one.verdict
    return (
        name,
        one.suite if name else "",
        one.metric,
        str(one.n),
        f"{one.base:.3f}",
        f"{one.tuned:.3f}",
        f"{one.difference:+.3f}",
        f"{one.low:+.3f} to {one.high:+.3f}",
        "" if one.p_value is None else f"{one.p_value:.2g}",
        "" if one.adjusted_p is None else f"{one.adjusted_p:.2g}",
        verdict,
    )
