"""What a TARGET of `medmind serve` or `medmind chat` names, and the models that are opened for several of them."""

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from medmind.cli.foreign import (
    ADAPTER,
    WHOSE,
    base_of,
    based_on,
    check_named,
    is_bundle,
    is_url,
    laid_out,
    read_bundle,
    says_model,
    settle_hub,
)
from medmind.core.errors import GateError, UsageError
from medmind.core.log import say
from medmind.core.offline import is_kept_home
from medmind.core.rundir import RunDir
from medmind.models.catalog import names_a_model
from medmind.recipe.load import load_recipe, run_directory
from medmind.recipe.schema import Recipe

if TYPE_CHECKING:
    from medmind.serve.config import ServeConfig
    from medmind.serve.open import Speaker
    from medmind.serve.served import Served

TARGET = (
    "a run directory, a recipe that has run, a bundle, an adapter or checkpoint folder, a GGUF file, a model's name, "
    "or the URL of a server"
)
ENDPOINT_KEY = "MEDMIND_ENDPOINT_KEY"
"""The environment variable with the key of a server that is passed on; MEDMIND_API_KEY is this server's own."""


@dataclass(frozen=True)
class Target:
    """One of: the weights a run or a folder holds, a GGUF, another server; none of these is the base alone."""

    recipe: Recipe
    name: str = ""
    """Empty: the model's own."""
    rundir: RunDir | None = None
    trained: Path | None = None
    gguf: Path | None = None
    url: str = ""


@contextmanager
def opened(texts: Sequence[str], sets: Sequence[str]) -> Iterator[list[Target]]:
    """What the command line names, while the block lasts."""
    settle_hub(texts, sets)
    with laid_out(texts) as places:
        if not is_kept_home():
            check_named(places, sets)
        yield [read_target(place, sets) for place in places]


def read_target(text: str, sets: Sequence[str]) -> Target:
    path = Path(text)
    if is_url(text):
        if not says_model(sets):
            raise UsageError("an endpoint does not tell which model it has", where=text, todo=WHOSE)
        return Target(load_recipe("base", sets), url=text)
    if path.suffix == ".gguf":
        return read_gguf(path, sets)
    if is_bundle(path):
        recipe, trained, gguf = read_bundle(path, sets)
        return Target(recipe, recipe.name, RunDir(path), trained, exported(recipe, RunDir(path), gguf, trained))
    if (path / ADAPTER).is_file():
        return Target(based_on(base_of(path), sets, text), path.absolute().name, trained=path)
    if names_a_model(text):
        return Target(load_recipe("base", [*sets, f"model={json.dumps(text)}"]))
    recipe = load_recipe(text, sets)
    from medmind.export.proven import begun_anew

    rundir = RunDir(run_directory(text) or Path("runs") / recipe.name)
    manifest = rundir.read_manifest()
    if "train" not in manifest.get("stages", {}) or begun_anew(manifest):
        raise UsageError(
            "this run has not finished training",
            where=str(rundir.root),
            todo=f"medmind run {text} starts it or takes it up where it stopped; {recipe.model} is the base model",
        )
    trained = rundir.model if recipe.train.method == "full" else rundir.adapter
    gguf = rundir.gguf(recipe.export.modelfile_from)
    return Target(recipe, recipe.name, rundir, trained, exported(recipe, rundir, gguf, trained))


def read_gguf(path: Path, sets: Sequence[str]) -> Target:
    """Of a run, with all that its recipe says; or any other, looked through before llama.cpp gets it."""
    rundir = RunDir(path.absolute().parent.parent)
    if not path.is_file():
        raise UsageError("no such file", where=str(path))
    if rundir.recipe.is_file() and rundir.export == path.absolute().parent and not is_bundle(rundir.root):
        recipe = load_recipe(str(rundir.root), sets)
        return Target(recipe, recipe.name, rundir, gguf=exported(recipe, rundir, path, None))
    from medmind.export.header import read_tensors

    read_tensors(path)
    return Target(based_on("", sets, str(path)), path.stem, gguf=path)


def exported(recipe: Recipe, rundir: RunDir, gguf: Path | None, trained: Path | None) -> Path | None:
    """The GGUF that is served in the place of the checkpoint, or because there is no other."""
    from medmind.export.proven import doubt
    from medmind.infer.llamacpp import has_library

    wanted = "llama.cpp" if gguf and not trained else recipe.serve.engine
    if gguf is None or not gguf.is_file():
        if wanted == "llama.cpp":
            raise UsageError("the run has no such GGUF", where=str(gguf or "export"), todo="run the export stage first")
        return None
    if wanted != "llama.cpp" and (wanted != "auto" or not has_library()):
        return None
    if not (fault := doubt(rundir, gguf)):
        return gguf
    if wanted == "llama.cpp":
        todo = "export the run again; a copy elsewhere is served as any file is, with --set model=NAME"
        raise GateError(fault, where=str(gguf), todo=todo)
    say(f"{gguf}: {fault}; the checkpoint answers in its place", style="yellow")
    return None


def open_targets(targets: Sequence[Target], config: "ServeConfig") -> "list[Served]":
    """Those that lie over one base are opened together, and it is loaded once."""
    key = os.environ.pop(ENDPOINT_KEY, "")
    if key and len(servers := {urlsplit(target.url).netloc for target in targets if target.url}) > 1:
        what = f"the key in {ENDPOINT_KEY} would be shown to each of these servers"
        raise UsageError(what, where=", ".join(sorted(servers)), todo="serve one of them at a time")
    groups: dict[tuple[str, str], list[tuple[Speaker, Target]]] = defaultdict(list)
    for target in targets:
        for place, speaker, spoken in voices(target, config):
            groups[place].append((speaker, spoken))
    check_names([speaker.name for group in groups.values() for speaker, target in group if not target.url])
    found = [model for group in groups.values() for model in open_group(group, config, key)]
    check_names([model.name for model in found])
    return found


def check_names(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise UsageError(f"two models of one name among {', '.join(names)}", todo="name each target once")


def voices(target: Target, config: "ServeConfig") -> "Iterator[tuple[tuple[str, str], Speaker, Target]]":
    """The target and, if wanted, its base: with its own weights (an adapter lies over its base's) and how it speaks."""
    from medmind.recipe.stages import open_model
    from medmind.serve.open import Speaker

    recipe = target.recipe
    spec, renderer = open_model(recipe)
    name = target.name or Path(spec.id).name
    speaker = Speaker(name, spec, renderer, recipe.data.system_prompt, recipe.export.temperature)
    whole = target.trained and not (target.trained / ADAPTER).is_file()
    own = target.url or str(target.gguf or (target.trained if whole else ""))
    yield (own, spec.address), speaker, target
    if config.base and target.rundir:
        yield ("", spec.address), replace(speaker, name=f"{name}-base"), replace(target, trained=None, gguf=None)


def open_group(group: "Sequence[tuple[Speaker, Target]]", config: "ServeConfig", key: str) -> "Iterator[Served]":
    from medmind.models.weights import find_weights
    from medmind.serve.open import open_checkpoint, open_gguf, open_remote

    speaker, first = group[0]
    if first.url:
        found = [open_remote(one, first.url, key, config) for one, _ in group]
    elif first.gguf:
        say(f"loading {first.gguf}")
        found = [open_gguf(one, first.gguf, config) for one, _ in group]
    else:
        say(f"loading {speaker.spec.id}")
        spoken = [(one, target.trained) for one, target in group]
        found = open_checkpoint(spoken, find_weights(speaker.spec), config)
    for model, (_, target) in zip(found, group, strict=True):
        noted = bool(target.rundir) and config.additions(target.recipe.data.task).note
        yield replace(model, noted=noted)
