"""`medmind evaluate`: that one stage, on every suite or on those named; or what another system wrote, scored."""

import argparse
import json
import re
from pathlib import Path

from medmind.cli.common import add_recipe_arguments, open_run, run_one_stage
from medmind.core.errors import UsageError
from medmind.core.lock import locked
from medmind.core.rundir import RunDir, sha256_file
from medmind.recipe.load import run_directory
from medmind.recipe.stages import run_stages

HELP = "the evaluation stage: base and tuned under the same prompts"
RUNS = Path("runs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser, optional=True)
    parser.add_argument(
        "--suite",
        dest="suites",
        action="append",
        default=[],
        metavar="NAME",
        help="this suite alone, for example canary; may be repeated (the same as --set evaluate.suites=[NAME])",
    )
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="score these {id, text} lines of any system on the one suite named; no model is opened",
    )
    parser.add_argument("--endpoint", metavar="URL", help="evaluate the model this server offers, through its own API")
    parser.add_argument("--model", metavar="NAME", default="", help="which of the endpoint's models")


def run(args: argparse.Namespace) -> int:
    if args.suites:
        args.sets.append(f"evaluate.suites={json.dumps(args.suites)}")
    if args.predictions and args.endpoint:
        raise UsageError("--predictions and --endpoint are two ways", todo="give one of them")
    if args.predictions:
        return score_file(args)
    if args.endpoint:
        return score_endpoint(args)
    if args.model:
        raise UsageError("--model names one of an endpoint's models", todo="add --endpoint URL")
    if not args.target:
        raise UsageError("nothing to evaluate", todo="name a recipe or a run directory")
    return run_one_stage(args, "evaluate")


def score_file(args: argparse.Namespace) -> int:
    """Needs the questions alone: those of a run directory, or of a recipe, whose data stage runs first."""
    from medmind.evaluate.elsewhere import score_elsewhere

    if len(args.suites) != 1:
        raise UsageError("--predictions needs the one suite they answer", todo="add --suite NAME")
    args.target = args.target or run_with(args.suites[0])
    recipe, rundir = open_run(args)
    if not run_directory(args.target):
        run_stages(recipe, rundir, ("data",))
    with locked(rundir):
        scores, _ = score_elsewhere(recipe.evaluate, rundir, args.predictions, recipe.seed)
    if args.json:
        print(scores.model_dump_json())
    return 0


def score_endpoint(args: argparse.Namespace) -> int:
    """Every suite, or those named, as the run's own models are asked, under `endpoint-` and the model's name."""
    from medmind.evaluate.run import evaluate_model
    from medmind.infer.endpoint import open_endpoint
    from medmind.recipe.stages import open_model, open_support

    if not args.target and len(args.suites) != 1:
        raise UsageError("whose questions?", todo="name a recipe or a run directory, or one --suite")
    args.target = args.target or run_with(args.suites[0])
    recipe, rundir = open_run(args)
    if not run_directory(args.target):
        run_stages(recipe, rundir, ("data",))
    spec, renderer = open_model(recipe)
    asked = open_endpoint(args.endpoint, args.model, renderer.tokenizer, spec.context)
    name = asked.server.model
    which = "endpoint-" + re.sub(r"[^\w.-]", "_", name)
    with locked(rundir):
        prompt, key = recipe.data.system_prompt, asked.server.wire.root
        config, support = recipe.evaluate, open_support(recipe)
        files = evaluate_model(config, rundir, which, name, asked, renderer, prompt, recipe.seed, key, support)
    if args.json:
        print(
            json.dumps([json.loads(path.read_text(encoding="utf-8")) for path in files if path.name == "scores.json"])
        )
    return 0


def run_with(suite: str) -> str:
    """The run that has this suite, where all that have it ask the same."""
    found = [folder for folder in sorted(RUNS.glob("*")) if RunDir(folder).suite(suite).is_file()]
    asked = {sha256_file(RunDir(folder).suite(suite)) for folder in found}
    if len(asked) != 1:
        what = f'{len(found)} runs here have a suite "{suite}"' + (", not all the same" if found else "")
        raise UsageError(what, where=str(RUNS), todo="name a recipe or a run directory before --suite")
    return str(found[0])
