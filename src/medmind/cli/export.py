"""`medmind export`: that one stage, and what is done with what it made: compare, verify a bundle, push to the Hub."""

import argparse
from pathlib import Path

from medmind.cli.common import add_recipe_arguments, run_one_stage
from medmind.core.errors import UsageError

HELP = (
    "The export stage: merge, GGUF, Modelfile, parity. `parity A B` compares a checkpoint folder or a GGUF with "
    "another one or a running server, `verify BUNDLE` checks a bundle byte by byte, `push RUN` fills the repository "
    "that export.ship.repo_id names."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "word",
        nargs="?",
        choices=("parity", "verify", "push"),
        help="parity: does the second say what TARGET says? verify: is the bundle TARGET as it was made? With --out it "
        "is unpacked there; push: TARGET to the Hub",
    )
    add_recipe_arguments(parser)
    parser.add_argument("other", nargs="?", metavar="B", help="parity: what TARGET is compared with")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="parity: rows to ask, as data/test.jsonl has them")
    parser.add_argument("--as", dest="kind", metavar="KIND", help="parity: the kind of GGUF whose bounds hold")
    parser.add_argument("--bundle", action="store_true", help="also pack what is handed on into one file")
    parser.add_argument("--ollama", action="store_true", help="also create the model in a running Ollama, and ask it")
    parser.add_argument("--dry-run", action="store_true", help="push: say what would be uploaded; contact nothing")


def run(args: argparse.Namespace) -> int:
    if args.word == "parity":
        from medmind.cli.export_parity import compare

        return compare(args)
    if args.other or args.rows or args.kind:
        raise UsageError("a second word, --rows and --as go with `medmind export parity A B`")
    if args.dry_run and args.word != "push":
        raise UsageError("--dry-run goes with `medmind export push`")
    if args.word and (args.bundle or args.ollama):
        raise UsageError(f"--bundle and --ollama do not go with `medmind export {args.word}`")
    if args.word == "verify":
        from medmind.cli.export_bundle import verify_bundle

        return verify_bundle(Path(args.target), args)
    if args.word == "push":
        from medmind.cli.export_push import push_run

        return push_run(args)
    code = run_one_stage(args, "export")
    if args.bundle:
        from medmind.cli.export_bundle import pack

        pack(args)
    if args.ollama:
        from medmind.cli.export_ollama import hand_over

        hand_over(args)
    return code
