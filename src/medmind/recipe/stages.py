"""Calls the stages in order; each meets the others only in the run directory, and is skipped when up to date."""

import importlib.metadata
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medmind.core.errors import GateError, UsageError
from medmind.core.jsonl import write_text
from medmind.core.lock import locked
from medmind.core.log import say
from medmind.core.rundir import RunDir, sha256_file, sha256_value
from medmind.data.sources.facts import FOLDER as FACTS
from medmind.models.catalog import check_facts, find_model
from medmind.models.files import is_here
from medmind.models.spec import ModelSpec
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.chat import Renderer
from medmind.prompts.families import open_renderer
from medmind.recipe.load import dump_recipe
from medmind.recipe.schema import Recipe

if TYPE_CHECKING:
    from medmind.evaluate.support import Entails
    from medmind.export.parity.scores import Scoring

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "tokenizers",
    "safetensors",
    "gguf",
    "numba",
    "cyllama",
    "llama-cpp-python",
    "numpy",
    "sacrebleu",
)
MODEL_FILES = (".json", ".safetensors", ".py")
READS: dict[str, tuple[str, ...]] = {
    "data": (),
    "train": ("data",),
    "evaluate": ("data", "train"),
    "export": ("data", "train", "evaluate"),
    "report": ("data", "train", "evaluate", "export"),
}
"""Whose files each stage reads: when they change, it is done again."""
NEEDS: dict[str, tuple[str, ...]] = READS | {"export": ("data", "train"), "report": ()}
"""Without whose files it cannot run at all."""


def run_stages(recipe: Recipe, rundir: RunDir, stages: tuple[str, ...]) -> None:
    """Runs the named stages, skipping those whose inputs and settings are as they were."""
    with locked(rundir):
        first = next((stage for stage in stages if not rundir.is_done(stage, stage_key(recipe, rundir, stage))), "")
        if first:
            check_inputs(recipe, rundir, first, stages)
        write_text(rundir.recipe, dump_recipe(recipe))
        rundir.note(**facts(recipe))
        refused: GateError | None = None
        for number, stage in enumerate(stages, start=1):
            if refused and stage != "report":
                continue
            try:
                run_stage(recipe, rundir, stage, stages, f"[{number}/{len(stages)}] {stage}")
            except GateError as error:
                refused = error  # the report still tells what was refused
        if refused:
            raise refused


def run_stage(recipe: Recipe, rundir: RunDir, stage: str, stages: tuple[str, ...], label: str) -> None:
    if stage == "data":
        from medmind.data.stage.prepare import tidy

        tidy(rundir)
    key = stage_key(recipe, rundir, stage)
    if rundir.is_done(stage, key):
        say(f"{label}: up to date")
        return
    check_inputs(recipe, rundir, stage, stages)
    say(f"{label}: {TITLES[stage]}", style="bold")
    forget_other_work(rundir, stage, stage_key(with_every_suite(recipe), rundir, stage))
    if stage not in ("data", "report") and not (spec := check_facts(find_model(recipe.model))).local:
        rundir.note(model_commit=spec.revision)
    started = time.monotonic()
    files = RUN[stage](recipe, rundir)
    rundir.finish(stage, key, files, time.monotonic() - started)


def facts(recipe: Recipe) -> dict[str, Any]:
    """What the manifest says of the machine and the code."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "name": recipe.name,
        "model": recipe.model,
        "seed": recipe.seed,
        "medmind": importlib.metadata.version("medmind"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "packages": versions,
    }


def stage_key(recipe: Recipe, rundir: RunDir, stage: str) -> str:
    """Changes when anything a stage depends on does: its settings, its inputs, the model, the seed, the code."""
    parts: dict[str, Any] = {
        "medmind": importlib.metadata.version("medmind"),
        "seed": recipe.seed,
        "config": getattr(recipe, stage).model_dump(mode="json", exclude={"ship"}),
        "inputs": {name: rundir.stage_digest(name) for name in READS[stage]},
        "system_prompt": recipe.data.system_prompt,
    }
    if stage == "data":
        read = [recipe.data.path, *(suite.path for suite in recipe.data.suites.values()), str(FACTS)]
        parts["source"] = [input_digest(path) for path in read]
        parts["model"] = recipe.model  # its tokenizer counts
    elif stage != "report":
        spec = check_facts(find_model(recipe.model))
        parts["model"] = spec.id, input_digest(spec.source, MODEL_FILES) if spec.local else spec.address
        parts["trust_remote_code"] = recipe.trust_remote_code
    if stage == "evaluate" and recipe.evaluate.support_model:
        parts["support_model"] = input_digest(recipe.evaluate.support_model, MODEL_FILES)
    return sha256_value(parts)


def input_digest(path: str, suffixes: tuple[str, ...] = ()) -> str:
    """Hash of a file, or of the files below a folder; an absent one is the data stage's error to explain."""
    place = Path(path)
    if not path or not place.exists():
        return path
    files = sorted(child for child in place.rglob("*") if child.is_file()) if place.is_dir() else [place]
    read = [child for child in files if not suffixes or child.suffix in suffixes]
    return sha256_value([(child.relative_to(place).as_posix(), sha256_file(child)) for child in read])


def check_inputs(recipe: Recipe, rundir: RunDir, stage: str, stages: tuple[str, ...]) -> None:
    """A stage run alone needs what the earlier ones make of this very recipe."""
    for earlier in NEEDS[stage]:
        if earlier not in stages:
            check_done(recipe, rundir, earlier, stage)


def check_done(recipe: Recipe, rundir: RunDir, stage: str, reader: str) -> None:
    """`reader` is what needs the stage's files."""
    if not rundir.is_done(stage, stage_key(recipe, rundir, stage)):
        raise UsageError(
            f"{reader} needs {stage}, which has not finished with this recipe",
            where=str(rundir.root),
            todo=f"medmind {stage} …, or medmind run … for all of it",
        )


def forget_other_work(rundir: RunDir, stage: str, key: str) -> None:
    """Half-done work is resumed only under the same key; a stage begun with other settings starts anew."""
    begun = rundir.read_manifest().get("begun", {})
    folder = rundir.root / stage
    if begun.get(stage) != key and folder.is_dir() and stage != "data":  # data replaces its own, once it has read all
        shutil.rmtree(folder)
    rundir.note(begun=begun | {stage: key})


def with_every_suite(recipe: Recipe) -> Recipe:
    """Asking one suite alone, or another protocol, is no reason to forget the answers there are."""
    usual = {"suites": (), "protocols": (), "allow_missing": False, "margin": 0.02}
    usual |= {"samples": 0, "temperature": 0.7, "support_model": ""}
    return recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update=usual)})


def trained_folder(recipe: Recipe, rundir: RunDir) -> Path:
    return rundir.model if recipe.train.method == "full" else rundir.adapter


def open_model(recipe: Recipe) -> tuple[ModelSpec, Renderer]:
    spec = replace(check_facts(find_model(recipe.model)), trust_remote_code=recipe.trust_remote_code)
    return spec, open_renderer(spec.renderer, open_tokenizer(spec))


def run_data(recipe: Recipe, rundir: RunDir) -> list[Path]:
    from medmind.data.quality.lengths import Lengths
    from medmind.data.stage.prepare import prepare

    if not is_here(find_model(recipe.model), "tokenizer.json"):
        say(f"rows are not counted in tokens: the tokenizer of {recipe.model} is not on this machine yet")
        return prepare(recipe.data, rundir, recipe.seed)
    lengths = Lengths(open_model(recipe)[1], recipe.data.system_prompt)
    return prepare(recipe.data, rundir, recipe.seed, lengths)


def run_train(recipe: Recipe, rundir: RunDir) -> list[Path]:
    from medmind.train.engine import train

    spec, renderer = open_model(recipe)
    return train(recipe.train, rundir, spec, renderer, recipe.data.system_prompt, recipe.seed)


def run_evaluate(recipe: Recipe, rundir: RunDir) -> list[Path]:
    from medmind.evaluate.browse import write_browse
    from medmind.evaluate.compare import compare
    from medmind.evaluate.lm_eval_files import write_lm_eval
    from medmind.evaluate.run import chosen_suites, evaluate_model
    from medmind.infer.open import open_generator

    spec, renderer = open_model(recipe)
    config = recipe.evaluate
    entails = open_support(recipe)
    files: list[Path] = []
    for which, trained in (("base", None), ("tuned", trained_folder(recipe, rundir))):
        generator = open_generator(
            spec,
            trained,
            renderer,
            dtype=config.dtype,
            load_in_4bit=config.load_in_4bit,
            batch_size=config.batch_size,
        )
        prompt = recipe.data.system_prompt
        files += evaluate_model(
            config, rundir, which, spec.id, generator, renderer, prompt, recipe.seed, entails=entails
        )
    files += compare(config, rundir, recipe.seed)
    suites = chosen_suites(rundir, config.suites)
    for which in ("base", "tuned"):
        files += write_lm_eval(rundir, which, suites, config.max_items, recipe.seed)
    return files + write_browse(rundir, suites, config.max_items, recipe.seed)


def open_support(recipe: Recipe) -> "Entails | None":
    """The support model, where the recipe names one."""
    if not recipe.evaluate.support_model:
        return None
    from medmind.infer.entail import open_entailer

    return open_entailer(recipe.evaluate.support_model)


def run_export(recipe: Recipe, rundir: RunDir) -> list[Path]:
    from medmind.export.run import export

    spec, renderer = open_model(recipe)
    trained, prompt = trained_folder(recipe, rundir), recipe.data.system_prompt
    return export(recipe.export, rundir, spec, trained, renderer, prompt, recipe.seed, scoring())


def scoring() -> "Scoring":
    """Evaluation's judgement, for the gate of the export: stages know nothing of each other."""
    from medmind.evaluate.metrics.paired import newcombe
    from medmind.evaluate.predict import is_correct
    from medmind.export.parity.scores import Scoring

    return Scoring(is_correct, newcombe)


def run_report(recipe: Recipe, rundir: RunDir) -> list[Path]:
    from medmind.report.html import write_report

    return write_report(recipe.report, rundir, recipe.seed)


RUN: dict[str, Callable[[Recipe, RunDir], list[Path]]] = {
    "data": run_data,
    "train": run_train,
    "evaluate": run_evaluate,
    "export": run_export,
    "report": run_report,
}
TITLES = {
    "data": "reading, checking and splitting the data",
    "train": "training",
    "evaluate": "asking the base and the tuned model the same questions",
    "export": "merging, converting to GGUF, proving that the export says the same",
    "report": "writing the report",
}
