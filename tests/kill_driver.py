"""Kills `medmind train` again and again: forks the real command from a process that has imported everything already."""

import importlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from medmind.cli.main import main
from medmind.core.jsonl import write_jsonl
from medmind.core.offline import keep_quiet
from medmind.core.rundir import RunDir
from medmind.train import checkpoint, record

SLOW_TO_IMPORT = ("data.stage.prepare", "data.quality.lengths", "recipe.stages", "train.engine")

ORGANS = ("heart", "lung", "liver", "kidney", "brain", "spleen", "skin", "bone", "eye", "ear", "nose", "tongue")


def command(root: Path, model: str, *settings: str) -> list[str]:
    """`medmind train` on a dozen questions; nine to train on, two a step, five steps an epoch."""
    questions = root.parent / "questions.jsonl"
    if not questions.exists():
        write_jsonl(questions, ({"q": f"What is the {one}?", "a": f"The {one} is an organ."} for one in ORGANS))
    said = [
        f"model={model}",
        "data.source=jsonl",
        f"data.path={questions}",
        "data.columns={question: q, answer: a}",
        "data.validation_fraction=0.2",
        "train.per_device_train_batch_size=1",
        "train.gradient_accumulation_steps=2",
        "train.learning_rate=1e-2",
        "train.dtype=float32",
        *settings,
    ]
    return ["train", "base", "--out", str(root), *(word for one in said for word in ("--set", one))]


def begin(words: list[str], before: Callable[[], None] = lambda: None) -> int:
    """The command in a process of its own, which shares nothing but the imports; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    before()
    with open(Path(words[words.index("--out") + 1]).with_suffix(".log"), "a") as told:
        os.dup2(told.fileno(), 2)
        os._exit(main(words))


def sleep_in_the_save(marker: Path) -> None:
    """The next save lasts until the process is killed, its files written and half of them hashed."""

    def seal(folder: Path) -> None:
        (folder / checkpoint.SEAL).write_text("{")
        marker.touch()
        time.sleep(600)

    checkpoint.seal = seal


def last_step(rundir: RunDir, pid: int) -> int:
    """What processes.jsonl says of this process; -1 before it begins to train."""
    path = rundir.processes
    lines = list(record.whole_lines(path)) if path.exists() else []
    return next((line["last_step"] for line in lines if line["pid"] == pid), -1)


def kill_at_random(rundir: RunDir, words: list[str], chance: random.Random) -> None:
    """Between the first breath and ten steps on."""
    pid = begin(words)
    moment = chance.random()
    if moment < 0.15:
        time.sleep(chance.uniform(0, 1))
    else:
        first = None
        wanted = chance.randint(0, 10)
        while True:
            step = last_step(rundir, pid)
            first = step if first is None and step >= 0 else first
            if (first is not None and step >= first + wanted) or os.waitid(
                os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT
            ):
                break
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.05))
    end(pid, signal.SIGKILL)


def kill_in_a_save(rundir: RunDir, words: list[str], marker: Path) -> None:
    pid = begin(words, before=lambda: sleep_in_the_save(marker))
    while not marker.exists():
        assert not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT), "ended before its save"
        time.sleep(0.005)
    assert (rundir.checkpoints / checkpoint.STAGING).is_dir()
    end(pid, signal.SIGKILL)


def end(pid: int, number: int) -> None:
    os.kill(pid, number)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), f"it had ended by itself, with {os.waitstatus_to_exitcode(status)}"


def drive(root: Path, model: str, kills: int, seed: int, settings: list[str]) -> dict[str, int]:
    """An undisturbed run in root/whole, and one killed so often in root/killed; returns their exit codes."""
    whole, killed = command(root / "whole", model, *settings), command(root / "killed", model, *settings)
    chance, rundir = random.Random(seed), RunDir(root / "killed")
    codes = {"whole": os.waitstatus_to_exitcode(os.waitpid(begin(whole), 0)[1])}
    assert codes["whole"] == 0, (root / "whole.log").read_text()
    inside = kills // 2
    for number in range(kills):
        if number == inside:
            kill_in_a_save(rundir, killed, root / "inside-a-save")
        else:
            kill_at_random(rundir, killed, chance)
    return codes | {"killed": os.waitstatus_to_exitcode(os.waitpid(begin(killed), 0)[1])}


if __name__ == "__main__":
    keep_quiet(allow_hub=False)
    for name in SLOW_TO_IMPORT:
        importlib.import_module(f"medmind.{name}")
    where, which, times, start, *more = sys.argv[1:]
    print(json.dumps(drive(Path(where), which, int(times), int(start), more)))
