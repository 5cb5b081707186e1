"""LoRA beside TRL at its fastest and the fourth seed's script: useful tokens/s, memory, held-out loss, FLOP.

`make bench BENCH=train_cpu` measures what $RESULTS (runs/train_cpu.jsonl) lacks, a line an arm, and prints the table of
docs/performance.md. TRL is looked for in $TRL (runs/trl); how to get it stands in bench/train_arms.py. TRAIN_WORK names
some of the works, TRAIN_ARMS some of the arms, TRAIN_ROWS (256) and TRAIN_PAIRS (3) make it small; TRAIN_BATCHES=1
spares the search for TRL's fastest batch.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from estimate import MEDMIND, MEDQUAD, find_shape

from medmind.core.jsonl import read_jsonl, write_jsonl
from medmind.core.kernels import KEPT
from medmind.core.rundir import RunDir
from medmind.core.types import Example
from medmind.estimate.counts import linears
from medmind.models.catalog import find_model
from medmind.models.spec import ModelSpec
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import open_renderer
from medmind.train.batches import IGNORED, Counts, Row, stream
from medmind.train.config import TrainConfig

ARM = Path(__file__).parent / "train_arms.py"
RESULTS = Path(os.environ.get("RESULTS", "runs/train_cpu.jsonl"))
SCRATCH = Path(os.environ.get("SCRATCH", "runs/train_cpu"))
WORKS = os.environ.get("TRAIN_WORK", "100M,Llama-3.2-1B,demo").split(",")
ARMS = os.environ.get("TRAIN_ARMS", "medmind,trl,seed").split(",")
ROWS = int(os.environ.get("TRAIN_ROWS", "256"))
PAIRS = int(os.environ.get("TRAIN_PAIRS", "3"))
HELD_OUT, PROBED = max(4, ROWS // 8), min(ROWS, 48)
SAMPLE = 640
"""Rows the data stage is asked for."""
LIMIT, RANK, BINS = 1024, 16, 4
"""Tokens of a row; rank of the adapter; packed rows of TRL in a step, where ours has as many examples as they hold."""
BATCHES = [int(word) for word in os.environ.get("TRAIN_BATCHES", "1,2,4").split(",")]
"""Of TRL, the fastest of which is measured."""
ADAPTERS = {"medmind": "train/adapter", "trl": "trl", "seed": "seed"}


@dataclass(frozen=True)
class Work:
    """A model and rows for all arms; `examples` in a step."""

    name: str
    spec: ModelSpec
    folder: Path
    examples: int

    def call(self, arm: str, folder: Path, **more: Any) -> dict[str, Any]:
        said = {
            "model": self.spec.source if self.spec.local else self.spec.id,
            "dtype": "bfloat16",
            "method": "lora",
            "r": RANK,
        }
        said |= {"limit": LIMIT, "examples": self.examples, "at_once": self.examples, "bins": BINS} | more
        if arm == "medmind":
            shutil.rmtree(RunDir(folder).train, ignore_errors=True)
        command = [sys.executable, str(ARM), arm, str(folder)]
        # As the command line does for `medmind train`; a process of TRL or the seed has nobody to do it.
        env = os.environ | (KEPT if arm == "medmind" else {})
        done = subprocess.run(command, check=False, input=json.dumps(said), capture_output=True, text=True, env=env)
        if done.returncode:
            raise SystemExit(f"{self.name}, {arm}: {done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def prepare(name: str) -> Work:
    """Rows of MedQuAD's training split within the limit, as examples and as token ids; some of them held out."""
    spec, folder = find_model(find_shape(name)), SCRATCH / f"{name}-{ROWS}"
    if not (folder / "ids.jsonl").exists():
        lines, rows = read_rows(spec)
        if len(rows) < ROWS + HELD_OUT:
            raise SystemExit(f"only {len(rows)} rows within {LIMIT} tokens, {ROWS + HELD_OUT} are asked for")
        write_jsonl(RunDir(folder).split("train"), [lines[row.line - 1] for row in rows[:ROWS]])
        write_jsonl(RunDir(folder).split("validation"), [])
        for file, part in (("held_out_ids", rows[ROWS : ROWS + HELD_OUT]), ("ids", rows[:ROWS])):
            lines = [{"input_ids": list(row.ids), "completion_mask": learnt(row)} for row in part]
            write_jsonl(folder / f"{file}.jsonl", lines)
    tokens = sum(len(row["input_ids"]) for row in read_jsonl(folder / "ids.jsonl"))
    return Work(name, spec, folder, max(1, round(BINS * ROWS / -(-tokens // LIMIT))))


def read_rows(spec: ModelSpec) -> tuple[list[dict[str, Any]], list[Row]]:
    """The stage's own rows, and those within the limit as this model reads them."""
    run = RunDir(SCRATCH / "rows")
    if not run.split("train").exists():
        words = ["data.source=medquad", f"data.path={MEDQUAD}", f"data.max_train_rows={SAMPLE}"]
        settings = [part for word in (*words, "data.validation_fraction=0") for part in ("--set", word)]
        subprocess.run([*MEDMIND, "data", "base", "--out", str(run.root), *settings], check=True, stdout=sys.stderr)
    lines = list(read_jsonl(run.split("train")))
    config, renderer = (
        TrainConfig(max_length=LIMIT, overflow="drop"),
        open_renderer(spec.renderer, open_tokenizer(spec)),
    )
    return lines, list(stream([Example(**line) for line in lines], renderer, "", config, Counts()))


def learnt(row: Row) -> list[int]:
    return [0, *(int(label != IGNORED) for label in row.labels[:-1])]


def flop(spec: ModelSpec, found: dict[str, Any]) -> float:
    """As executed: forward and the gradient of what goes in; none of frozen matrices, nor of what enters layer one."""
    shape, sizes = spec.shape, linears(spec.shape)
    layers, width = shape.num_hidden_layers, shape.num_attention_heads * shape.head_dim
    blocks = sum(inputs * outputs for inputs, outputs in sizes.values())
    entering = sum(sizes[name][0] * sizes[name][1] for name in ("q_proj", "k_proj", "v_proj"))
    adapters = RANK * sum(inputs + outputs for inputs, outputs in sizes.values())
    by_token = layers * (4 * blocks + 6 * adapters) - 2 * entering
    head = 4 * shape.vocab_size * shape.hidden_size
    tokens = found["tokens"] - found.get("spared", 0)
    return float(tokens * by_token + found["supervised"] * head + 12 * layers * width * found["pairs"])


def speed(found: dict[str, Any]) -> float:
    return float(found["tokens"] / found["seconds"])


class Results:
    """What is measured already, and what is added to it: one line an arm of a pair."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lines = [line for line in (read_jsonl(path) if path.exists() else ()) if line["rows"] == ROWS]

    def of(self, work: str, arm: str) -> dict[int, dict[str, Any]]:
        """By pair."""
        return {line["pair"]: line for line in self.lines if (line["work"], line["arm"]) == (work, arm)}

    def need(self, work: str, arm: str, pair: int, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if pair not in self.of(work, arm):
            self.lines.append({"work": work, "arm": arm, "pair": pair, "rows": ROWS} | measure())
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(self.lines[-1]) + "\n")
            print(f"{work}, {arm}, {pair}: {speed(self.lines[-1]):,.0f} tokens/s", file=sys.stderr, flush=True)
        return self.of(work, arm)[pair]

    def ratio(self, work: str, arm: str) -> float:
        """Ours to it, the median of pairs."""
        ours, theirs = self.of(work, "medmind"), self.of(work, arm)
        return statistics.median(speed(ours[pair]) / speed(theirs[pair]) for pair in ours.keys() & theirs.keys())


def measure(work: Work, results: Results) -> None:
    best = fastest_batch(work, results) if "trl" in ARMS else 1
    for pair in range(PAIRS):
        for arm in ARMS if pair % 2 == 0 else reversed(ARMS):

            def run(arm: str = arm) -> dict[str, Any]:
                found = work.call(arm, work.folder, batch=best)
                found |= work.call("judge", work.folder, adapter=ADAPTERS[arm])
                return found | {"examples": work.examples} | ({"batch": best} if arm == "trl" else {})

            results.need(work.name, arm, pair, run)


def fastest_batch(work: Work, results: Results) -> int:
    probe = work.folder / "probe"
    probe.mkdir(exist_ok=True)
    write_jsonl(probe / "ids.jsonl", list(read_jsonl(work.folder / "ids.jsonl"))[:PROBED])
    speeds = {}
    for size in BATCHES:
        found = results.need(work.name, f"trl {size}", 0, lambda size=size: work.call("trl", probe, batch=size))
        speeds[size] = speed(found)
    return max(BATCHES, key=lambda size: speeds[size])


def demo(results: Results) -> None:
    """The training of `make demo`, whole, the first step left out."""
    out = SCRATCH / "demo"

    def run() -> dict[str, Any]:
        for verb in ("data", "train"):
            subprocess.run([*MEDMIND, verb, "demo", "--out", str(out)], check=True, stdout=sys.stderr)
        steps = [line for line in read_jsonl(RunDir(out).metrics) if "loss" in line][1:]
        return {"steps": len(steps)} | {name: sum(one[name] for one in steps) for name in ("tokens", "seconds")}

    found = results.need("demo", "medmind", 0, run)
    print(f"training of make demo: {found['steps']} steps in {found['seconds']:.0f} s, {speed(found):,.0f} tokens/s")


def tell(work: Work, results: Results) -> None:
    print(f"| {work.name} | tokens/s | medmind to it | peak memory | held-out loss | end of the first step |")
    print("|---|--:|--:|--:|--:|--:|")
    for arm in ARMS:
        runs = list(results.of(work.name, arm).values())
        names = ("memory_gb", "held_out_loss", "until_first_step")
        memory, loss, first = (statistics.median(run[name] for run in runs) for name in names)
        label = f"TRL, batch {runs[0]['batch']}" if arm == "trl" else arm
        rate, ratio = statistics.median(map(speed, runs)), results.ratio(work.name, arm)
        print(f"| {label} | {rate:,.0f} | {ratio:.2f} | {memory:.2f} GB | {loss:.4f} | {first:.0f} s |")
    shares = [
        flop(work.spec, run) / run["seconds"] / run["product_peak"] for run in results.of(work.name, "medmind").values()
    ]
    print(f"share of the bf16 matrix-product peak: {statistics.median(shares):.0%}\n")


def main() -> None:
    results = Results(RESULTS)
    works = [prepare(name) for name in WORKS if name != "demo"]
    for work in works:
        measure(work, results)
    for work in works:
        tell(work, results)
    if "demo" in WORKS:
        demo(results)
    for work in works:
        for arm in ARMS[1:]:
            ours, anchor = (
                statistics.median(map(speed, results.of(work.name, name).values())) for name in (ARMS[0], arm)
            )
            line = {"bench": f"train_cpu {work.name} {arm}", "ours": round(ours, 1), "anchor": round(anchor, 1)}
            print(json.dumps(line | {"ratio": round(results.ratio(work.name, arm), 3), "runs": PAIRS}))


if __name__ == "__main__":
    main()
