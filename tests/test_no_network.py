"""The whole demo under strace: not one attempt to reach another machine."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SHORT = ("train.max_steps=3", "evaluate.max_items=2", "evaluate.max_new_tokens=8", "export.max_new_tokens=8")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_the_demo_connects_to_no_other_machine(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    settings = [word for text in (*SHORT, "export.parity_prompts=2") for word in ("--set", text)]
    command = [sys.executable, "-m", "medmind", "run", "demo", "--out", str(tmp_path / "run"), *settings]
    subprocess.run(["strace", "-f", "-e", "trace=connect", "-o", str(trace), *command], check=True)
    calls = trace.read_text()
    assert re.findall(r"connect\([^)]*AF_INET6?.*", calls) == []
    assert "exited with 0" in calls


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_strace_would_have_seen_a_connection(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    code = "import socket; socket.socket().connect_ex(('127.0.0.1', 9))"
    subprocess.run(["strace", "-f", "-e", "trace=connect", "-o", str(trace), sys.executable, "-c", code], check=True)
    assert "AF_INET" in trace.read_text()
