"""The training benches at a small size: what they count, that they resume, and that every arm still runs."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_estimate import NANO, rows_of
from torch.utils.flop_counter import FlopCounterMode

from medmind.core.jsonl import read_jsonl, write_jsonl
from medmind.core.types import Example, Message
from medmind.train.adapter import prepare_model
from medmind.train.batches import pack
from medmind.train.config import TrainConfig
from medmind.train.loss import completion_loss

BENCH = Path(__file__).parent.parent / "bench"
ROWS = 16
"""Of some 300 tokens: two steps of TRL's four packed rows."""
FOUND = {"memory_gb": 2.0, "held_out_loss": 3.0, "until_first_step": 9.0, "supervised": 90, "pairs": 100, "batch": 1}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    module = importlib.import_module("train_cpu")
    for name, value in {"ROWS": ROWS, "PAIRS": 3, "WORKS": ["nano"], "HELD_OUT": 2, "SCRATCH": tmp_path}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results.jsonl")
    write_rows(tmp_path)
    return module


def write_rows(scratch: Path) -> None:
    """What the data stage would have left."""
    turns = (Message(role="user", text="What is the heart?"),)
    told = [(f"r{n}", "The heart is an organ. " * (40 + n)) for n in range(ROWS + 4)]
    rows = [Example(id=name, source="medquad", task="qa", turns=turns, target=target) for name, target in told]
    write_jsonl(scratch / "rows" / "data" / "train.jsonl", rows)


def test_pairs_give_the_ratio_and_what_is_measured_is_not_measured_again(
    bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []
    speeds = {"medmind": iter((400, 900, 300)), "trl": iter((40, 70, 60, 100, 100, 100)), "seed": iter((10, 10, 10))}

    def call(work: Any, arm: str, folder: Path, **said: Any) -> dict[str, Any]:
        calls.append(arm + str(said["batch"] if arm == "trl" else ""))
        if arm == "judge":
            return {"held_out_loss": 3.0}
        return FOUND | {"tokens": 100, "seconds": 100 / next(speeds[arm]), "product_peak": 1e9, "cpu_seconds": 1.0}

    monkeypatch.setattr(bench.Work, "call", call)
    bench.main()
    assert [name for name in calls if name != "judge"] == [
        *("trl1", "trl2", "trl4"),
        *("medmind", "trl2", "seed"),
        *("seed", "trl2", "medmind"),
        *("medmind", "trl2", "seed"),
    ]
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [(line["bench"], line["ratio"], line["runs"]) for line in lines] == [
        ("train_cpu nano trl", 4.0, 3),
        ("train_cpu nano seed", 40.0, 3),
    ]
    calls.clear()
    bench.main()
    assert not calls


def test_rows_are_cut_from_the_stages_own(bench: Any) -> None:
    work = bench.prepare("nano")
    ids = list(read_jsonl(work.folder / "ids.jsonl"))
    assert len(ids) == ROWS and len(list(read_jsonl(work.folder / "held_out_ids.jsonl"))) == 2
    assert all(row["completion_mask"][0] == 0 and row["completion_mask"][-1] == 1 for row in ids)
    assert work.examples == pytest.approx(4 * 1024 / 300, abs=4)


def added(out: Any, left: Any, right: Any, **settings: Any) -> int:
    """By the shapes; torch counts the product that adds to what is there only under its other name."""
    return 2 * int(left[0]) * int(left[1]) * int(right[1])


def test_flop_are_those_executed(bench: Any) -> None:
    """All but the upper corner of attention's blocks on the diagonal, which is computed and not counted."""
    lengths = (200, 90, 260)
    model, rows = prepare_model(TrainConfig(dtype="float32"), NANO, seed=0).train(), rows_of(lengths)
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: added}) as counter:
        completion_loss(model, pack(rows)).backward()
    pairs = sum(length * (length + 1) // 2 for length in lengths)
    found = {"tokens": sum(lengths), "supervised": sum(row.supervised for row in rows), "pairs": pairs}
    assert 0.92 < bench.flop(NANO, found) / counter.get_total_flops() <= 1.0


def run(script: str, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / script)]
    return subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=True)


@pytest.mark.slow
def test_every_arm_that_is_installed_trains(tmp_path: Path) -> None:
    write_rows(tmp_path)
    here = Path("runs/trl").is_dir()
    arms = "medmind,trl,seed" if here else "medmind,seed"
    settings = {"RESULTS": str(tmp_path / "results.jsonl"), "SCRATCH": str(tmp_path), "TRAIN_WORK": "nano"}
    done = run("train_cpu.py", **settings, TRAIN_ROWS=str(ROWS), TRAIN_PAIRS="1", TRAIN_ARMS=arms)
    lines = {line["arm"]: line for line in read_jsonl(tmp_path / "results.jsonl")}
    assert lines.keys() >= set(arms.split(","))
    losses = [lines[arm]["held_out_loss"] for arm in arms.split(",")]
    assert max(losses[:-1]) < 1.05 * min(losses[:-1])
    assert "share of the bf16 matrix-product peak" in done.stdout


@pytest.mark.slow
def test_the_gpu_bench_measures_a_cell_a_call(tmp_path: Path) -> None:
    write_rows(tmp_path)
    settings = {"RESULTS": str(tmp_path / "gpu.jsonl"), "SCRATCH": str(tmp_path), "GPU_MODELS": "nano"}
    settings |= {"GPU_ROWS": str(ROWS), "GPU_CELLS": "medmind/nano/lora,medmind-compiled/nano/lora,unsloth/nano/lora"}
    first = run("train_gpu.py", **settings)
    assert "one cell measured" in first.stdout and "| nano | lora | medmind |" in first.stdout
    second = run("train_gpu.py", **settings)
    assert "no cell is left" in second.stdout
    assert "unsloth/nano/lora: skipped, unsloth is not installed" in second.stderr
    assert "medmind-compiled/nano/lora: skipped, it needs a GPU" in second.stderr
