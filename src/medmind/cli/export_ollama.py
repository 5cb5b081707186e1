"""`medmind export TARGET --ollama`: hands the model to a running Ollama and asks it, or says how to do so."""

import argparse
import os
from typing import TYPE_CHECKING

from medmind.cli.common import open_run
from medmind.core.errors import UsageError
from medmind.core.jsonl import write_json
from medmind.core.lock import locked
from medmind.core.log import progress_bar, say
from medmind.core.rundir import RunDir
from medmind.core.sampling import sample
from medmind.recipe.schema import Recipe

if TYPE_CHECKING:
    from medmind.export.ollama_api import Ollama

PROMPTS = 20
"""Asked at most, a seeded sample of the test rows; fewer where export.parity_prompts says so."""


def hand_over(args: argparse.Namespace) -> None:
    """OLLAMA_HOST may name another machine; without it nothing leaves this one."""
    from medmind.export.ollama import model_name
    from medmind.export.ollama_api import find_ollama

    recipe, rundir = open_run(args)
    host = os.environ.get("OLLAMA_HOST", "")
    if ollama := find_ollama(host):
        with locked(rundir):
            create_and_ask(recipe, rundir, ollama)
        return
    name = model_name(rundir)
    say(f"not run here: no Ollama answers at {host or '127.0.0.1:11434'}. Where there is one:")
    say(f"  ollama create {name} -f {rundir.modelfile}\n  ollama run {name}")


def create_and_ask(recipe: Recipe, rundir: RunDir, ollama: "Ollama") -> None:
    """ollama.json keeps what came of it; GateError where Ollama shows the model other prompts than training did."""
    from medmind.data.stage.spool import rows_of
    from medmind.export.ollama import create_request, model_name
    from medmind.export.ollama_api import ask, create, refuse, summary
    from medmind.infer.llamacpp import LlamaCppGenerator
    from medmind.prompts.tasks.known import TASKS
    from medmind.recipe.stages import open_model

    config, system_prompt, name = recipe.export, recipe.data.system_prompt, model_name(rundir)
    file = rundir.gguf(config.modelfile_from)
    spec, renderer = open_model(recipe)
    request = create_request(
        renderer,
        system_prompt=system_prompt,
        num_ctx=config.num_ctx,
        temperature=config.temperature,
        licence=spec.licence,
    )
    create(ollama, name, file, request)
    limit = min(config.max_new_tokens, config.num_ctx // 2)
    rows = [row for row in rows_of(rundir.split("test")) if row.task != "text"]
    asked = {row.id: TASKS.get(row.task).messages(row, system_prompt) for row in rows}
    prompts = {one: renderer.prompt(messages) for one, messages in asked.items()}
    fitting = [one for one, ids in prompts.items() if len(ids) + limit <= config.num_ctx]
    chosen = [
        fitting[place] for place in sample(len(fitting), min(PROMPTS, config.parity_prompts or PROMPTS), recipe.seed)
    ]
    if not chosen:
        raise UsageError("no test prompt leaves room for a reply", todo="raise export.num_ctx")
    ours = LlamaCppGenerator(file, renderer.stop_ids, config.num_ctx)
    with progress_bar("llama.cpp") as progress:
        said = ours.generate([prompts[one] for one in chosen], limit, progress)
    with progress_bar(f"Ollama {ollama.version}") as progress:
        replies = ask(
            ollama, name, asked, dict(zip(chosen, said, strict=True)), renderer, system_prompt, limit, progress
        )
    found = summary(ollama, name, file.name, replies)
    write_json(rundir.ollama, found)
    say(
        f"Ollama {ollama.version} has {name}: {found['prompts_as_ours']} of {found['n']} prompts are seen to be ours, "
        f"{found['replies_equal']} replies word for word as llama.cpp"
    )
    refuse(found, str(rundir.ollama))
