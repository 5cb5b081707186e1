"""Forced choice on PubMedQA, MedQA, MedMCQA and MMLU medical with nano, against lm-evaluation-harness 0.4.13 at its
best batch: CPU seconds, loading left out, arms alternated. First: pip install --target runs/lm_eval
lm-eval==0.4.13 (or LM_EVAL). EVALUATE_ITEMS=0 asks all (default: 200 a suite), EVALUATE_PAIRS says how often.
"""

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from medmind.core.jsonl import write_json, write_jsonl
from medmind.core.types import Example
from medmind.data.config import DataConfig
from medmind.data.sources.known import SOURCES
from medmind.data.sources.seam import Row
from medmind.evaluate.forced import Chosen, choose, raw_questions
from medmind.evaluate.protocols.lm_eval import LmEval
from medmind.infer.hf import HfGenerator
from medmind.infer.open import open_generator
from medmind.models.catalog import NANO, find_model
from medmind.models.tokenizer import open_tokenizer
from medmind.prompts.chat import Renderer
from medmind.prompts.families import open_renderer

HERE = Path(__file__).parent
DATA = Path(os.environ.get("MEDMIND_DATA", HERE.parent.parent / "shared" / "data"))
LM_EVAL = os.environ.get("LM_EVAL", "runs/lm_eval")
ITEMS = int(os.environ.get("EVALUATE_ITEMS", "200"))
PAIRS = int(os.environ.get("EVALUATE_PAIRS", "3"))
SUITES = {"pubmedqa": "ori_pqal.json.gz", "medqa": "", "medmcqa": "", "mmlu_medical": ""}
FOLDERS = {"mmlu_medical": "mmlu"}
BATCHES = (1, 8, 32, 64)
PROBE = 48
LINES = 512
CLOSE = 1e-4
"""Nats by which the two likeliest options must differ for the same answer to be demanded."""


def read_suite(name: str) -> list[Example]:
    config = DataConfig(source=name, path=str(DATA / FOLDERS.get(name, name) / SUITES[name]))
    rows = [row for row in SOURCES.get(name).read(config) if isinstance(row, Row)]
    examples = [row.example for row in rows if row.part in ("test", None)]
    return random.Random(0).sample(examples, min(ITEMS or len(examples), len(examples)))


def as_task(folder: Path, name: str, examples: Sequence[Example]) -> None:
    """The suite as lm-eval's own kind of file: prompt and choices ready, so that no wording can differ."""
    asked = [(example, LmEval().ask(example)) for example in examples]
    rows = [
        {
            "id": e.id,
            "prompt": one.context,
            "choices": [c.strip() for c in one.continuations],
            "label": one.answers.index(e.target),
        }
        for e, one in asked
        if one
    ]
    write_jsonl(folder / f"{name}.jsonl", rows)
    task = {
        "task": f"bench_{name}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}},
        "output_type": "multiple_choice",
        "test_split": "test",
        "doc_to_text": "prompt",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}],
    }
    write_json(folder / f"{name}.yaml", task)  # JSON is YAML


def peer(folder: Path) -> None:
    """The other side: answers each line {suite, batch, items} with {seconds, sums}."""
    sys.path.append(LM_EVAL)  # behind our own: the same torch and transformers
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager, get_task_dict

    model = HFLM(pretrained=str(folder / "nano"), dtype="float32", device="cpu", batch_size=1, add_bos_token=True)
    tasks = get_task_dict(
        [f"bench_{name}" for name in SUITES], TaskManager(include_path=str(folder), include_defaults=False)
    )
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        asked = json.loads(line)
        model.batch_size_per_gpu = asked["batch"]
        task = {f"bench_{asked['suite']}": tasks[f"bench_{asked['suite']}"]}
        start = time.process_time()
        found = evaluate(model, task, limit=asked["items"], bootstrap_iters=0, log_samples=True)
        seconds = time.process_time() - start
        (samples,) = found["samples"].values()
        sums = {one["doc"]["id"]: [float(pair[0]) for pair in one["filtered_resps"]] for one in samples}
        print(json.dumps({"seconds": seconds, "sums": sums}), file=answers)


class Peer:
    def __init__(self, folder: Path) -> None:
        command = [sys.executable, __file__, "peer", str(folder)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ
            | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder), "TQDM_DISABLE": "1"},
        )
        self.hear()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("lm-eval stopped; install it as the docstring says")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def ask(self, suite: str, batch: int, items: int | None = None) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"suite": suite, "batch": batch, "items": items}) + "\n")
        self.process.stdin.flush()
        return self.hear()


def ours(generator: Any, renderer: Renderer, examples: Sequence[Example]) -> tuple[float, list[Chosen]]:
    start = time.process_time()
    chosen = choose(generator, raw_questions(renderer, LmEval(), examples))
    return time.process_time() - start, chosen


def differing(chosen: Sequence[Chosen], sums: dict[str, list[float]]) -> tuple[list[str], list[str], float]:
    """Ids answered differently: where the two likeliest are apart, where they are close; the largest gap of a sum."""
    apart, close, gap = [], [], 0.0
    for one in chosen:
        other = sums[one.id]
        gap = max([gap, *(abs(a - b) for a, b in zip(one.logprobs, other, strict=True))])
        if one.logprobs.index(max(one.logprobs)) != other.index(max(other)):
            first, second = sorted(one.logprobs, reverse=True)[:2]
            (apart if first - second >= CLOSE else close).append(one.id)
    return apart, close, gap


def matrix_products(generator: Any, lengths: Sequence[int]) -> float:
    """CPU seconds of the matrix products alone that these prompts need: all layers' (of the last one only keys and
    values), and attention's lower triangle at the same speed. No harness can go below.
    """
    decoder = generator._model.get_decoder()
    last = decoder.layers[-1]
    unread = {*last.mlp.modules(), last.self_attn.q_proj, last.self_attn.o_proj}
    weights = [m.weight for m in decoder.modules() if isinstance(m, torch.nn.Linear) and m not in unread]
    rows = {width: torch.randn(LINES, width) for width in {w.shape[1] for w in weights}}
    speeds = []
    with torch.inference_mode():
        for _ in range(4):
            start = time.process_time()
            for weight in weights:
                torch.nn.functional.linear(rows[weight.shape[1]], weight)
            speeds.append((time.process_time() - start) / (LINES * sum(w.numel() for w in weights)))
    heads = decoder.config.num_attention_heads * decoder.config.head_dim
    products = sum(
        length * sum(w.numel() for w in weights) + length * length * heads * (len(decoder.layers) - 1)
        for length in lengths
    )
    return min(speeds) * products


def lay_out_nano(folder: Path) -> None:
    """nano as a checkpoint other tools read: with the settings of its tokenizer."""
    shutil.copytree(NANO, folder / "nano")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<unk>",
        "add_bos_token": True,
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / "nano" / "tokenizer_config.json", settings)


def compare(folder: Path) -> None:
    spec = find_model("nano")
    renderer = open_renderer(spec.renderer, open_tokenizer(spec))
    generator = open_generator(spec, None, renderer)
    assert isinstance(generator, HfGenerator)
    suites = {name: read_suite(name) for name in SUITES}
    lay_out_nano(folder)
    for name, examples in suites.items():
        as_task(folder, name, examples)
    other = Peer(folder)
    mine: dict[str, list[float]] = {name: [] for name in suites}
    theirs: dict[str, list[float]] = {name: [] for name in suites}
    least = 0.0
    wrong: list[str] = []
    for name, examples in suites.items():
        best = min(BATCHES, key=lambda batch: other.ask(name, batch, PROBE)["seconds"])
        for _ in range(PAIRS):
            heard = other.ask(name, best)
            seconds, chosen = ours(generator, renderer, examples)
            mine[name].append(seconds)
            theirs[name].append(heard["seconds"])
        apart, close, gap = differing(chosen, heard["sums"])
        wrong += apart
        lengths = [len(q.pairs[0][0]) for q in raw_questions(renderer, LmEval(), examples)]
        floor = matrix_products(generator, lengths)
        least += floor
        ratio = statistics.median(b / a for a, b in zip(mine[name], theirs[name], strict=True))
        best_times = min(mine[name]), min(theirs[name])
        print(
            f"{name}: n = {len(examples)}, {sum(lengths)} tokens, ours {best_times[0]:.1f} s, "
            f"lm-eval {best_times[1]:.1f} s (batch {best}), ratio {ratio:.2f}; matrix products alone {floor:.1f} s, "
            f"ceiling {best_times[1] / floor:.2f}; others: {len(apart)} apart {apart}, {len(close)} close {close}; "
            f"largest gap {gap:.1e} nats",
            flush=True,
        )
    totals = [[sum(times) for times in zip(*arm.values(), strict=True)] for arm in (mine, theirs)]
    ratios = [b / a for a, b in zip(*totals, strict=True)]
    print(f"in total: ceiling by matrix products {min(totals[1]) / least:.2f}")
    line = {
        "bench": "evaluate",
        "ours": min(totals[0]),
        "anchor": min(totals[1]),
        "ratio": statistics.median(ratios),
        "runs": PAIRS,
    }
    print(json.dumps(line))
    if wrong:
        raise SystemExit(f"answers differ where they must not: {wrong}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["peer"]:
        peer(Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            compare(Path(scratch))
