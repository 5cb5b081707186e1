"""Scores and samples once more in the form lm-evaluation-harness writes, so that its tools and viewers read them."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medmind.core.jsonl import read_json, write_json, write_jsonl
from medmind.core.rundir import RunDir
from medmind.core.types import Example, Metric, Prediction, Scores
from medmind.evaluate.files import read_records
from medmind.evaluate.metrics.intervals import Z
from medmind.evaluate.run import read_suite

FILTER = "none"
VERSION = 1
LOWER_IS_BETTER = (
    "heldout_loss",
    "perplexity",
    "unsupported",
    "unsupported_nli",
    "repetition",
    "brier",
    "nll",
    "aurc",
    "ece_15_width",
    "ece_10_mass",
    "canary_recall",
    "canary_leak",
    "canary_exposure",
)
Entry = tuple[str, Scores, list[Example], list[Prediction]]


def write_lm_eval(rundir: RunDir, which: str, suites: Sequence[str], max_items: int | None, seed: int) -> list[Path]:
    """results_<time>.json and a samples file a suite, in evaluate/lm_eval/<which>/; older ones are replaced."""
    folder = rundir.lm_eval(which)
    shutil.rmtree(folder, ignore_errors=True)
    stamp = datetime.now(UTC).isoformat(timespec="microseconds").replace(":", "-").removesuffix("+00-00")
    entries = [read_entry(rundir, which, suite, max_items, seed) for suite in suites]
    written = [folder / f"results_{stamp}.json"]
    write_json(written[0], results(entries, seed))
    for suite, _, examples, predictions in entries:
        if predictions:
            written.append(folder / f"samples_{suite}_{stamp}.jsonl")
            write_jsonl(written[-1], (sample(*row) for row in enumerate(zip(examples, predictions, strict=True))))
    return written


def read_entry(rundir: RunDir, which: str, suite: str, max_items: int | None, seed: int) -> Entry:
    scores = Scores.model_validate(read_json(rundir.scores(suite, which)))
    file = rundir.predictions(suite, which)
    predictions = read_records(file, Prediction) if file.is_file() else []
    return suite, scores, read_suite(rundir, suite, max_items, seed), predictions


def results(entries: Sequence[Entry], seed: int) -> dict[str, Any]:
    first = entries[0][1]
    return {
        "results": {suite: {"alias": suite, **figures(scores.metrics)} for suite, scores, _, _ in entries},
        "group_subtasks": {suite: [] for suite, *_ in entries},
        "configs": {suite: config_of(suite, examples) for suite, _, examples, _ in entries},
        "versions": {suite: VERSION for suite, *_ in entries},
        "n-shot": {suite: 0 for suite, *_ in entries},
        "higher_is_better": {
            suite: {name: name not in LOWER_IS_BETTER for name in scores.metrics} for suite, scores, _, _ in entries
        },
        "n-samples": {suite: {"original": scores.n, "effective": scores.n} for suite, scores, _, _ in entries},
        "config": {"model": first.engine, "model_args": f"pretrained={first.model},dtype={first.dtype}"}
        | {"limit": None, "random_seed": seed, "numpy_seed": seed},
        "model_source": first.engine,
        "model_name": first.model,
        "chat_template": None,
        "task_hashes": {suite: scores.ids_sha256 for suite, scores, _, _ in entries},
    }


def figures(metrics: dict[str, Metric]) -> dict[str, float]:
    """A standard error is a quarter of the interval, near enough."""
    found: dict[str, float] = {}
    for name, metric in metrics.items():
        found[f"{name},{FILTER}"] = metric.value
        found[f"{name}_stderr,{FILTER}"] = (metric.high - metric.low) / (2 * Z)
    return found


def config_of(suite: str, examples: Sequence[Example]) -> dict[str, Any]:
    return {
        "task": suite,
        "dataset_name": examples[0].source,
        "test_split": "test",
        "output_type": "generate_until",
        "num_fewshot": 0,
        "metadata": {"version": VERSION},
    }


def sample(number: int, pair: tuple[Example, Prediction]) -> dict[str, Any]:
    example, said = pair
    doc = example.model_dump(mode="json")
    return {
        "doc_id": number,
        "doc": doc,
        "target": example.target,
        "arguments": {"gen_args_0": {"arg_0": said.prompt, "arg_1": {"do_sample": False}}},
        "resps": [[said.text]],
        "filtered_resps": [said.answer],
        "filter": FILTER,
        "metrics": ["correct"],
        "doc_hash": digest(json.dumps(doc, ensure_ascii=False, indent=2)),
        "prompt_hash": digest(said.prompt),
        "target_hash": digest(example.target),
        "correct": float(said.correct),
    }


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
