"""Training on rows of ever new lengths takes no more memory the longer it goes on."""

import subprocess
import sys
from pathlib import Path

import pytest

from medmind.core.jsonl import read_jsonl
from medmind.core.rundir import RunDir

SETTLED, LAST = 10, 40


@pytest.mark.slow
def test_memory_is_flat_once_the_first_steps_are_done(tmp_path: Path) -> None:
    words = ["--out", str(tmp_path), "--set", f"train.max_steps={LAST}"]
    for stage in ("data", "train"):
        subprocess.run([sys.executable, "-m", "medmind", stage, "demo", *words], check=True, capture_output=True)
    peaks = {line["step"]: line["memory_gb"] for line in read_jsonl(RunDir(tmp_path).metrics) if "memory_gb" in line}
    assert max(peaks) == LAST
    assert peaks[LAST] - peaks[SETTLED] < 0.1
