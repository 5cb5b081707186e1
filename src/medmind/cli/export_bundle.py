"""`medmind export TARGET --bundle` and `medmind export verify BUNDLE`."""

import argparse
import json
from pathlib import Path

from medmind.cli.common import open_run
from medmind.core.errors import UsageError
from medmind.core.lock import locked
from medmind.core.log import say


def pack(args: argparse.Namespace) -> None:
    from medmind.export.bundle import make_bundle
    from medmind.export.parts import find_parts

    recipe, rundir = open_run(args)
    with locked(rundir):
        files = [file for _, file in find_parts(rundir, recipe.export.ship.parts, recipe.export.gguf)]
        digest = make_bundle(rundir, files, recipe.name, rundir.bundle)
    say(f"{rundir.bundle}: {rundir.bundle.stat().st_size / 1e6:,.1f} MB, bundle {digest}")


def verify_bundle(path: Path, args: argparse.Namespace) -> int:
    """Exit 0: every byte is as it was made. What is printed tells this bundle from any other."""
    from medmind.export.bundle import unpack, verify

    if args.sets:
        raise UsageError("--set has no effect with verify")
    if not path.exists():
        raise UsageError("no such bundle", where=str(path), todo="medmind export RUN --bundle makes one")
    bundle = verify(path)
    say(f"{len(bundle.members)} files as they were made, bundle {bundle.index['sha256']}")
    if args.out:
        unpack(bundle, args.out)
        say(f"unpacked into {args.out}")
    if args.json:
        print(json.dumps(bundle.index, ensure_ascii=False))
    return 0
