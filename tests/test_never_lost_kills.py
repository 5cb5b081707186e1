"""Killed at any moment, the same command goes on, and ends where an undisturbed run ends, to the bit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from kill_driver import command
from safetensors.torch import load_file

from medmind.core.jsonl import read_jsonl
from medmind.core.rundir import RunDir

DRIVER = Path(__file__).with_name("kill_driver.py")
DROPOUT = "train.lora.lora_dropout=0.1"
"""So that the state of the random numbers counts too."""
LANES = (
    "train.lora.lora_dropout=0",
    "train.per_device_train_batch_size=2",
    "train.gradient_accumulation_steps=1",
)
"""With two threads: each takes documents of its own."""
BY_THE_CLOCK = {"seconds", "tokens_per_second", "memory_gb"}


def drive(root: Path, model: Path, kills: int, *settings: str, threads: str = "1") -> tuple[RunDir, RunDir]:
    words = [sys.executable, str(DRIVER), str(root), str(model), str(kills), "5", DROPOUT, *settings]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": threads})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"whole": 0, "killed": 0}
    return RunDir(root / "whole"), RunDir(root / "killed")


def weights(rundir: RunDir) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = load_file(rundir.adapter / "adapter_model.safetensors")
    return tensors


def measured(rundir: RunDir) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k not in BY_THE_CLOCK} for line in read_jsonl(rundir.metrics)]


def assert_nothing_was_lost(whole: RunDir, killed: RunDir, steps: int, kills: int, save_steps: int) -> None:
    assert weights(whole).keys() == weights(killed).keys()
    assert all(torch.equal(tensor, weights(killed)[name]) for name, tensor in weights(whole).items())
    assert measured(whole) == measured(killed)
    assert [line["step"] for line in measured(whole) if "loss" in line] == list(range(1, steps + 1))
    processes = list(read_jsonl(killed.processes))
    executed = sum(line["last_step"] - line["first_step"] + 1 for line in processes)
    assert steps <= executed <= steps + kills * save_steps
    assert len({line["pid"] for line in processes}) == len(processes) <= kills + 1
    assert processes[-1]["first_step"] > 1 and processes[-1]["last_step"] == steps
    resumed = [line["first_step"] - 1 for line in processes]
    assert resumed == sorted(resumed), "no process begins before the one it follows"
    left = {path.name for path in killed.checkpoints.iterdir()}
    assert left == {path.name for path in whole.checkpoints.iterdir()} and len(left) == 2


@pytest.mark.parametrize(
    ("more", "threads"),
    [pytest.param((DROPOUT,), "1", id="dropout"), pytest.param(LANES, "2", id="lanes", marks=pytest.mark.slow)],
)
def test_two_kills_one_of_them_inside_a_save_lose_nothing(
    more: tuple[str, ...], threads: str, tiny_model: Path, tmp_path: Path
) -> None:
    settings = ("train.num_train_epochs=3", "train.save_steps=3", "train.eval_steps=5", *more)
    whole, killed = drive(tmp_path, tiny_model, 2, *settings, threads=threads)
    assert_nothing_was_lost(whole, killed, steps=15, kills=2, save_steps=3)


@pytest.mark.slow
def test_twenty_kills_lose_nothing(tiny_model: Path, tmp_path: Path) -> None:
    settings = ("train.num_train_epochs=24", "train.save_steps=4", "train.eval_steps=7")
    whole, killed = drive(tmp_path, tiny_model, 20, *settings)
    assert_nothing_was_lost(whole, killed, steps=120, kills=20, save_steps=4)


@pytest.mark.slow
@pytest.mark.parametrize("more", [(DROPOUT,), LANES], ids=["dropout", "lanes"])
def test_stopped_with_two_threads_and_resumed_with_one_it_ends_the_same(
    more: tuple[str, ...], tiny_model: Path, tmp_path: Path
) -> None:
    """What began with two threads goes on with two, whatever the second environment says."""
    settings = ("train.num_train_epochs=10", "train.save_steps=50", *more)

    def start(rundir: RunDir, threads: str) -> "subprocess.Popen[bytes]":
        words = [sys.executable, "-m", "medmind", *command(rundir.root, str(tiny_model), *settings)]
        return subprocess.Popen(words, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": threads})

    whole, stopped = RunDir(tmp_path / "whole"), RunDir(tmp_path / "stopped")
    assert start(whole, "2").wait() == 0
    first = start(stopped, "2")
    while not (stopped.metrics.exists() and len(stopped.metrics.read_text().splitlines()) > 5):
        assert first.poll() is None
        time.sleep(0.02)
    first.send_signal(signal.SIGTERM)
    assert first.wait() == 130
    assert start(stopped, "1").wait() == 0
    assert stopped.read_manifest()["threads"] == 2
    assert all(torch.equal(tensor, weights(stopped)[name]) for name, tensor in weights(whole).items())
    assert measured(whole) == measured(stopped)
