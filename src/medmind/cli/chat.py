"""`medmind chat`: talk to what a run trained, beside its base, or to any other model, here or behind a URL."""

import argparse
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medmind.chat.samples import read_samples
from medmind.chat.session import Chat
from medmind.chat.speaker import Speaker
from medmind.cli.common import add_sets
from medmind.cli.foreign import ADAPTER
from medmind.cli.targets import ENDPOINT_KEY, TARGET, Target, opened
from medmind.core.errors import EnvironmentFault, UsageError
from medmind.core.log import say
from medmind.infer.decoder import Decoder
from medmind.models.spec import ModelSpec
from medmind.prompts.chat import Renderer

HELP = "talk to what was trained, beside its base"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help=TARGET)
    add_sets(parser)
    parser.add_argument("--whole", action="store_true", help="all of stdin is one question, not every line one")
    parser.add_argument("--history", type=Path, metavar="FILE", help="keep what you type there; otherwise nowhere")


def run(args: argparse.Namespace) -> int:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # what is not UTF-8 is said where it is asked
    interactive = sys.stdin.isatty() and not args.whole
    with opened([args.target], args.sets) as (target,), history(args.history if interactive else None):
        chat = open_chat(target, interactive)
        if args.whole:
            chat.ask(sys.stdin.read().strip())
        else:
            chat.run()
    return 0


def open_chat(target: Target, interactive: bool) -> Chat:
    recipe, rundir = target.recipe, target.rundir
    return Chat(
        open_speakers(target),
        read_samples(rundir, recipe.data.task, recipe.seed),
        interactive,
        recipe.serve.additions(recipe.data.task if rundir else ""),
        markdown=sys.stdout.isatty(),
        hearer=target.url.partition("#")[0],
    )


@contextmanager
def history(file: Path | None) -> Iterator[None]:
    """The arrow keys find what was typed; on disk it is only where the user says, and nobody else may read it.

    That it can be kept is shown before anything is typed.
    """
    import readline

    if file is None:
        yield
        return
    if file.exists() and not file.is_file():  # a pipe would be waited for, a device taken from all others
        raise UsageError("--history is not a file", where=str(file), todo="name a file of your own")
    with kept(file):
        file.touch(0o600)
        file.chmod(0o600)
        if file.stat().st_size:
            readline.read_history_file(file)
        readline.write_history_file(file)
    try:
        yield
    finally:
        with kept(file):
            readline.write_history_file(file)
            file.chmod(0o600)


@contextmanager
def kept(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        todo = "check the path and its permissions"
        raise EnvironmentFault(f"what you type cannot be kept: {error.strerror}", where=str(file), todo=todo) from None


def open_speakers(target: Target) -> list[Speaker]:
    """Whoever answers: what was trained, beside its base where that is here too."""
    from medmind.recipe.stages import open_model

    recipe = target.recipe
    spec, renderer = open_model(recipe)
    context, prompt, limit = recipe.serve.context, recipe.data.system_prompt, recipe.evaluate.max_new_tokens
    found = []
    for name, decoder, voice in decoders(target, spec, renderer, context):
        found.append(Speaker(name, decoder, renderer, prompt, limit, voice))
    return found


def decoders(target: Target, spec: ModelSpec, renderer: Renderer, context: int) -> Iterator[tuple[str, Decoder, str]]:
    """By name, each with its voice: the engines of `medmind serve`, with one slot."""
    if target.url:
        from medmind.infer.decode_endpoint import EndpointDecoder
        from medmind.infer.endpoint import open_endpoint

        address, _, name = target.url.partition("#")
        key = os.environ.pop(ENDPOINT_KEY, "")
        endpoint = open_endpoint(address, name, renderer.tokenizer, spec.context, key=key)
        yield endpoint.server.model, EndpointDecoder(endpoint, 1, context), ""
    elif target.gguf and (target.trained is None or target.recipe.serve.engine == "llama.cpp"):
        from medmind.infer.decode_llamacpp import LlamaCppDecoder

        beside = target.recipe.serve.base
        if beside:
            from medmind.infer.decode_hf import open_hf

            say(f"loading {spec.id}")
            yield "base", open_hf(spec, [], 1, context), ""
        say(f"loading {target.gguf}")
        decoder = LlamaCppDecoder(target.gguf, 1, context, tokenizer=renderer.tokenizer)
        yield "tuned" if target.rundir or beside else target.name, decoder, ""
    else:
        from medmind.infer.decode_hf import BASE, open_hf

        say(f"loading {spec.id}")
        adapter = target.trained is not None and (target.trained / ADAPTER).is_file()
        tuned = open_hf(spec, [target.trained], 1, context) if target.trained else None
        if str(target.trained) != spec.source:
            yield "base", tuned if tuned and adapter else open_hf(spec, [], 1, context), BASE if adapter else ""
        if tuned:
            yield "tuned", tuned, ""
