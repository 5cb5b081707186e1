"""The table of docs/evaluation.md: nano, and nano tuned on PubMedQA's training half (the questions alone, as a
published system trained), on the exams and on what it may have forgotten. Resumes where it was stopped; the table grows
suite by suite. EXAMS_SHARE (0.1; 1: all) is how much of every set but PubMedQA's bare questions is drawn, by answer.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from medmind.cli.main import main
from medmind.core.jsonl import read_json, write_text
from medmind.core.rundir import RunDir

HERE = Path(__file__).parent
DATA = Path(os.environ.get("MEDMIND_DATA", HERE.parent.parent / "shared" / "data")).resolve()
SHARE = float(os.environ.get("EXAMS_SHARE", "0.1"))
OUT = Path(os.environ.get("EXAMS_OUT", "runs/exams"))
PUBMEDQA, OTHERS = f"{DATA}/pubmedqa/ori_pqal.json.gz", f"{DATA}/multilingual/casimedicos"


def of(items: int) -> int:
    """How many of these are asked."""
    return max(20, round(SHARE * items))


RECIPE = f"""\
extends: pubmedqa
name: exams
model: nano
data:
  path: {PUBMEDQA}
  suites:
    pubmedqa: {{source: pubmedqa, path: {PUBMEDQA}, max_items: {of(500)}}}
    pubmedqa-reasoning-free: {{source: pubmedqa, path: {PUBMEDQA}, setting: reasoning-free, max_items: {of(500)}}}
    medqa: {{source: medqa, path: {DATA}/medqa, max_items: {of(1273)}}}
    medmcqa: {{source: medmcqa, path: {DATA}/medmcqa, max_items: {of(4183)}}}
    mmlu_medical: {{source: mmlu_medical, path: {DATA}/mmlu, max_items: {of(1089)}}}
    casimedicos-es: {{source: casimedicos, path: {OTHERS}_es.jsonl.gz, max_items: {of(553)}}}
    casimedicos-fr: {{source: casimedicos, path: {OTHERS}_fr.jsonl.gz, max_items: {of(553)}}}
    casimedicos-it: {{source: casimedicos, path: {OTHERS}_it.jsonl.gz, max_items: {of(553)}}}
    prose: {{source: prose, path: {DATA}/prose_general, files: [books*], max_items: {of(60)}}}
train:                 # as the demo's: a tiny model needs more of everything but memory
  method: lora
  optim: adamw_torch
  dtype: float32
  lora: {{r: 32, lora_alpha: 64, lora_dropout: 0.0, target_modules: []}}
  per_device_train_batch_size: 4
  gradient_accumulation_steps: 1
  num_train_epochs: 2
  learning_rate: 2e-3
  warmup_steps: null
evaluate:
  max_new_tokens: 128
  batch_size: 50
stages: [data, train, evaluate, report]
"""
ORDER = (
    "pubmedqa-question-only",
    "pubmedqa",
    "pubmedqa-reasoning-free",
    "medmcqa",
    "mmlu_medical",
    "medqa",
    "prose",
    "casimedicos-es",
    "casimedicos-fr",
    "casimedicos-it",
)
SIDES = ("base", "tuned")
WHOLE = ("brier", "nll", "heldout_loss", "perplexity", "aurc")
"""Figures that are no per cent."""


def number(name: str, value: float) -> str:
    return f"{value:.3f}" if name in WHOLE else f"{100 * value:.1f}"


def cell(name: str, base: dict[str, Any], tuned: dict[str, Any]) -> str:
    return " → ".join(number(name, side[name]["value"]) if name in side else "–" for side in (base, tuned))


def verdict(found: dict[str, Any]) -> str:
    """The figure that decides: its difference, its interval, Holm's p, and the word."""
    scale = 1 if found["lower_is_better"] else 100
    digits = 3 if scale == 1 else 1
    low, high = (f"{scale * found[name]:+.{digits}f}" for name in ("low", "high"))
    p_value = f"{found['adjusted_p']:.2g}" if found["adjusted_p"] is not None else "–"
    return f"{scale * found['difference']:+.{digits}f} ({low} to {high}), p {p_value}: **{found['verdict']}**"


def row(head: str, cells: list[str]) -> str:
    return f"| {head} | {' | '.join(cells)} |"


def table(run: RunDir) -> str:
    """A column a suite, base → tuned in each cell, a row a figure."""
    suites = [name for name in ORDER if run.comparison(name).is_file()]
    scores = {name: [read_json(run.scores(name, which)) for which in SIDES] for name in suites}
    found = {name: read_json(run.comparison(name)) for name in suites}
    lines = [row("base → tuned", suites), row("---", ["---"] * len(suites))]
    lines.append(row("n", [str(scores[name][0]["n"]) for name in suites]))
    for figure in dict.fromkeys(name for pair in scores.values() for side in pair for name in side["metrics"]):
        cells = [cell(figure, *(side["metrics"] for side in scores[name])) for name in suites]
        lines.append(row(f"`{figure}`", cells))
    for protocol in ("lm-eval", "chat"):
        cells = [cell(protocol, *(side["protocols"] for side in scores[name])) for name in suites]
        lines.append(row(f"forced choice, {protocol}", cells))
    lines.append(row("what decides", [f"`{found[name]['metric']}`" for name in suites]))
    lines.append(row("verdict", [verdict(found[name]) for name in suites]))
    return "\n".join(lines) + "\n"


def gains(run: RunDir) -> str:
    """The parts of each gain, in points."""
    files = [run.gain(name) for name in ORDER if run.gain(name).is_file()]
    found = [read_json(file) for file in files]
    parts = list(found[0]["parts"])
    lines = [row("points", [*parts, "together"]), row("---", ["---"] * (len(parts) + 1))]
    for one in found:
        values = [*(one["parts"][part] for part in parts), one["whole"]]
        cells = [f"{100 * v['value']:+.1f} ({100 * v['low']:+.1f} to {100 * v['high']:+.1f})" for v in values]
        lines.append(row(one["suite"], cells))
    return "\n".join(lines) + "\n"


def command(verb: str, target: str, *words: str) -> None:
    if code := main([verb, target, *words]):
        sys.exit(code)


def write_page(run: RunDir) -> str:
    text = f"{table(run)}\n{gains(run)}"
    write_text(OUT / "table.md", text)
    return text


if __name__ == "__main__":
    recipe = OUT.with_suffix(".yaml")
    recipe.parent.mkdir(parents=True, exist_ok=True)
    write_text(recipe, RECIPE)
    for stage in ("data", "train"):
        command(stage, str(recipe), "--out", str(OUT))
    run = RunDir(OUT)
    for suite in sorted(run.suites(), key=ORDER.index):
        command("evaluate", str(OUT), "--suite", suite)
        write_page(run)
    command("run", str(OUT))  # Holm's p over all of them
    print(write_page(run))
    anchor, ours = (read_json(run.scores(ORDER[0], which))["metrics"]["accuracy"]["value"] for which in SIDES)
    print(json.dumps({"bench": "exams", "ours": ours, "anchor": anchor, "ratio": None, "runs": 1}))
