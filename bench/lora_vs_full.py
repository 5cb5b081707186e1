"""LoRA against full fine-tuning, a published system's claim, measured: the figures of docs/results.md.

`make bench BENCH=lora_vs_full` finds each method's learning rate on validation rows, trains and evaluates what
$RESULTS (runs/lora_vs_full.jsonl) lacks, a line a run, and writes tables and plots into docs/. WORK is the folder of
the runs, PRICE the machine's by the hour; `--table` writes the tables of what is there and runs nothing.
"""

import contextlib
import csv
import gzip
import json
import math
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from estimate import SAMPLING, look
from lora_vs_full_page import write_page

from medmind.core.jsonl import read_json, read_jsonl
from medmind.core.rundir import RunDir, sha256_file
from medmind.recipe.load import load_recipe
from medmind.recipe.schema import Recipe
from medmind.recipe.stages import stage_key, with_every_suite

RESULTS = Path(os.environ.get("RESULTS", "runs/lora_vs_full.jsonl"))
WORK = Path(os.environ.get("WORK", "runs/lora_vs_full"))
PRICE = float(os.environ.get("PRICE", "1"))
DATA = Path(os.environ.get("MEDMIND_DATA", "../shared/data"))
SEEDS = (0, 1, 2)
STEP = 3.0
"""Learning rates are tried so many times apart."""


@dataclass(frozen=True)
class Task:
    """`data` decides the rows, `trial` takes validation rows out of training, `work` is the rest of the recipe."""

    data: tuple[str, ...]
    trial: tuple[str, ...]
    work: tuple[str, ...]


@dataclass(frozen=True)
class Arm:
    """A method; `start` is the first learning rate tried, `as_arm` whose rate is taken where none is looked for."""

    title: str
    method: str
    r: int = 0
    targets: str = "[]"
    start: float = 0.0
    as_arm: str = ""

    @property
    def settings(self) -> tuple[str, ...]:
        if not self.r:
            return (f"train.method={self.method}",)
        lora = {"r": self.r, "lora_alpha": 2 * self.r, "target_modules": self.targets}
        return (f"train.method={self.method}", *(f"train.lora.{name}={value}" for name, value in lora.items()))


TASKS = {
    "terms": Task(
        ("data.source=terms", "data.system_prompt=You are a medical terminology assistant. Explain in four parts."),
        ("data.validation_fraction=0.2",),
        ("train.num_train_epochs=2", "evaluate.max_new_tokens=192", "evaluate.batch_size=50"),
    ),
    "medquad": Task(
        (
            "data.source=medquad",
            f"data.path={WORK / 'medquad.csv'}",
            "data.max_train_rows=2000",
            "data.max_test_rows=48",
        ),
        ("data.validation_fraction=0.1", "data.max_validation_rows=48"),
        (
            "train.per_device_train_batch_size=8",
            "train.max_length=192",
            "train.overflow=drop",
            "train.max_steps=40",
            "evaluate.max_new_tokens=64",
            "evaluate.batch_size=64",
        ),
    ),
}
ARMS = {
    "full": Arm("full", "full", start=1e-3),
    "lora-qv-16": Arm("LoRA 16, q and v", "lora", 16, "[q_proj,v_proj]", start=1e-2),
    "lora-16": Arm("LoRA 16", "lora", 16, start=4e-3),
    "qlora-16": Arm("QLoRA 16, 4 bits", "qlora", 16, as_arm="lora-16"),
    "lora8-16": Arm("LoRA 16, 8 bits", "lora8", 16, as_arm="lora-16"),
    "lora-4": Arm("LoRA 4", "lora", 4, as_arm="lora-16"),
    "lora-64": Arm("LoRA 64", "lora", 64, as_arm="lora-16"),
}
FIRST = ("full", "lora-qv-16", "lora-16")
"""Those with a run for every seed before the others have more than one."""


def grid() -> Iterator[tuple[str, str, int]]:
    """What says most comes first, for whoever stops early."""
    every = [(task, arm, seed) for seed in SEEDS for task in TASKS for arm in ARMS]
    yield from sorted(every, key=lambda one: one[2] > 0 and one[1] not in FIRST)


def settings(task: str, arm: str, rate: float) -> list[str]:
    every = ("data.validation_fraction=0", "train.save_steps=100000", f"report.price_per_hour={PRICE}")
    return [*every, *TASKS[task].data, *TASKS[task].work, *ARMS[arm].settings, f"train.learning_rate={rate}"]


def medmind(verb: str, folder: Path, seed: int, words: Sequence[str]) -> list[str]:
    sets = [part for word in (f"seed={seed}", *words) for part in ("--set", word)]
    return [sys.executable, "-m", "medmind", verb, "base", "--out", str(folder), *sets]


class Refused(RuntimeError):
    """A gate said no: of a training, that its loss exploded."""


def watch(command: list[str]) -> tuple[int, float, float]:
    """Bytes at its peak, seconds by the clock, seconds of the processor."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    anonymous = mapped = 0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        while process.poll() is None:
            seen = look(process.pid)
            anonymous, mapped = max(anonymous, seen.get("RssAnon", 0)), seen.get("RssFile", 0) or mapped
            time.sleep(SAMPLING)
        said.seek(0)
        if process.returncode:
            kind = Refused if process.returncode == 1 else RuntimeError
            raise kind(f"exit {process.returncode}: {' '.join(command)}\n{said.read()[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return anonymous + mapped, time.monotonic() - started, processor


def cut_medquad() -> None:
    """Enough of MedQuAD for 2,000 rows of its training topics: reading all of it takes longer than a run."""
    file = WORK / "medquad.csv"
    if not file.exists():
        with gzip.open(DATA / "medquad" / "medquad_kaggle_form.csv.gz", "rt", encoding="utf-8", newline="") as opened:
            head, *rows = csv.reader(opened)
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "w", encoding="utf-8", newline="") as opened:
            csv.writer(opened).writerows([head, *random.Random(0).sample(rows, 4500)])


def start(task: str, arm: str, seed: int, words: Sequence[str], kind: str = "rows") -> Path:
    """A run directory whose data stage is done; it is done once for all methods."""
    read = WORK / f"{task}-{kind}-{seed}"
    cut_medquad()
    if "data" not in RunDir(read).read_manifest().get("stages", {}):
        watch(medmind("data", read, seed, [word for word in words if word.startswith("data.")]))
    folder = WORK / f"{task}-{kind}-{seed}-{arm}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(read, folder)
    return folder


def try_rate(task: str, arm: str, rate: float, extra: Sequence[str] = ()) -> dict[str, Any]:
    """The loss on validation rows, which are training rows left out: no test row is looked at."""
    words = [*settings(task, arm, rate)[1:], *TASKS[task].trial, *extra]
    folder = start(task, arm, 0, words, "trial")
    with contextlib.suppress(Refused):
        watch(medmind("train", folder, 0, words))
    losses = [line["eval_loss"] for line in read_jsonl(RunDir(folder).metrics) if "eval_loss" in line]
    shutil.rmtree(folder)
    found = losses[-1] if len(losses) > 1 else None
    return {"kind": "rate", "task": task, "arm": arm, "rate": rate, "before": losses[0], "validation_loss": found}


def climb(first: float, loss_at: Callable[[float], float]) -> float:
    """The rate that beats both its neighbours, a factor STEP away."""

    def rate(power: int) -> float:
        return float(f"{first * STEP**power:.2g}")

    best = 0
    while True:
        lowest = min((best, best - 1, best + 1), key=lambda power: loss_at(rate(power)))
        if lowest == best:
            return rate(best)
        best = lowest


def lend_base(folder: Path, recipe: Recipe) -> None:
    """What the base model said to the same questions in another run here: it is asked once, not for every arm."""
    own = RunDir(folder)
    (suite,) = own.suites()
    for other in map(RunDir, sorted(folder.parent.glob(f"{folder.name.partition('-rows-')[0]}-rows-*-*"))):
        made = other.read_manifest().get("made", {})
        lent = {name: value for name, value in made.items() if name.startswith(f"evaluate/{suite}/base/")}
        if other.root != folder and lent and sha256_file(other.suite(suite)) == sha256_file(own.suite(suite)):
            shutil.copytree(other.evaluate / suite / "base", own.evaluate / suite / "base")
            begun = own.read_manifest()["begun"]
            own.note(made=lent, begun=begun | {"evaluate": stage_key(with_every_suite(recipe), own, "evaluate")})
            return


def measure(task: str, arm: str, seed: int, rate: float, extra: Sequence[str] = ()) -> dict[str, Any]:
    words = [*settings(task, arm, rate), *extra]
    folder = start(task, arm, seed, words)
    peak, seconds, processor = watch(medmind("train", folder, seed, words))
    lend_base(folder, load_recipe("base", [f"seed={seed}", *words]))
    _, _, asked = watch(medmind("evaluate", folder, seed, words))
    run = RunDir(folder)
    plan = read_json(run.plan)
    steps = [line for line in read_jsonl(run.metrics) if "loss" in line]
    (suite,) = run.suites()
    result = run.model if ARMS[arm].method == "full" else run.adapter
    line = {
        "kind": "run",
        "task": task,
        "arm": arm,
        "title": ARMS[arm].title,
        "r": ARMS[arm].r,
        "seed": seed,
        "rate": rate,
        "folder": str(folder),
        "suite": suite,
        "parameters": plan["parameters"],
        "dtype": plan["dtype"],
        "rows": {name: plan["train"][name] for name in ("rows", "rows_dropped", "supervised_tokens")},
        "steps": len(steps),
        "tokens": sum(step["tokens"] for step in steps),
        "step_seconds": sum(step["seconds"] for step in steps[1:]) / len(steps[1:]),
        "peak_bytes": peak,
        "clock_seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1),
        "evaluate_seconds": round(asked, 1),
        "result_bytes": sum(file.stat().st_size for file in result.glob("*.safetensors")),
        "cost": processor / 3600 * PRICE,
        "price_per_hour": PRICE,
    }
    for which in ("base", "tuned"):
        metrics = read_json(run.scores(suite, which))["metrics"]
        line[which] = {name: metric["value"] for name, metric in metrics.items()}
    shutil.rmtree(run.checkpoints)
    return line


class Record:
    """The lines there are, and the file they go to."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.file = file
        self.lines: list[dict[str, Any]] = list(read_jsonl(file)) if file.exists() else []

    def find(self, **wanted: Any) -> dict[str, Any] | None:
        return next((line for line in self.lines if wanted.items() <= line.items()), None)

    def add(self, line: dict[str, Any]) -> dict[str, Any]:
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.lines.append(line)
        print(json.dumps({name: value for name, value in line.items() if name not in ("base", "tuned")}), flush=True)
        return line

    def rate_of(self, task: str, arm: str) -> float:
        arm = ARMS[arm].as_arm or arm

        def loss_at(rate: float) -> float:
            known = self.find(kind="rate", task=task, arm=arm, rate=rate)
            loss = (known or self.add(try_rate(task, arm, rate)))["validation_loss"]
            return math.inf if loss is None else float(loss)

        return climb(ARMS[arm].start, loss_at)


def main() -> None:
    record = Record(RESULTS)
    if "--table" not in sys.argv:
        for task, arm, seed in grid():
            if not record.find(kind="run", task=task, arm=arm, seed=seed):
                record.add(measure(task, arm, seed, record.rate_of(task, arm)))
    write_page(record.lines)
    runs = [line for line in record.lines if line["kind"] == "run"]
    lora, full = (fmean(line["peak_bytes"] for line in runs if line["arm"] == arm) for arm in ("lora-qv-16", "full"))
    claimed = 0.1
    found = {"ours": lora / full, "anchor": claimed, "ratio": lora / full / claimed, "runs": len(runs)}
    print(json.dumps({"bench": "lora_vs_full"} | found))


if __name__ == "__main__":
    main()
