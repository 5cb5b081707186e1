"""`medmind models make SHAPE DIR`: a checkpoint with random weights, to rehearse and measure with; no network."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from medmind.core.disk import require_space
from medmind.core.errors import UsageError
from medmind.core.jsonl import read_json, write_text
from medmind.core.log import progress_bar, say
from medmind.core.registry import did_you_mean
from medmind.models.catalog import CATALOG, find_row
from medmind.models.spec import ModelSpec

SMALL_FILES = 20_000_000
"""Bytes of tokenizer and settings, at most."""
README = """\
# Random weights in the shape of {id}

Made by `medmind models make`, to rehearse a run and to measure memory and time. **Nothing was trained: this is not
{source}, and what it says means nothing.**

- {parameters:,} parameters, bfloat16; normal with a standard deviation of 0.02, norms 1; the same bytes every time.
- Tokenizer: {tokenizer}.
"""


def make(args: argparse.Namespace) -> int:
    spec = find_row(args.shape)
    if spec is None:
        known = [spec.id for spec in CATALOG]
        todo = f"known: {', '.join(known)}"
        raise UsageError(f'unknown shape "{args.shape}"{did_you_mean(args.shape, known)}', todo=todo)
    make_checkpoint(spec, args.dir)
    return 0


def make_checkpoint(spec: ModelSpec, out: Path) -> None:
    """The folder appears under its name when it is whole."""
    refuse_occupied(out)
    require_space(out, 2 * spec.shape.parameters + SMALL_FILES, spec.id)
    from medmind.export.merge import write_config, write_tokenizer
    from medmind.export.whole import whole
    from medmind.models.make import make_weights
    from medmind.models.vocabulary import find_tokenizer

    with whole(out) as folder, progress_bar(f"{spec.id}, random weights, MB") as bar:
        folder.mkdir()
        tokenizer, origin = find_tokenizer(spec)
        write_text(folder / "tokenizer.json", json.dumps(tokenizer, ensure_ascii=False))
        write_tokenizer(replace(spec, source=str(folder), local=True), folder)
        said = read_json(folder / "generation_config.json")
        control = {name: said[name] for name in ("bos_token_id", "eos_token_id")}
        make_weights(spec, folder, control, lambda done, total: bar(done // 10**6, total // 10**6))
        write_config(folder)
        facts = {"id": spec.id, "source": spec.source, "parameters": spec.shape.parameters, "tokenizer": origin}
        write_text(folder / "README.md", README.format(**facts))
    say(f"{out}: random weights in the shape of {spec.id}, {spec.shape.parameters:,} parameters; tokenizer: {origin}")


def refuse_occupied(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        raise UsageError("there is something already", where=str(out), todo="name a folder that is empty or not there")
