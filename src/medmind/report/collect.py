"""A run directory read into one value for the page and the terminal; a missing or damaged file is said, never fatal."""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from medmind.core.errors import MedmindError
from medmind.core.jsonl import read_json, read_jsonl, read_lines
from medmind.core.rundir import RunDir

STAGES = ("data", "train", "evaluate", "export")
SPLITS = ("train", "validation", "test", "dropped")


@dataclass(frozen=True)
class Shown:
    """One question with its reference and the two answers (predictions as they were kept, or nothing)."""

    id: str
    task: str
    question: str
    passages: tuple[str, ...]
    options: tuple[str, ...]
    reference: str
    base: dict[str, Any]
    tuned: dict[str, Any]

    @property
    def failed(self) -> bool:
        return is_failure(self.tuned)


@dataclass(frozen=True)
class Suite:
    """What evaluate wrote for one suite: scores.json of each model, comparison.json and gain.json, as they stand."""

    name: str
    base: dict[str, Any]
    tuned: dict[str, Any]
    comparison: dict[str, Any]
    gain: dict[str, Any] = field(default_factory=dict)
    examples: tuple[Shown, ...] = ()

    @property
    def ran(self) -> bool:
        return bool(self.base or self.tuned)


@dataclass
class Run:
    """Everything the report shows."""

    root: Path
    seed: int
    recipe: dict[str, Any] = field(default_factory=dict)
    recipe_text: str = ""
    manifest: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    licences: Any = None
    plan: dict[str, Any] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    held_out: list[dict[str, Any]] = field(default_factory=list)
    suites: list[Suite] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    parity: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.recipe.get("name") or self.root.resolve().name)

    @property
    def model(self) -> str:
        return str(self.recipe.get("model") or "not recorded")

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        return as_dict(self.manifest.get("stages"))

    def section(self, name: str) -> dict[str, Any]:
        return as_dict(self.recipe.get(name))

    def absent(self, stage: str) -> str:
        """Why there is nothing to show for a stage, in words."""
        planned = self.recipe.get("stages")
        if isinstance(planned, list) and stage not in planned:
            return f"The stage “{stage}” is not part of this recipe (its stages: {', '.join(map(str, planned))})."
        if stage in self.stages:
            return f"The stage “{stage}” is recorded as finished, but its files are not in this run directory."
        return f"The stage “{stage}” has not run: manifest.json has no record of it."


class Reader:
    """Reads what is there; what is damaged becomes a line in `problems`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[str] = []

    def complain(self, path: Path, what: object) -> None:
        self.problems.append(f"{path.relative_to(self.root)}: {str(what).replace(str(self.root) + '/', '')}")

    def json(self, path: Path) -> Any:
        try:
            return read_json(path) if path.is_file() else None
        except (MedmindError, OSError) as error:
            self.complain(path, error)
            return None

    def object(self, path: Path) -> dict[str, Any]:
        value = self.json(path)
        if value is not None and not isinstance(value, dict):
            self.complain(path, "not a JSON object")
        return as_dict(value)

    def lines(self, path: Path) -> list[dict[str, Any]]:
        """The objects of a JSONL file up to its first fault."""
        found: list[dict[str, Any]] = []
        try:
            if path.is_file():
                found.extend(line for line in read_jsonl(path) if isinstance(line, dict))
        except (MedmindError, OSError) as error:
            self.complain(path, error)
        return found

    def count(self, path: Path) -> int | None:
        try:
            return sum(1 for _ in read_lines(path)) if path.is_file() else None
        except (MedmindError, OSError) as error:
            self.complain(path, error)
            return None

    def recipe(self, path: Path) -> tuple[str, dict[str, Any]]:
        if not path.is_file():
            return "", {}
        try:
            text = path.read_text(encoding="utf-8")
            return text, as_dict(yaml.safe_load(text))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            self.complain(path, f"not readable as YAML ({error})")
            return "", {}


def as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def is_failure(prediction: dict[str, Any]) -> bool:
    return bool(prediction) and (not prediction.get("correct") or prediction.get("outcome") != "answered")


def collect(rundir: RunDir, seed: int, examples: int) -> Run:
    """Reads the whole run directory; `examples` answers of each suite are drawn with `seed`."""
    reader = Reader(rundir.root)
    run = Run(rundir.root, seed)
    run.recipe_text, run.recipe = reader.recipe(rundir.recipe)
    run.manifest = reader.object(rundir.manifest)
    counts = {name: reader.count(rundir.split(name)) for name in SPLITS}
    run.rows = {name: count for name, count in counts.items() if count is not None}
    run.data = reader.object(rundir.data_report)
    run.licences = reader.json(rundir.licences)
    run.plan = reader.object(rundir.plan)
    metrics = reader.lines(rundir.metrics)
    run.steps = [line for line in metrics if is_number(line.get("loss")) and is_number(line.get("step"))]
    run.held_out = [line for line in metrics if is_number(line.get("eval_loss")) and is_number(line.get("step"))]
    run.suites = [read_suite(reader, rundir, name, seed, examples) for name in suite_names(rundir, run)]
    run.files = export_files(rundir)
    run.parity = reader.object(rundir.parity)
    run.problems = reader.problems
    return run


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def suite_names(rundir: RunDir, run: Run) -> list[str]:
    """In the order of the recipe, then those found on disk; one that was not evaluated is named too."""
    asked = run.section("evaluate").get("suites") or []
    scored = [path.name for path in sorted(rundir.evaluate.glob("*")) if path.is_dir()]
    return list(dict.fromkeys([*map(str, asked), *scored, *rundir.suites()]))


def read_suite(reader: Reader, rundir: RunDir, name: str, seed: int, examples: int) -> Suite:
    answers = {
        which: {str(line.get("id")): line for line in reader.lines(rundir.predictions(name, which))}
        for which in ("base", "tuned")
    }
    questions = (
        {str(line.get("id")): line for line in reader.lines(rundir.suite(name))} if any(answers.values()) else {}
    )
    ids = choose(answers["base"], answers["tuned"], seed, examples)
    return Suite(
        name,
        base=reader.object(rundir.scores(name, "base")),
        tuned=reader.object(rundir.scores(name, "tuned")),
        comparison=reader.object(rundir.comparison(name)),
        gain=reader.object(rundir.gain(name)),
        examples=tuple(show(key, questions.get(key, {}), answers["base"], answers["tuned"]) for key in ids),
    )


def choose(base: dict[str, Any], tuned: dict[str, Any], seed: int, count: int) -> list[str]:
    """A seeded sample of the ids; if the tuned model fails anywhere, at least one failure is in it."""
    ids = sorted(tuned or base)
    draw = random.Random(seed)
    draw.shuffle(ids)
    chosen = ids[:count]
    failures = [key for key in ids if is_failure(tuned.get(key, {}))]
    if chosen and failures and failures[0] not in chosen:
        chosen[-1] = failures[0]
    return chosen


def show(key: str, example: dict[str, Any], base: dict[str, Any], tuned: dict[str, Any]) -> Shown:
    turns = example.get("turns") or []
    either = tuned.get(key) or base.get(key) or {}
    asked = str(as_dict(turns[-1]).get("text", "")) if turns else str(either.get("prompt", ""))
    target, reasoning = str(example.get("target", "")), str(example.get("reasoning") or "")
    return Shown(
        id=key,
        task=str(example.get("task", "")),
        question=asked,
        passages=tuple(str(as_dict(passage).get("text", "")) for passage in example.get("passages") or []),
        options=tuple(map(str, example.get("options") or [])),
        reference=f"{target}\n\n{reasoning}" if reasoning else target,
        base=base.get(key, {}),
        tuned=tuned.get(key, {}),
    )


def export_files(rundir: RunDir) -> list[dict[str, Any]]:
    """Name and size of every file under export/; what a user would hand on."""
    paths = sorted(path for path in rundir.export.rglob("*") if path.is_file() and not path.name.startswith("."))
    return [{"name": str(path.relative_to(rundir.root)), "bytes": path.stat().st_size} for path in paths]
