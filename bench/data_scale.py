"""A million rows through check, dedup, split, tokenise and pack: time, memory, and the planted duplicates found.

`make bench BENCH=data_scale` runs 10,000, 100,000 and 1,000,000 rows (ROWS in the environment: other counts), each in a
process of its own, beside `datasets.map` doing the tokenising alone. Rows are English only in the sense of Zipf.
"""

import importlib.util
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tokenizers

from medmind.core.jsonl import read_jsonl, write_jsonl
from medmind.core.rundir import RunDir
from medmind.data.config import DataConfig, PhiConfig
from medmind.data.quality.lengths import Lengths
from medmind.data.stage.prepare import prepare
from medmind.models.catalog import NANO, find_model
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.families import open_renderer
from medmind.train.batches import pack
from medmind.train.config import TrainConfig
from medmind.train.rows import load_rows

T = TypeVar("T")
SIZES = (10_000, 100_000, 1_000_000)
WORDS, VOCABULARY, RUN = 140, 50_000, 5
"""Of an answer, about 300 tokens; of the language; of a shingle."""
PLANTED = 0.05
LEAST = 0.8
"""Jaccard of the least alike planted pair."""
PER_STEP = 32
"""Rows packed side by side."""


def language() -> list[str]:
    """Different words, the frequent ones whole tokens of nano, the rest made up, the same every time."""
    rng = random.Random(0)
    tokenizer = tokenizers.Tokenizer.from_file(str(NANO / "tokenizer.json"))
    texts = (tokenizer.decode([token]).strip() for token in range(tokenizer.get_vocab_size()))
    words = dict.fromkeys(text.lower() for text in texts if text.isalpha() and len(text) > 2)
    syllables = [first + vowel + last for first in "bcdfglmnprst" for vowel in "aeio" for last in ("", "n", "r", "s")]
    while len(words) < VOCABULARY:
        words["".join(rng.choices(syllables, k=rng.randint(2, 4)))] = None
    return list(words)


def make_rows(count: int) -> Iterator[dict[str, str]]:
    """Rows with an id; in each batch the last ones are planted, named after the row they are like."""
    rng = np.random.default_rng(0)
    words = np.array(language())
    share = 1 / (np.arange(VOCABULARY) + 2.7)
    chances = np.cumsum(share / share.sum())
    for start in range(0, count, 1000):
        size = min(1000, count - start)
        planted = round(size * PLANTED)
        texts = words[np.searchsorted(chances, rng.random((size - planted, WORDS)))]
        for number, text in enumerate(texts):
            question = f"What is {' '.join(text[:3])}, number {start + number}?"
            yield {"id": f"r{start + number}", "question": question, "answer": " ".join(text)}
        for number in range(planted):
            question = f"What is {' '.join(texts[number][:3])}, number {start + number}?"
            answer = " ".join(almost(texts[number], rng.uniform(LEAST, 1), words, rng))
            yield {"id": f"p{start + number}", "question": question, "answer": answer}


def almost(text: Any, jaccard: float, words: Any, rng: np.random.Generator) -> Any:
    """The text with so many words exchanged that no more of its word runs change than the Jaccard index allows."""
    edits = int(len(text) * (1 - jaccard) / (1 + jaccard) / RUN)
    changed = text.copy()
    changed[rng.choice(len(text), edits, replace=False)] = words[rng.integers(0, VOCABULARY, edits)]
    return changed


def measure(count: int, folder: Path) -> dict[str, Any]:
    """Seconds and seconds of CPU of each stage, peak memory of this process, share of planted duplicates found."""
    file, rundir, seconds = folder / "rows.jsonl", RunDir(folder / "run"), {}

    def timed(stage: str, work: Callable[[], T]) -> T:
        started, busy = time.perf_counter(), time.process_time()
        result = work()
        seconds[stage] = [round(time.perf_counter() - started, 2), round(time.process_time() - busy, 2)]
        return result

    write_jsonl(file, make_rows(count))
    config = DataConfig(
        source="jsonl",
        path=str(file),
        columns={"id": "id"},
        filters={"near_duplicates": "drop"},
        phi=PhiConfig(action="off"),
    )
    spec = find_model("nano")
    renderer = open_renderer(spec.renderer, open_tokenizer(spec))
    timed("check, dedup, split", lambda: prepare(config, rundir, 0, Lengths(renderer, "")))
    rows = timed("tokenise", lambda: load_rows(rundir, "train", spec, renderer, "", TrainConfig()))
    timed("pack", lambda: sum(pack(rows[at : at + PER_STEP])["labels"].numel() for at in range(0, len(rows), PER_STEP)))
    dropped = {line["id"][1:] for line in read_jsonl(rundir.split("dropped"))}
    planted = [row["id"][1:] for row in make_rows(count) if row["id"].startswith("p")]
    return {
        "rows": count,
        "tokens_a_row": round(rows.counts["tokens"] / len(rows), 1),
        "seconds": seconds,
        "total": round(sum(wall for wall, _ in seconds.values()), 2),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3),
        "recall": round(sum(name in dropped for name in planted) / max(len(planted), 1), 4),
        "dropped": len(dropped),
    }


def anchor(count: int, folder: Path) -> dict[str, Any]:
    """`datasets.map` encoding question and answer with the same tokenizer, batched, and nothing else."""
    import datasets

    datasets.disable_progress_bars()
    tokenizer = tokenizers.Tokenizer.from_file(str(NANO / "tokenizer.json"))
    write_jsonl(folder / "rows.jsonl", make_rows(count))
    loaded = datasets.load_dataset(
        "json", data_files=str(folder / "rows.jsonl"), split="train", cache_dir=str(folder / "cache")
    )

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        pairs = zip(batch["question"], batch["answer"], strict=True)
        return {"input_ids": [found.ids for found in tokenizer.encode_batch([f"{ask} {told}" for ask, told in pairs])]}

    started = time.perf_counter()
    loaded.map(encode, batched=True, remove_columns=loaded.column_names)
    return {"anchor": round(time.perf_counter() - started, 2)}


def alone(what: str, count: int) -> dict[str, Any]:
    """The figures of one measurement in a process of its own."""
    command = [sys.executable, __file__, what, str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(words: list[str]) -> None:
    if words:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({"measure": measure, "anchor": anchor}[words[0]](int(words[1]), Path(folder))))
        return
    has_anchor = importlib.util.find_spec("datasets") is not None
    if not has_anchor:
        print("skipped: datasets.map, because the package datasets is not installed", file=sys.stderr)
    runs = []
    for count in map(int, os.environ["ROWS"].split(",")) if "ROWS" in os.environ else SIZES:
        run = alone("measure", count) | (alone("anchor", count) if has_anchor else {})
        print(json.dumps(run), file=sys.stderr)
        runs.append(run)
    ratios = [run["total"] / run["anchor"] for run in runs if has_anchor]
    last = runs[-1]
    ratio = round(statistics.median(ratios), 2) if ratios else None
    summary = {"bench": "data_scale", "ours": last["total"], "anchor": last.get("anchor"), "ratio": ratio, "runs": runs}
    print(json.dumps(summary))


if __name__ == "__main__":
    main(sys.argv[1:])
