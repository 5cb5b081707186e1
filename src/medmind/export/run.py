"""The export stage: a trained folder → checkpoint, GGUF files, Modelfile and card, and the proof that they agree."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from medmind.core.errors import DataError, UsageError
from medmind.core.jsonl import read_json, read_jsonl, write_json, write_text
from medmind.core.log import progress_bar, say
from medmind.core.rundir import RunDir, sha256_file, sha256_value
from medmind.core.types import Example
from medmind.export import gguf
from medmind.export.adapter_gguf import write_adapter
from medmind.export.card import card
from medmind.export.config import ExportConfig
from medmind.export.merge import merge
from medmind.export.metadata import Facts
from medmind.export.ollama import model_name, modelfile
from medmind.export.parity.prove import prove
from medmind.export.parity.scores import Scoring
from medmind.export.whole import sweep
from medmind.models.spec import ModelSpec
from medmind.prompts.chat import Renderer


def export(
    config: ExportConfig,
    rundir: RunDir,
    spec: ModelSpec,
    trained: Path,
    renderer: Renderer,
    system_prompt: str,
    seed: int,
    scoring: Scoring | None = None,
) -> list[Path]:
    """Returns every file it left in export/; raises GateError when the files do not say what the model says.

    Without `scoring` the suites are not asked.
    """
    if config.num_ctx > spec.context:
        raise UsageError(
            f"export.num_ctx {config.num_ctx} exceeds the context of {spec.id}", todo=f"set at most {spec.context}"
        )
    name = model_name(rundir)
    tests = read_tests(rundir)
    sweep(rundir.export)
    make_merged(rundir, spec, trained, renderer)
    facts = collect_facts(rundir, spec, trained, name)
    with full_precision(config, rundir, facts) as full:
        for kind in config.gguf:
            write_gguf(rundir, rundir.gguf(kind), kind, facts)
        if config.adapter_gguf:
            write_adapter(spec, trained, rundir.gguf("adapter"), facts)
        write_text(rundir.modelfile, describe_for_ollama(config, rundir, spec, renderer, system_prompt))
        proof = prove(config, rundir, spec, trained, full, renderer, tests, system_prompt, scoring, seed)
    write_json(rundir.parity, proof.as_json())
    write_text(rundir.card, card(rundir, spec, name, config.gguf, proof.replies))
    proof.refuse(str(rundir.parity))
    return sorted(path for path in rundir.export.rglob("*") if path.is_file())


def read_tests(rundir: RunDir) -> list[Example]:
    """Without plain passages: nothing is asked there."""
    examples = [Example(**line) for line in read_jsonl(rundir.split("test")) if line["task"] != "text"]
    if not examples:
        raise DataError(
            "no test row to check the export with", where=str(rundir.split("test")), todo="raise data.test_fraction"
        )
    return examples


def make_merged(rundir: RunDir, spec: ModelSpec, trained: Path, renderer: Renderer) -> None:
    inputs = {
        "base": digests(Path(spec.source)) if spec.local else spec.address,
        "trained": digests(trained),
        "chat_template": renderer.chat_template,
    }
    if rundir.merged_from.exists() and read_json(rundir.merged_from) == inputs | {"files": digests(rundir.merged)}:
        return
    say("merging into the unquantised base")
    rundir.merged_from.unlink(missing_ok=True)
    with progress_bar("merging") as progress:
        merge(spec, trained, rundir.merged, progress)
    write_json(rundir.merged_from, inputs | {"files": digests(rundir.merged)})


def collect_facts(rundir: RunDir, spec: ModelSpec, trained: Path, name: str) -> Facts:
    sources = [origin["source"] for origin in read_json(rundir.licences)] if rundir.licences.exists() else []
    return Facts(
        name,
        spec.licence,
        spec.id,
        base_source="" if spec.local else spec.source,
        base_revision="" if spec.local else spec.revision,
        datasets=tuple(dict.fromkeys(sources)),
        trained_sha256=sha256_file(trained),
    )


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix in (".json", ".safetensors"))
    return {str(path.relative_to(folder)): sha256_file(path) for path in files}


@contextmanager
def full_precision(config: ExportConfig, rundir: RunDir, facts: Facts) -> Iterator[Path]:
    """The float32 GGUF the others are made from and checked by; it stays only if the recipe asks for it."""
    kept = rundir.gguf("f32")
    scratch = kept.with_name(".model-f32.scratch.gguf")
    file = kept if "f32" in config.gguf else scratch
    write_gguf(rundir, file, "f32", facts)
    yield file
    scratch.unlink(missing_ok=True)


def write_gguf(rundir: RunDir, out: Path, kind: str, facts: Facts) -> None:
    key = inputs(rundir, facts)
    if rundir.is_made(out, key):
        return
    with progress_bar(f"writing {out.name}") as progress:
        gguf.write(rundir.merged, out, kind, facts, progress)
    rundir.note_made(out, key)


def inputs(rundir: RunDir, facts: Facts) -> str:
    """Hash of all that a GGUF is made from."""
    return sha256_value([read_json(rundir.merged_from), asdict(facts)])


def describe_for_ollama(
    config: ExportConfig, rundir: RunDir, spec: ModelSpec, renderer: Renderer, system_prompt: str
) -> str:
    return modelfile(
        rundir.gguf(config.modelfile_from).name,
        renderer,
        system_prompt=system_prompt,
        num_ctx=config.num_ctx,
        temperature=config.temperature,
        licence=spec.licence,
    )
