"""The name of every artefact, and when a stage is up to date; no other module spells a file name."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medmind.core.errors import DataError
from medmind.core.jsonl import read_json, write_json

SCHEMA_VERSION = 1
LOCK = ".lock"
"""Held by whoever works in the folder it lies in."""


def sha256_file(path: Path) -> str:
    """Hash of a file's bytes; of a folder, over the names and hashes of all files in it."""
    if path.is_dir():
        files = sorted(child for child in path.rglob("*") if child.is_file())
        return sha256_lines(f"{child.relative_to(path).as_posix()} {sha256_file(child)}" for child in files)
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_lines(lines: Iterable[str]) -> str:
    """Hash of a list of ids: one a line, in the order given."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def sha256_value(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def is_manifest(value: Any) -> bool:
    """Whether what the methods below read back has the form they gave it."""
    if not isinstance(value, dict):
        return False
    stages, begun, made = (value.get(part, {}) for part in ("stages", "begun", "made"))
    return all(isinstance(part, dict) for part in (stages, begun, made)) and all(
        isinstance(record, dict) and isinstance(record.get("files"), dict) and "key" in record
        for record in stages.values()
    )


@dataclass(frozen=True)
class RunDir:
    """Paths below one run directory, as contracts fix them."""

    root: Path

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.yaml"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def lock(self) -> Path:
        return self.root / LOCK

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def data(self) -> Path:
        return self.root / "data"

    def split(self, name: str) -> Path:
        """train, validation, test or dropped."""
        return self.data / f"{name}.jsonl"

    @property
    def data_report(self) -> Path:
        return self.data / "report.json"

    @property
    def findings(self) -> Path:
        """Every row a check found something in."""
        return self.data / "findings.jsonl"

    @property
    def licences(self) -> Path:
        return self.data / "licences.json"

    def suite(self, name: str) -> Path:
        return self.data / "suites" / f"{name}.jsonl"

    def suites(self) -> list[str]:
        """The names of the suites the data stage wrote."""
        return sorted(path.stem for path in self.suite("x").parent.glob("*.jsonl"))

    @property
    def train(self) -> Path:
        return self.root / "train"

    def rows(self, part: str) -> Path:
        """Token ids of train or validation, as long as training needs them."""
        return self.train / "rows" / f"{part}.tokens"

    @property
    def plan(self) -> Path:
        return self.train / "plan.json"

    @property
    def metrics(self) -> Path:
        return self.train / "metrics.jsonl"

    @property
    def processes(self) -> Path:
        return self.train / "processes.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.train / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """What TensorBoard reads, if train.report_to names it."""
        return self.train / "tensorboard"

    @property
    def adapter(self) -> Path:
        return self.train / "adapter"

    @property
    def model(self) -> Path:
        """The whole model, when the method is full."""
        return self.train / "model"

    @property
    def evaluate(self) -> Path:
        return self.root / "evaluate"

    def predictions(self, suite: str, which: str) -> Path:
        """`which` is base or tuned."""
        return self.evaluate / suite / which / "predictions.jsonl"

    def scores(self, suite: str, which: str) -> Path:
        return self.evaluate / suite / which / "scores.json"

    def losses(self, suite: str, which: str) -> Path:
        """The held-out loss of each item: what a paired comparison of losses needs."""
        return self.evaluate / suite / which / "losses.jsonl"

    def samples(self, suite: str, which: str) -> Path:
        """Several replies to each question, drawn by chance."""
        return self.evaluate / suite / which / "samples.jsonl"

    def support(self, suite: str, which: str) -> Path:
        """What the support model makes of each sentence of the replies."""
        return self.evaluate / suite / which / "support.jsonl"

    def protocol(self, suite: str, which: str, name: str) -> Path:
        """The answers under one published protocol of asking."""
        return self.evaluate / suite / which / "protocols" / f"{name}.jsonl"

    def comparison(self, suite: str) -> Path:
        return self.evaluate / suite / "comparison.json"

    def gain(self, suite: str) -> Path:
        """The gain of a suite of choices, split into its parts."""
        return self.evaluate / suite / "gain.json"

    @property
    def browse(self) -> Path:
        return self.evaluate / "browse.html"

    def lm_eval(self, which: str) -> Path:
        """The folder with scores and samples as lm-evaluation-harness writes them."""
        return self.evaluate / "lm_eval" / which

    @property
    def export(self) -> Path:
        return self.root / "export"

    @property
    def merged(self) -> Path:
        return self.export / "merged"

    @property
    def merged_from(self) -> Path:
        """Hashes of merged/ and of what it was made from: its provenance, and how an unchanged one is recognised."""
        return self.export / "merged.json"

    def gguf(self, kind: str) -> Path:
        """`kind` is f32, f16, q8_0, q4_k_m, …"""
        return self.export / f"model-{kind}.gguf"

    @property
    def modelfile(self) -> Path:
        return self.export / "Modelfile"

    @property
    def card(self) -> Path:
        return self.export / "README.md"

    @property
    def parity(self) -> Path:
        return self.export / "parity.json"

    @property
    def ollama(self) -> Path:
        """What an Ollama said that was given the model."""
        return self.export / "ollama.json"

    @property
    def bundle(self) -> Path:
        """What is handed on, in one file."""
        return self.root / "bundle.tar"

    def read_manifest(self) -> dict[str, Any]:
        todo = "remove it, and every stage runs again"
        try:
            manifest: dict[str, Any] = read_json(self.manifest) if self.manifest.exists() else {}
        except DataError as error:
            raise DataError(error.what, where=error.where, todo=todo) from None
        if not is_manifest(manifest):
            raise DataError("not a manifest", where=str(self.manifest), todo=todo)
        return manifest

    def note(self, **entries: Any) -> None:
        """Merges entries into the manifest; the run's facts stand in this one file."""
        manifest = {"schema_version": SCHEMA_VERSION} | self.read_manifest() | entries
        write_json(self.manifest, manifest)

    def is_done(self, stage: str, key: str) -> bool:
        """True when the stage finished with this key and every file it wrote is still as it was."""
        record = self.read_manifest().get("stages", {}).get(stage)
        if not record or record["key"] != key:
            return False
        files: dict[str, str] = record["files"]
        return all(
            (self.root / name).is_file() and sha256_file(self.root / name) == digest for name, digest in files.items()
        )

    def finish(self, stage: str, key: str, files: Iterable[Path], seconds: float) -> None:
        """Records what a stage wrote, so that it can be skipped or found damaged next time."""
        digests = {str(path.relative_to(self.root)): sha256_file(path) for path in sorted(files)}
        stages = self.read_manifest().get("stages", {})
        record = {"key": key, "seconds": round(seconds, 1), "files": digests}
        self.note(stages=stages | {stage: record})

    def is_made(self, path: Path, key: str) -> bool:
        """True when this one file was made with this key and is as it was: a killed stage need not make it again."""
        record = self.read_manifest().get("made", {}).get(str(path.relative_to(self.root)))
        return path.is_file() and record == {"key": key, "sha256": sha256_file(path)}

    def note_made(self, path: Path, key: str) -> None:
        made = self.read_manifest().get("made", {})
        self.note(made=made | {str(path.relative_to(self.root)): {"key": key, "sha256": sha256_file(path)}})

    def stage_digest(self, stage: str) -> str:
        """One hash over all a stage wrote: the input key of the stages after it."""
        return sha256_value(self.read_manifest().get("stages", {}).get(stage, {}).get("files", {}))
