"""`medmind export` itself: killed at any moment it ends as an undisturbed one, and its gate names what is planted."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kill_driver import command

from medmind.cli.main import main
from medmind.core.rundir import RunDir
from medmind.export import ollama
from medmind.export import run as stage
from medmind.export.merge import merge
from medmind.models.spec import ModelSpec

pytestmark = pytest.mark.slow
UNBOUND = [f"export.parity.q4_k_m.{name}=null" for name in ("nmse", "top1", "kl", "perplexity")]
"""Random weights round worst of all."""
KILLS = 10


@pytest.fixture(scope="module")
def trained(wide_model: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run = RunDir(tmp_path_factory.mktemp("command") / "run")
    assert main([*command(run.root, str(wide_model), "train.max_steps=2", *settings())]) == 0
    return run


def settings() -> list[str]:
    return ["export.gguf=[f16, q4_k_m]", "export.max_new_tokens=8", "export.parity_items=2", *UNBOUND]


def copy(run: RunDir, to: Path) -> RunDir:
    return RunDir(Path(shutil.copytree(run.root, to)))


def begin(run: RunDir) -> "subprocess.Popen[bytes]":
    words = [sys.executable, "-m", "medmind", "export", str(run.root)]
    return subprocess.Popen(words, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})


def left(run: RunDir) -> dict[str, bytes]:
    return {
        path.relative_to(run.export).as_posix(): path.read_bytes() for path in run.export.rglob("*") if path.is_file()
    }


def test_ten_kills_change_nothing(trained: RunDir, tmp_path: Path) -> None:
    whole, broken = copy(trained, tmp_path / "a" / "run"), copy(trained, tmp_path / "b" / "run")
    started = time.monotonic()
    assert begin(whole).wait() == 0
    seconds, chance = time.monotonic() - started, random.Random(3)
    expected, died = left(whole), 0
    for number in range(KILLS):
        process = begin(broken)
        time.sleep(seconds * chance.uniform(0.3, 1.0) * (number + 1) / KILLS)
        process.send_signal(signal.SIGKILL)
        died += process.wait() == -signal.SIGKILL
        for file in broken.export.glob("model-*.gguf"):
            assert file.read_bytes() == expected[file.name], "what has its final name is whole"
    assert died >= KILLS // 2
    assert begin(broken).wait() == 0
    assert left(broken) == expected


def test_an_export_that_forgets_the_adapter(
    trained: RunDir,
    wide_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def forget(spec: ModelSpec, folder: Path, out: Path, progress: object) -> None:
        merge(spec, wide_model, out)

    run = copy(trained, tmp_path / "run")
    monkeypatch.setattr(stage, "merge", forget)
    assert main(["export", str(run.root)]) == 1
    assert "the merged checkpoint: adapter not merged: " in capsys.readouterr().err
    assert main(["export", str(run.root), "--bundle"]) == 1
    assert not run.bundle.exists()


def test_a_modelfile_that_never_stops(
    trained: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy(trained, tmp_path / "run")
    monkeypatch.setattr(ollama, "stops", lambda renderer: [renderer.opening])
    assert main(["export", str(run.root)]) == 1
    assert "missing stop: the Modelfile has no PARAMETER stop for </s>" in capsys.readouterr().err
